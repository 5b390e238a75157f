"""Members of error responses and headers for clients of OAuth 2 and of EmailEngine."""

from typing import Any

import httpx
import pytest

from tallystick.contracts.records import RateLimit, Restrictions
from tallystick_server.edge.http.bodies import FORM
from tests.support.services import issue

JSON = "application/json"
RFC9457 = ["type", "title", "status"]
DAY = 86_400


@pytest.fixture
async def admin(edge: httpx.AsyncClient, operator, tokens_service) -> httpx.AsyncClient:
    value, _ = await issue(operator)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


OAUTH2_ERRORS: list[tuple[str, dict[str, Any], int, str]] = [
    ("POST /oauth2/revoke", {"data": {"token": ""}}, 400, "invalid_request"),
    ("POST /oauth2/revoke", {"data": {"other": "x"}}, 400, "invalid_request"),
    ("POST /oauth2/introspect", {"data": {"token": ""}}, 400, "invalid_request"),
    ("POST /oauth2/introspect", {"json": {"token": "x"}}, 415, "invalid_request"),
    ("POST /oauth2/revoke", {"json": {"token": "x"}}, 415, "invalid_request"),
    ("POST /oauth2/revoke", {}, 415, "invalid_request"),
    ("POST /oauth2/revoke", {"headers": {"authorization": "x"}}, 401, "invalid_client"),
    ("POST /oauth2/revoke", {"headers": {"authorization": "Bearer x"}}, 401, "invalid_client"),
    ("POST /oauth2/introspect", {"auth": ("a", "wrong")}, 401, "invalid_client"),
    ("POST /oauth2/introspect", {"headers": {"authorization": "Bearer a b"}}, 400, "invalid_request"),
    ("GET /oauth2/introspect", {}, 405, "invalid_request"),
    ("GET /oauth2/nowhere", {}, 404, "invalid_request"),
    ("POST /oauth2/revoke", {"data": {"token": "x" * 70_000}}, 413, "invalid_request"),
    (f"POST /oauth2/revoke?{'a' * 9000}", {}, 414, "invalid_request"),
    ("POST /oauth2/revoke", {"headers": {"a": "b" * 20_000}}, 431, "invalid_request"),
    ("POST /oauth2/revoke", {"headers": {"host": ""}}, 400, "invalid_request"),
]


async def test_every_error_under_oauth2_has_the_code_of_rfc_6749(admin, subtests: pytest.Subtests):
    for line, options, status, error in OAUTH2_ERRORS:
        with subtests.test(line=line, options=options):
            method, _, path = line.partition(" ")
            response = await admin.request(method, path, **options)
            problem = response.json()
            assert (response.status_code, problem["error"]) == (status, error), problem
            assert response.headers["content-type"] == "application/problem+json"
            assert list(problem)[:3] == RFC9457
            assert "statusCode" not in problem
            if status == 415:
                assert FORM in problem["detail"]


API_ERRORS: list[tuple[str, dict[str, Any], int, str]] = [
    ("GET /v1/self", {"headers": {"authorization": "x"}}, 401, "Unauthorized"),
    ("GET /v1/self", {"headers": {"authorization": "Bearer x"}}, 401, "Unauthorized"),
    ("GET /v1/self", {"headers": {"authorization": f"Bearer {'ab' * 32}"}}, 401, "Unauthorized"),
    ("GET /v1/self", {"headers": {"authorization": "Bearer a b"}}, 400, "Bad Request"),
    ("GET /v1/self", {"headers": {"host": ""}}, 400, "Bad Request"),
    ("GET /v1/tokens/tok_x", {}, 404, "Not Found"),
    ("PUT /v1/self", {}, 405, "Method Not Allowed"),
    ("POST /v1/token", {"json": {"scopes": []}}, 400, "Bad Request"),
    ("POST /v1/token", {"content": b"{}"}, 415, "Unsupported Media Type"),
]


async def test_every_error_of_the_api_has_the_members_of_emailengine(admin, subtests: pytest.Subtests):
    for line, options, status, error in API_ERRORS:
        with subtests.test(line=line, options=options):
            method, _, path = line.partition(" ")
            response = await admin.request(method, path, **options)
            problem = response.json()
            assert (response.status_code, problem["statusCode"], problem["error"]) == (status, status, error)
            assert problem["message"] == problem.get("detail", problem["title"])
            assert list(problem)[:3] == RFC9457


async def test_other_errors_have_neither_of_them(edge, tokens_service, subtests: pytest.Subtests):
    for path in ("/auth?scope=api", "/metrics", "/nowhere", "/auth?scope=", "/auth"):
        with subtests.test(path=path):
            for value in ("x", "Bearer x", "Bearer a b", f"Bearer {'ab' * 32}"):
                problem = (await edge.get(path, headers={"authorization": value})).json()
                assert problem["status"] in {400, 401}
                assert not problem.keys() & {"error", "message", "statusCode"}


async def test_a_rate_limited_token_has_the_older_headers_too(edge, operator, tokens_service):
    limit = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=DAY))
    value, _ = await issue(operator, "api", restrictions=limit)
    for path in ("/v1/self", "/auth?scope=api"):
        response = await edge.get(path, headers={"authorization": f"Bearer {value}"})
        assert response.status_code == 200
    assert [response.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining")] == ["2", "0"]
    for path in ("/v1/self", "/auth?scope=api"):
        response = await edge.get(path, headers={"authorization": f"Bearer {value}"})
        assert response.status_code == 429
        assert [response.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining")] == ["2", "0"]
        seconds = int(response.headers["retry-after"])
        assert 0 < seconds <= DAY
        assert response.json()["ttl"] == seconds == int(response.headers["x-ratelimit-reset"])


async def test_an_unlimited_token_has_no_rate_limit_headers(admin):
    assert not [name for name in (await admin.get("/v1/self")).headers if "ratelimit" in name]


async def test_an_account_bound_token_is_rejected_with_account_mismatch(edge, admin, operator):
    await admin.post("/v1/account", json={"account": "alice"})
    value, _ = await issue(operator, "api", account="alice")
    bearer = {"authorization": f"Bearer {value}"}
    for path in ("/v1/accounts", "/v1/account/bob", "/auth?scope=api", "/auth?scope=api&account=bob"):
        problem = (await edge.get(path, headers=bearer)).json()
        assert problem["code"] == "account_mismatch"
        assert problem["title"] == "The token is bound to an account that the request does not name"


async def test_no_response_with_data_is_cacheable(admin, metrics_service):
    token = (await admin.post("/v1/tokens", json={"scopes": ["api"]})).json()
    await admin.post("/v1/account", json={"account": "alice"})
    paths = (
        *("/v1/self", "/v1/tokens", "/v1/stats", "/v1/accounts", "/v1/account/alice", "/metrics"),
        *(f"/v1/tokens/{token['id']}", f"/v1/tokens/{token['id']}/log", "/v1/tokens/account/alice"),
        *("/auth?scope=api", "/health/live", "/health/ready", "/nowhere", "/v1/tokens?page=x"),
    )
    for path in paths:
        assert (await admin.get(path)).headers["cache-control"] == "no-store", path
    edit = await admin.patch(f"/v1/tokens/{token['id']}", json={"description": "x"})
    assert edit.headers["cache-control"] == "no-store"


async def test_a_post_that_needs_no_field_needs_no_body(admin):
    token = (await admin.post("/v1/tokens", json={"scopes": ["api"]})).json()
    for headers in ({}, {"content-type": JSON}, {"content-type": f"{JSON}; charset=utf-8"}):
        response = await admin.post(f"/v1/tokens/{token['id']}/rotate", headers=headers)
        assert response.status_code == 201, response.text
        token = response.json()
    response = await admin.post("/v1/self/rotate", headers={"authorization": f"Bearer {token['token']}"})
    assert response.status_code == 201
    token = response.json()
    for path in ("/v1/tokens", "/v1/token"):
        problem = (await admin.post(path)).json()
        assert [error["field"] for error in problem["errors"]] == ["scopes"], problem
    path = f"/v1/tokens/{token['id']}/rotate"
    for content, headers, status in (
        (b"{}", {}, 415),
        (b" ", {"content-type": JSON}, 400),
        (b"null", {"content-type": JSON}, 400),
        (b"", {"content-type": FORM}, 415),
        (b"", {"content-encoding": "gzip"}, 415),
    ):
        assert (await admin.post(path, content=content, headers=headers)).status_code == status
    assert (await admin.post("/v1/account")).status_code == 415
    assert (await admin.patch(f"/v1/tokens/{token['id']}")).status_code == 415

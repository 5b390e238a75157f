"""A query parameter that a route does not declare is rejected: otherwise a misspelt filter would return everything."""

from typing import Any

import httpx
import pytest

from tallystick.tokens import format as token_format
from tallystick_server.edge.authorization.routes import rules_of
from tallystick_server.edge.http.parameters import MISPLACED, Query
from tests.support.dashboard import sign_in_and_send_token
from tests.support.routes import ROUTES, encoded
from tests.support.services import issue

LENIENT_V1 = {"/v1/token", "/v1/token/alice", "/v1/tokens/account/alice"}
"""EmailEngine's routes, which accept any parameters."""
PATHS: list[tuple[str, str, Query]] = [
    (path, method, rules_of(handler).query)
    for path, method, handler, _ in ROUTES
    if method in handler.http_methods and method != "OPTIONS"
]
STRICT = [route for route in PATHS if route[2].is_strict]


@pytest.fixture
async def admin(edge, operator, tokens_service, metrics_service):
    """A client that is signed in to the dashboard and sends an all-powerful token."""
    await sign_in_and_send_token(edge, operator)
    return edge


def test_every_route_under_v1_is_strict_except_those_of_emailengine():
    assert {path for path, _, query in PATHS if path.startswith("/v1/") and not query.is_strict} == LENIENT_V1
    assert {path for path, _, query in PATHS if not path.startswith("/v1/") and query.is_strict} == {"/auth"}
    # The same path also has a strict route.
    assert ("/v1/tokens/account/alice", "DELETE") in {(path, method) for path, method, _ in STRICT}


async def test_every_strict_route_names_an_unknown_parameter_and_the_nearest_known_one(admin):
    for path, method, query in STRICT:
        for known in sorted(query.declared | {"access_token"}):
            misspelt = f"{known[:-1]}x"
            for name in (misspelt, encoded(misspelt)):
                for prefix in ("", "scope=metrics&") if "scope" in query.declared else ("",):
                    response = await admin.request(method, f"{path}?{prefix}{name}=alice")
                    assert response.status_code == 400, (method, path, name, response.text)
                    errors = {error["field"]: error["message"] for error in response.json()["errors"]}
                    assert errors[misspelt] == f"unknown parameter; did you mean {known}?"


async def test_a_misspelt_filter_returns_nothing(admin):
    for path, name, nearest in (
        ("/v1/tokens?sate=disabled", "sate", "state"),
        ("/v1/tokens?State=disabled", "State", "state"),
        ("/v1/tokens?pagesize=1", "pagesize", "pageSize"),
        ("/v1/tokens?created_by=x", "created_by", "createdBy"),
        ("/v1/accounts?quer=stark", "quer", "query"),
        ("/v1/stats?second=5", "second", "seconds"),
        ("/auth?scope=api&acount=alice", "acount", "account"),
    ):
        response = await admin.get(path)
        assert (response.status_code, response.json()["code"]) == (400, "bad_request"), path
        message = f"unknown parameter; did you mean {nearest}?"
        assert response.json()["errors"] == [{"field": name, "message": message}]
    response = await admin.get("/v1/tokens?utm_source=x&page&page=")
    assert [error["field"] for error in response.json()["errors"]] == ["page", "utm_source"]
    assert "known are" in response.json()["errors"][1]["message"]


async def test_revoking_with_a_misspelt_restriction_revokes_nothing(admin, operator):
    value, token = await issue(operator)
    for query in ("onyl=predecessors", "dry_run=true", "dryrun=true"):
        assert (await admin.delete(f"/v1/tokens/{token.id}?{query}")).status_code == 400
    headers = {"authorization": f"Bearer {value}"}
    assert (await admin.get("/v1/self", headers=headers)).status_code == 200


async def test_the_response_is_the_same_for_a_cached_token(admin):
    for path in ("/auth?scope=api&account=alice&x=1", "/auth?x=1&scope=api", "/v1/stats?x=1"):
        first, second = await admin.get(path), await admin.get(path)
        assert (first.status_code, second.status_code) == (400, 400)
        assert first.json() == second.json()
    assert (await admin.get("/auth?scope=api")).status_code == 200


PATHS_WITH_APPENDED_PARAMETERS = [
    "/metrics?name[]=up&collect[]=cpu",
    "/health/live?_=1",
    "/health/ready?x=1",
    "/docs?utm_source=x",
    "/admin?utm_source=x",
    "/admin/tokens?utm_source=x&gclid=1",
    "/v1/tokens/account/nobody?page=0",
    "/v1/self?&&",
]


async def test_appended_parameters_are_ignored_by_routes_that_are_not_strict(
    admin, subtests: pytest.Subtests
):
    for path in PATHS_WITH_APPENDED_PARAMETERS:
        with subtests.test(path=path):
            assert (await admin.get(path)).status_code == 200


async def test_an_unknown_path_is_not_found_whatever_its_query(admin):
    assert (await admin.get("/v1/nowhere?x=1")).status_code == 404


async def test_under_oauth2_only_misplaced_form_fields_are_rejected(admin, operator):
    value, _ = await issue(operator, "orders")
    for path in ("/oauth2/introspect", "/oauth2/revoke"):
        response = await admin.post(f"{path}?token={value}", data={"token": value})
        assert response.status_code == 400
        assert response.json()["error"] == "invalid_request"
        assert response.json()["errors"] == [{"field": "token", "message": MISPLACED}]
        assert value not in response.text
    response = await admin.post("/oauth2/introspect?scope=invoices&tenant=x", data={"token": value})
    assert response.json()["errors"] == [{"field": "scope", "message": MISPLACED}]
    assert (await admin.post("/oauth2/introspect?tenant=x", data={"token": value})).json()["active"] is True


async def test_a_token_in_place_of_a_parameter_name_is_not_repeated(admin: httpx.AsyncClient):
    secrets: list[Any] = [token_format.mint(), "f" * 64, "a1b2c3d4e5f6a7b8", "\x1b[31m"]
    for name in secrets:
        response = await admin.get("/v1/tokens", params={name: "1"})
        assert response.status_code == 400
        assert name not in response.text
        assert [error["field"] for error in response.json()["errors"]] == [""]


async def test_very_many_unknown_parameters_get_a_bounded_response(admin):
    response = await admin.get("/v1/tokens?" + "&".join(f"p{number}" for number in range(1000)))
    assert (response.status_code, len(response.json()["errors"])) == (400, 10)


async def test_a_stranger_learns_nothing_from_an_unknown_parameter(edge, operator, tokens_service):
    value, _ = await issue(operator, "orders")
    for headers, status in (({}, 401), ({"authorization": f"Bearer {value}"}, 403)):
        assert (await edge.get("/v1/tokens?sate=x", headers=headers)).status_code == status

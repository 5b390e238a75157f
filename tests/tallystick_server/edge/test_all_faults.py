"""All errors of a request body are reported at once: over HTTP, over NATS and in the dashboard's form."""

import json
import re
from typing import Any

import httpx
import pytest

from tallystick.contracts.tokens import CREATE_TOKEN
from tallystick.tokens import format as token_format
from tallystick.tokens.scopes import is_scope
from tests.support.api import create_token
from tests.support.dashboard import ready, send, sign_in_at_last
from tests.support.services import issue

BODY: dict[str, Any] = {
    "expires": "tomorrow",
    "foo": 1,
    "scopes": ["BAD", "ok"],
    "restrictions": {"addresses": ["10.0.0.0/8", "10.0.0.1/8"], "adresses": []},
}
INVALID_FIELDS = ["expires", "foo", "restrictions.addresses[1]", "restrictions.adresses", "scopes[0]"]


@pytest.fixture
async def admin(edge, operator, tokens_service, metrics_service):
    """A client that is signed in to the dashboard and sends an all-powerful token."""
    await ready(edge)
    value, _ = await issue(operator)
    await sign_in_at_last(edge, value)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


def fields(errors: list[dict[str, str]]) -> list[str]:
    return sorted(error["field"] for error in errors)


async def test_create_and_edit_over_http_report_all_errors(admin: httpx.AsyncClient):
    """B14: the first response reported only `expires` and an unnamed field, the next one the rest."""
    token = await create_token(admin)
    for response in (
        await admin.post("/v1/tokens", json=BODY),
        await admin.patch(f"/v1/tokens/{token['id']}", json=BODY),
    ):
        assert response.status_code == 400
        assert fields(response.json()["errors"]) == INVALID_FIELDS
        messages = {error["field"]: error["message"] for error in response.json()["errors"]}
        assert messages["restrictions.adresses"] == "unknown field; did you mean addresses?"
        assert messages["restrictions.addresses[1]"] == '"10.0.0.1/8": host bits are set'
        assert '"tomorrow"' in messages["expires"]


async def test_create_over_nats_reports_all_errors(tokens_service, operator):
    request = {"token": BODY, "digest": "0" * 64, "hint": "", "actor": {"name": "test"}, "more": 1}
    reply = await operator.request(CREATE_TOKEN.by_operator.subject, json.dumps(request).encode(), timeout=2)
    failure = json.loads(reply.data)
    assert failure["code"] == "bad_request"
    assert fields(failure["errors"]) == sorted(["more", *(f"token.{field}" for field in INVALID_FIELDS)])


async def test_an_unknown_account_is_reported_with_rule_violations(admin: httpx.AsyncClient):
    response = await admin.post(
        "/v1/tokens", json={"scopes": ["BAD"], "account": "nobody", "expires": "2020-01-01T00:00:00Z"}
    )
    assert fields(response.json()["errors"]) == ["account", "expires", "scopes[0]"]
    assert (await admin.get("/v1/tokens", params={"account": "nobody"})).json()["total"] == 0


async def test_an_unknown_account_is_reported_with_all_other_errors(admin: httpx.AsyncClient, operator):
    """It was reported only after the types were corrected."""
    writer, _ = await issue(operator, "api:tokens:write")
    await admin.post("/v1/account", json={"account": "alice"})
    for headers in (admin.headers, {"authorization": f"Bearer {writer}"}):
        for account, extra_fields in (
            ("nobody", ["account"]),
            ("alice", []),
            ("a/b", ["account"]),
            (1, ["account"]),
        ):
            response = await admin.post("/v1/tokens", json={**BODY, "account": account}, headers=headers)
            assert response.status_code == 400
            assert fields(response.json()["errors"]) == sorted([*INVALID_FIELDS, *extra_fields]), account
    bound, _ = await issue(operator, "api:tokens:write", account="alice")
    response = await admin.post(
        "/v1/tokens", json={**BODY, "account": "nobody"}, headers={"authorization": f"Bearer {bound}"}
    )
    assert response.status_code == 403
    assert (await admin.get("/v1/tokens", params={"query": "hint"})).json()["total"] == 0


async def test_all_errors_of_an_emailengine_body_are_reported_at_once(admin: httpx.AsyncClient):
    """Unsupported fields were reported first, then rule violations, then the account."""
    unsupported = {"restrictions": {"addresses": ["10.0.0.1/8", "here"], "referrers": ["a"]}}
    for invalid, expected in (
        (unsupported, ["restrictions.addresses[1]", "restrictions.referrers[0]", "scopes[0]"]),
        ({"foo": 1}, ["foo", "scopes[0]"]),
        (
            {"foo": 1, **unsupported},
            ["foo", "restrictions.addresses[1]", "restrictions.referrers[0]", "scopes[0]"],
        ),
        ({"restrictions": {"addresses": ["here"]}}, ["restrictions.addresses[0]", "scopes[0]"]),
        ({"permissions": {"actions": ["x"]}}, ["permissions", "scopes[0]"]),
    ):
        body = {"scopes": ["BAD"], "account": "nobody", "description": "x" * 1025, **invalid}
        response = await admin.post("/v1/token", json=body)
        assert response.status_code == 400
        assert fields(response.json()["errors"]) == sorted(["account", "description", *expected]), invalid
    # An unknown account alone is a 404.
    assert (await admin.post("/v1/token", json={"scopes": "api", "account": "nobody"})).status_code == 404


async def test_an_unknown_account_is_reported_with_all_other_errors_over_nats(tokens_service, operator):
    request = {"token": {**BODY, "account": "nobody"}, "digest": "0" * 64, "hint": ""}
    token_fields = [f"token.{field}" for field in INVALID_FIELDS]
    for actor, extra_fields in (
        ({"name": "test"}, ["token.account"]),
        # An unauthenticated actor learns nothing about accounts.
        ({"name": 1}, ["actor.name"]),
        ({"token": "0" * 64}, []),
    ):
        payload = json.dumps({**request, "actor": actor}).encode()
        reply = await operator.request(CREATE_TOKEN.by_operator.subject, payload, timeout=10)
        failure = json.loads(reply.data)
        assert failure["code"] == "bad_request"
        assert fields(failure["errors"]) == sorted([*token_fields, *extra_fields])


async def test_an_unknown_field_of_a_small_body_is_named(admin: httpx.AsyncClient):
    for path, body, field, message in (
        ("/v1/account", {"acount": "a"}, "acount", "unknown field; did you mean account?"),
        ("/v1/self/rotate", {"grase": 1}, "grase", "unknown field; did you mean grace?"),
        ("/v1/token", {"scopes": "api", "scop": 1}, "scop", "unknown field; did you mean scopes?"),
    ):
        response = await admin.post(path, json=body)
        assert response.status_code == 400
        assert {"field": field, "message": message} in response.json()["errors"]


async def test_no_error_repeats_a_misplaced_token(admin: httpx.AsyncClient):
    for secret in (token_format.mint(), "f" * 64, "opaque-1234567890"):
        for body in (
            {secret: 1},
            {"scopes": [secret]},
            {"scopes": secret},
            {"scopes": ["api"], "expires": secret},
            {"scopes": ["api"], "restrictions": {"addresses": [secret]}},
            {"scopes": ["api"], "account": f"/{secret}"},
        ):
            response = await admin.post("/v1/tokens", json=body)
            # Some tokens could be scopes as well.
            is_valid = body == {"scopes": [secret]} and is_scope(secret)
            assert response.status_code == (201 if is_valid else 400)
            assert is_valid or secret not in response.text


async def test_a_byte_order_mark_is_named(admin: httpx.AsyncClient, subtests: pytest.Subtests):
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"):
        with subtests.test(mark=mark):
            headers = {"content-type": "application/json"}
            response = await admin.post("/v1/tokens", content=mark + b'{"scopes":["api"]}', headers=headers)
            assert response.status_code == 400
            assert "byte order mark" in response.json()["errors"][0]["message"]


async def test_the_form_shows_all_errors_with_line_numbers_and_focuses_the_first(
    admin: httpx.AsyncClient,
):
    """B14: errors came in three rounds, addresses had no line numbers, and the focus stayed at the top."""
    response = await send(
        admin,
        "/admin/tokens/new",
        description="entered",
        scope="ok BAD",
        account="nobody",
        expires="at",
        addresses="10.0.0.0/8\r\n\r\n10.0.0.1/8\r\nhere",
        referrers="a b",
        requests="many",
        metadata="{",
    )
    assert response.status_code == 400
    problems = dict(re.findall(r'id="(\w+)-problem">([^<]*)<', response.text))
    assert problems.keys() == {
        "scopes",
        "account",
        "expires",
        "addresses",
        "referrers",
        "rateLimit",
        "metadata",
    }
    assert problems["addresses"].startswith("line 3: &#34;10.0.0.1/8&#34;: host bits are set; line 4: ")
    assert "BAD" in problems["scopes"]
    (focused,) = re.findall(r"<[^>]* autofocus[^>]*>", response.text)
    assert 'id="other"' in focused
    assert 'value="entered"' in response.text
    assert "0 tokens" in (await admin.get("/admin/tokens", params={"query": "entered"})).text
    for values, name in (
        ({"addresses": "x"}, "addresses"),
        ({"expires": "at"}, "expires"),
        ({"metadata": "["}, "metadata"),
    ):
        response = await send(admin, "/admin/tokens/new", **{"scope": "ok", "expires": "never", **values})
        (focused,) = re.findall(r"<[^>]* autofocus[^>]*>", response.text)
        assert f'name="{name}"' in focused
    (focused,) = re.findall(r"<[^>]* autofocus[^>]*>", (await admin.get("/admin/tokens/new")).text)
    assert 'id="description"' in focused


async def test_a_form_with_very_many_errors_shows_the_first_ones(admin: httpx.AsyncClient):
    response = await send(
        admin,
        "/admin/tokens/new",
        scope="ok",
        expires="never",
        addresses="\n".join(f"x{n}" for n in range(200)),
    )
    assert "190 more" in response.text


async def test_an_edit_of_an_expired_token_reports_only_the_invalid_fields(
    admin: httpx.AsyncClient, operator
):
    _, token = await issue(operator, "ok")
    await admin.post(f"/v1/tokens/{token.id}/rotate", json={"grace": 0})
    response = await send(
        admin, f"/admin/tokens/{token.id}/edit", scope="BAD", expires="never", metadata="{", addresses="x"
    )
    invalid_fields = re.findall(r'id="(\w+)-problem"', response.text)
    assert invalid_fields == ["scopes", "addresses", "metadata"]

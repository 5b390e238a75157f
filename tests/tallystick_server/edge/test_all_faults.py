"""Everything that is wrong with a body is told at once: over HTTP, NATS and in the dashboard's form."""

import json
import re
from typing import Any

import httpx
import pytest

from tallystick.contracts.tokens import CREATE_TOKEN
from tallystick.tokens import format as token_format
from tests.support.api import create_token
from tests.support.dashboard import ready, send, sign_in_at_last
from tests.support.services import issue

BODY: dict[str, Any] = {
    "expires": "tomorrow",
    "foo": 1,
    "scopes": ["BAD", "ok"],
    "restrictions": {"addresses": ["10.0.0.0/8", "10.0.0.1/8"], "adresses": []},
}
FOUND = ["expires", "foo", "restrictions.addresses[1]", "restrictions.adresses", "scopes[0]"]


@pytest.fixture
async def admin(edge, operator, tokens_service, metrics_service):
    """A client that is signed in to the dashboard and sends an all-powerful token."""
    await ready(edge)
    value, _ = await issue(operator)
    await sign_in_at_last(edge, value)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


def fields(errors: list[dict[str, str]]) -> list[str]:
    return sorted(each["field"] for each in errors)


async def test_over_http_a_new_token_and_an_edit(admin: httpx.AsyncClient):
    """B14: expires and a field without its name were told, then the rest."""
    made = await create_token(admin)
    for answer in (
        await admin.post("/v1/tokens", json=BODY),
        await admin.patch(f"/v1/tokens/{made['id']}", json=BODY),
    ):
        assert answer.status_code == 400
        assert fields(answer.json()["errors"]) == FOUND
        messages = {each["field"]: each["message"] for each in answer.json()["errors"]}
        assert messages["restrictions.adresses"] == "unknown field; did you mean addresses?"
        assert messages["restrictions.addresses[1]"] == '"10.0.0.1/8": host bits are set'
        assert '"tomorrow"' in messages["expires"]


async def test_over_nats(tokens_service, operator):
    request = {"token": BODY, "digest": "0" * 64, "hint": "", "actor": {"name": "test"}, "more": 1}
    answer = await operator.request(CREATE_TOKEN.by_operator.subject, json.dumps(request).encode(), timeout=2)
    failure = json.loads(answer.data)
    assert failure["code"] == "bad_request"
    assert fields(failure["errors"]) == sorted(["more", *(f"token.{field}" for field in FOUND)])


async def test_what_the_rules_say_comes_with_an_account_that_is_not_there(admin: httpx.AsyncClient):
    answer = await admin.post(
        "/v1/tokens", json={"scopes": ["BAD"], "account": "nobody", "expires": "2020-01-01T00:00:00Z"}
    )
    assert fields(answer.json()["errors"]) == ["account", "expires", "scopes[0]"]
    assert (await admin.get("/v1/tokens", params={"account": "nobody"})).json()["total"] == 0


async def test_an_unknown_account_comes_with_every_other_fault(admin: httpx.AsyncClient, operator):
    """It was told once the types were right."""
    writer, _ = await issue(operator, "api:tokens:write")
    await admin.post("/v1/account", json={"account": "alice"})
    for headers in (admin.headers, {"authorization": f"Bearer {writer}"}):
        for account, others in (
            ("nobody", ["account"]),
            ("alice", []),
            ("a/b", ["account"]),
            (1, ["account"]),
        ):
            answer = await admin.post("/v1/tokens", json={**BODY, "account": account}, headers=headers)
            assert answer.status_code == 400
            assert fields(answer.json()["errors"]) == sorted([*FOUND, *others]), account
    bound, _ = await issue(operator, "api:tokens:write", account="alice")
    answer = await admin.post(
        "/v1/tokens", json={**BODY, "account": "nobody"}, headers={"authorization": f"Bearer {bound}"}
    )
    assert answer.status_code == 403
    assert (await admin.get("/v1/tokens", params={"query": "hint"})).json()["total"] == 0


async def test_all_faults_of_emailengine_s_body_come_at_once(admin: httpx.AsyncClient):
    """What could not be expressed was told, then what the rules say, then the account."""
    unexpressed = {"restrictions": {"addresses": ["10.0.0.1/8", "here"], "referrers": ["a"]}}
    for wrong, found in (
        (unexpressed, ["restrictions.addresses[1]", "restrictions.referrers[0]", "scopes[0]"]),
        ({"foo": 1}, ["foo", "scopes[0]"]),
        (
            {"foo": 1, **unexpressed},
            ["foo", "restrictions.addresses[1]", "restrictions.referrers[0]", "scopes[0]"],
        ),
        ({"restrictions": {"addresses": ["here"]}}, ["restrictions.addresses[0]", "scopes[0]"]),
        ({"permissions": {"actions": ["x"]}}, ["permissions", "scopes[0]"]),
    ):
        body = {"scopes": ["BAD"], "account": "nobody", "description": "x" * 1025, **wrong}
        answer = await admin.post("/v1/token", json=body)
        assert answer.status_code == 400
        assert fields(answer.json()["errors"]) == sorted(["account", "description", *found]), wrong
    # Alone, it is not found.
    assert (await admin.post("/v1/token", json={"scopes": "api", "account": "nobody"})).status_code == 404


async def test_an_unknown_account_comes_with_the_other_faults_over_nats(tokens_service, operator):
    request = {"token": {**BODY, "account": "nobody"}, "digest": "0" * 64, "hint": ""}
    found = [f"token.{field}" for field in FOUND]
    for actor, others in (
        ({"name": "test"}, ["token.account"]),
        # Of whom nothing is known is told nothing about accounts.
        ({"name": 1}, ["actor.name"]),
        ({"token": "0" * 64}, []),
    ):
        payload = json.dumps({**request, "actor": actor}).encode()
        answer = await operator.request(CREATE_TOKEN.by_operator.subject, payload, timeout=10)
        failure = json.loads(answer.data)
        assert failure["code"] == "bad_request"
        assert fields(failure["errors"]) == sorted([*found, *others])


async def test_an_unknown_field_of_a_small_body_is_named(admin: httpx.AsyncClient):
    for path, body, field, message in (
        ("/v1/account", {"acount": "a"}, "acount", "unknown field; did you mean account?"),
        ("/v1/self/rotate", {"grase": 1}, "grase", "unknown field; did you mean grace?"),
        ("/v1/token", {"scopes": "api", "scop": 1}, "scop", "unknown field; did you mean scopes?"),
    ):
        answer = await admin.post(path, json=body)
        assert answer.status_code == 400
        assert {"field": field, "message": message} in answer.json()["errors"]


async def test_no_error_repeats_a_token_that_is_in_the_wrong_place(admin: httpx.AsyncClient):
    for secret in (token_format.mint(), "f" * 64, "opaque-1234567890"):
        for body in (
            {secret: 1},
            {"scopes": [secret]},
            {"scopes": secret},
            {"scopes": ["api"], "expires": secret},
            {"scopes": ["api"], "restrictions": {"addresses": [secret]}},
            {"scopes": ["api"], "account": f"/{secret}"},
        ):
            answer = await admin.post("/v1/tokens", json=body)
            assert answer.status_code == (
                201 if body == {"scopes": [secret]} and "-" in secret else answer.status_code
            )
            assert answer.status_code in {201, 400}
            if answer.status_code == 400:
                assert secret not in answer.text


async def test_a_byte_order_mark_is_named(admin: httpx.AsyncClient, subtests: pytest.Subtests):
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"):
        with subtests.test(mark=mark):
            headers = {"content-type": "application/json"}
            answer = await admin.post("/v1/tokens", content=mark + b'{"scopes":["api"]}', headers=headers)
            assert answer.status_code == 400
            assert "byte order mark" in answer.json()["errors"][0]["message"]


async def test_the_form_shows_all_faults_with_their_lines_and_the_focus_on_the_first(
    admin: httpx.AsyncClient,
):
    """B14: they came in three rounds, addresses without their line, and the focus stayed at the top."""
    answer = await send(
        admin,
        "/admin/tokens/new",
        description="kept",
        scope="ok BAD",
        account="nobody",
        expires="at",
        addresses="10.0.0.0/8\r\n\r\n10.0.0.1/8\r\nhere",
        referrers="a b",
        requests="many",
        metadata="{",
    )
    assert answer.status_code == 400
    shown = dict(re.findall(r'id="(\w+)-problem">([^<]*)<', answer.text))
    assert shown.keys() == {"scopes", "account", "expires", "addresses", "referrers", "rateLimit", "metadata"}
    assert shown["addresses"].startswith("line 3: &#34;10.0.0.1/8&#34;: host bits are set; line 4: ")
    assert "BAD" in shown["scopes"]
    (focused,) = re.findall(r"<[^>]* autofocus[^>]*>", answer.text)
    assert 'id="other"' in focused
    assert 'value="kept"' in answer.text
    assert "0 tokens" in (await admin.get("/admin/tokens", params={"query": "kept"})).text
    for fields_, name in (
        ({"addresses": "x"}, "addresses"),
        ({"expires": "at"}, "expires"),
        ({"metadata": "["}, "metadata"),
    ):
        answer = await send(admin, "/admin/tokens/new", **{"scope": "ok", "expires": "never", **fields_})
        (focused,) = re.findall(r"<[^>]* autofocus[^>]*>", answer.text)
        assert f'name="{name}"' in focused
    (focused,) = re.findall(r"<[^>]* autofocus[^>]*>", (await admin.get("/admin/tokens/new")).text)
    assert 'id="description"' in focused


async def test_a_form_with_ever_so_many_faults_shows_the_first(admin: httpx.AsyncClient):
    answer = await send(
        admin,
        "/admin/tokens/new",
        scope="ok",
        expires="never",
        addresses="\n".join(f"x{n}" for n in range(200)),
    )
    assert "190 more" in answer.text


async def test_an_edit_of_an_expired_token_reports_only_what_is_wrong(admin: httpx.AsyncClient, operator):
    _, token = await issue(operator, "ok")
    await admin.post(f"/v1/tokens/{token.id}/rotate", json={"grace": 0})
    answer = await send(
        admin, f"/admin/tokens/{token.id}/edit", scope="BAD", expires="never", metadata="{", addresses="x"
    )
    shown = re.findall(r'id="(\w+)-problem"', answer.text)
    assert shown == ["scopes", "addresses", "metadata"]

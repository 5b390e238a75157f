"""A request is authorized again when its body is complete, because its credential may be invalid by then."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tallystick.coherence import propagation
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import RateLimit, Restrictions, Token
from tallystick.contracts.sessions import SIGN_IN, SIGN_OUT, SignIn, SignOut
from tallystick.contracts.tokens import EDIT_TOKEN, REVOKE_TOKEN, EditToken, RevokeToken, TokenUpdate
from tallystick.contracts.verification import Verdict
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tests.support.api import bearer, create_token, flush
from tests.support.dashboard import browser, sign_in_at_last
from tests.support.services import issue

OPERATOR = Actor(name="test")
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


def slowly(body: bytes, meanwhile: Callable[[], Awaitable[object]]) -> AsyncIterator[bytes]:
    """Send all but the last byte, run ``meanwhile``, then send the last byte."""

    async def parts() -> AsyncIterator[bytes]:
        yield body[:-1]
        await asyncio.sleep(0)
        await meanwhile()
        yield body[-1:]

    return parts()


async def revoke(operator, token: Token) -> None:
    reply = await propagation.call_and_wait(
        operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR)
    )
    assert not isinstance(reply, Failure)


async def narrow(operator, token: Token) -> None:
    edit = EditToken(id=token.id, changes=TokenUpdate(scopes=("nothing",)), actor=OPERATOR)
    assert not isinstance(await propagation.call_and_wait(operator, EDIT_TOKEN.by_operator, edit), Failure)


def requests(target: dict[str, Any]) -> dict[str, tuple[str, str, bytes, dict[str, str]]]:
    path = f"/v1/tokens/{target['id']}"
    form = urlencode({"token": target["token"]}).encode()
    return {
        "create": ("POST", "/v1/tokens", json.dumps({"scopes": ["orders"]}).encode(), JSON),
        "edit": ("PATCH", path, json.dumps({"description": "late"}).encode(), JSON),
        "rotate": ("POST", f"{path}/rotate", json.dumps({"grace": 60}).encode(), JSON),
        "introspect": ("POST", "/oauth2/introspect", form, FORM),
        "revoke": ("POST", "/oauth2/revoke", form, FORM),
        "account": ("POST", "/v1/account", json.dumps({"account": f"late-{target['id']}"}).encode(), JSON),
    }


async def test_a_request_is_rejected_if_its_token_becomes_invalid_before_the_body_ends(
    admin, operator, subtests: pytest.Subtests
):
    """A6"""
    for end, status in ((revoke, 401), (narrow, 403)):
        for name in ("create", "edit", "rotate", "introspect", "revoke", "account"):
            with subtests.test(name=name, status=status):
                target = await create_token(admin, scopes=["orders"])
                method, path, body, headers = requests(target)[name]
                value, token = await issue(operator, "api", "introspect", "orders")
                response = await admin.request(
                    method,
                    path,
                    content=slowly(body, partial(end, operator, token)),
                    headers={**headers, **bearer(value)},
                )
                assert response.status_code == status, response.text
                record = (await admin.get(f"/v1/tokens/{target['id']}")).json()
                assert (record["revision"], record["rotatedTo"]) == (target["revision"], None)
                assert (await admin.get(f"/v1/account/late-{target['id']}")).status_code == 404
                assert (await admin.get(f"/v1/tokens?createdBy={token.id}")).json()["total"] == 0
                # The edge authorizes it again too, so it counts as rejected there.
                await flush(admin)
                log = (await admin.get(f"/v1/tokens/{token.id}/log")).json()
                expected = "revoked" if end is revoke else "insufficient_scope"
                assert expected in [refusal["reason"] for refusal in log["refusals"]] or name == "revoke"


async def test_a_request_that_is_rejected_by_its_headers_is_not_read(admin, operator):
    value, _ = await issue(operator, "metrics")
    is_read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal is_read
        yield b"{"
        is_read = True
        yield b"}"

    for headers, status in ((bearer(value), 403), (bearer("f" * 64), 401)):
        response = await admin.post("/v1/tokens", content=body(), headers={**JSON, **headers})
        assert (response.status_code, is_read) == (status, False)
    local_only = Restrictions(addresses=("127.0.0.1",))
    value, _ = await issue(operator, "*", restrictions=local_only)
    await sign_in_at_last(admin, value)
    async with browser(admin, "192.0.2.1") as elsewhere:
        headers = {**FORM, **cookie_header(admin)}
        response = await elsewhere.post("/admin/sign-out", content=body(), headers=headers)
        assert (response.status_code, is_read) == (403, False)


async def test_a_request_with_a_body_counts_once_against_the_rate_limit(admin, operator):
    limit = Restrictions(rate_limit=RateLimit(max_requests=3, time_window=86_400))
    value, _ = await issue(operator, "api", restrictions=limit)
    body = {"scopes": ["api"], "restrictions": {"rateLimit": {"maxRequests": 3, "timeWindow": 86_400}}}
    statuses = [
        (await admin.post("/v1/tokens", json=body, headers=bearer(value))).status_code for _ in range(4)
    ]
    assert statuses == [201, 201, 201, 429]


def cookie_header(admin: httpx.AsyncClient) -> dict[str, str]:
    """The Cookie header of the session, which httpx itself sends over HTTPS only."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in admin.cookies.items())}


async def sign_out(admin: httpx.AsyncClient, csrf: str) -> None:
    response = await admin.post("/admin/sign-out", data={"csrf": csrf}, headers=cookie_header(admin))
    assert response.status_code == 303


async def test_a_form_is_rejected_if_its_session_ends_before_the_body_ends(
    admin, operator, subtests: pytest.Subtests
):
    ends: tuple[Any, ...] = (revoke, narrow, sign_out)
    for end in ends:
        for page in ("edit", "disable", "revoke", "rotate", "new"):
            with subtests.test(page=page, end=end.__name__):
                target = await create_token(admin, scopes=["orders"])
                value, token = await issue(operator, "admin", "api", "orders")
                admin.cookies.clear()
                await sign_in_at_last(admin, value)
                path = f"/admin/tokens/{target['id']}"
                action = "/admin/tokens/new" if page == "new" else f"{path}/{page}"
                form = (await admin.get(path if page == "disable" else action)).text
                fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
                fields |= {"description": "late", "scope": "orders", "expires": "never", "grace": "0"}
                if page == "new":
                    fields["metadata"] = "["  # a problem that the edge would show without the tokens service

                meanwhile: Callable[[], Awaitable[None]] = partial(end, operator, token)
                if end is sign_out:
                    meanwhile = partial(sign_out, admin, fields["csrf"])
                response: httpx.Response = await admin.post(
                    action,
                    content=slowly(urlencode(fields).encode(), meanwhile),
                    headers={**FORM, **cookie_header(admin)},
                )
                assert response.status_code == 303
                assert response.headers["location"].startswith("/admin/sign-in")
                record = (await admin.get(f"/v1/tokens/{target['id']}")).json()
                assert (record["revision"], record["rotatedTo"], record["disabled"]) == (
                    target["revision"],
                    None,
                    False,
                )


async def test_a_session_that_ended_unnoticed_by_the_edge_changes_nothing(admin, operator, monkeypatch):
    """The tokens service checks the session in the transaction, independently of the edge."""
    target = await create_token(admin, scopes=["orders"])
    client = admin._transport.app._app.state.client
    session = "5" * 64
    value, _ = await issue(operator, "admin", "api")
    sign_in = SignIn(session=session, actor=Actor(token=token_format.digest(value)))
    assert isinstance(await call(client, SIGN_IN, sign_in), Verdict)
    edit = EditToken(id=target["id"], changes=TokenUpdate(disabled=True), actor=Actor(session=session))
    await call(client, SIGN_OUT, SignOut(session=session))
    reply = await call(client, EDIT_TOKEN, edit)
    assert isinstance(reply, Failure)
    assert reply.code == "invalid_token"

    # If the edge accepted a form just before its session ended, the response redirects to the sign-in page.
    value, token = await issue(operator, "admin", "api")
    await sign_in_at_last(admin, value)
    path, request = f"/admin/tokens/{target['id']}", client.request
    form = (await admin.get(path, headers=cookie_header(admin))).text
    fields = dict(re.findall(r'name="(csrf)" value="(\w+)"', form))

    async def revoke_then_request(subject: str, *arguments, **options):
        if subject == EDIT_TOKEN.subject:
            await revoke(operator, token)
        return await request(subject, *arguments, **options)

    monkeypatch.setattr(client, "request", revoke_then_request)
    response = await admin.post(f"{path}/disable", data=fields, headers=cookie_header(admin))
    assert response.status_code == 303
    assert response.headers["location"] == f"/admin/sign-in?ended=true&next={path}"

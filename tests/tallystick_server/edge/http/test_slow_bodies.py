"""A request whose body takes its time is judged when it is complete: by then its credential may have ended."""

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
    """All but the last byte, then what happens meanwhile, then the last byte."""

    async def parts() -> AsyncIterator[bytes]:
        yield body[:-1]
        await asyncio.sleep(0)
        await meanwhile()
        yield body[-1:]

    return parts()


async def revoke(operator, token: Token) -> None:
    done = await propagation.call_and_wait(
        operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR)
    )
    assert not isinstance(done, Failure)


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


async def test_it_is_not_carried_out_with_a_token_that_has_ended(admin, operator, subtests: pytest.Subtests):
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
                shown = (await admin.get(f"/v1/tokens/{target['id']}")).json()
                assert (shown["revision"], shown["rotatedTo"]) == (target["revision"], None)
                assert (await admin.get(f"/v1/account/late-{target['id']}")).status_code == 404
                assert (await admin.get(f"/v1/tokens?createdBy={token.id}")).json()["total"] == 0
                # The edge has judged it again, too: it counts as rejected there.
                await flush(admin)
                log = (await admin.get(f"/v1/tokens/{token.id}/log")).json()
                expected = "revoked" if end is revoke else "insufficient_scope"
                assert expected in [refusal["reason"] for refusal in log["refusals"]] or name == "revoke"


async def test_one_that_is_rejected_before_its_body_is_not_waited_for(admin, operator):
    value, _ = await issue(operator, "metrics")
    waited = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal waited
        yield b"{"
        waited = True
        yield b"}"

    for headers, status in ((bearer(value), 403), (bearer("f" * 64), 401)):
        response = await admin.post("/v1/tokens", content=body(), headers={**JSON, **headers})
        assert (response.status_code, waited) == (status, False)
    here = Restrictions(addresses=("127.0.0.1",))
    value, _ = await issue(operator, "*", restrictions=here)
    await sign_in_at_last(admin, value)
    async with browser(admin, "192.0.2.1") as elsewhere:
        headers = {**FORM, **cookie_header(admin)}
        response = await elsewhere.post("/admin/sign-out", content=body(), headers=headers)
        assert (response.status_code, waited) == (403, False)


async def test_a_request_with_a_body_spends_one_of_its_limit(admin, operator):
    limit = Restrictions(rate_limit=RateLimit(max_requests=3, time_window=86_400))
    value, _ = await issue(operator, "api", restrictions=limit)
    wanted = {"scopes": ["api"], "restrictions": {"rateLimit": {"maxRequests": 3, "timeWindow": 86_400}}}
    statuses = [
        (await admin.post("/v1/tokens", json=wanted, headers=bearer(value))).status_code for _ in range(4)
    ]
    assert statuses == [201, 201, 201, 429]


def cookie_header(admin: httpx.AsyncClient) -> dict[str, str]:
    """The session's cookies, which httpx sends over HTTPS only."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in admin.cookies.items())}


async def sign_out(admin: httpx.AsyncClient, csrf: str) -> None:
    response = await admin.post("/admin/sign-out", data={"csrf": csrf}, headers=cookie_header(admin))
    assert response.status_code == 303


async def test_no_form_is_carried_out_with_a_session_that_has_ended(
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
                    fields["metadata"] = "["  # of which the edge alone would show what is wrong

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
                shown = (await admin.get(f"/v1/tokens/{target['id']}")).json()
                assert (shown["revision"], shown["rotatedTo"], shown["disabled"]) == (
                    target["revision"],
                    None,
                    False,
                )


async def test_a_session_that_ended_unnoticed_by_the_edge_changes_nothing(admin, operator, monkeypatch):
    """The tokens service judges the session in the transaction, whatever the edge believes."""
    target = await create_token(admin, scopes=["orders"])
    client = admin._transport.app._app.state.client
    session = "5" * 64
    value, _ = await issue(operator, "admin", "api")
    began = SignIn(session=session, actor=Actor(token=token_format.digest(value)))
    assert isinstance(await call(client, SIGN_IN, began), Verdict)
    edit = EditToken(id=target["id"], changes=TokenUpdate(disabled=True), actor=Actor(session=session))
    await call(client, SIGN_OUT, SignOut(session=session))
    reply = await call(client, EDIT_TOKEN, edit)
    assert isinstance(reply, Failure)
    assert reply.code == "invalid_token"

    # A form that was judged just before is led to where one signs in.
    value, token = await issue(operator, "admin", "api")
    await sign_in_at_last(admin, value)
    path, request = f"/admin/tokens/{target['id']}", client.request
    form = (await admin.get(path, headers=cookie_header(admin))).text
    fields = dict(re.findall(r'name="(csrf)" value="(\w+)"', form))

    async def too_late(subject: str, *arguments, **options):
        if subject == EDIT_TOKEN.subject:
            await revoke(operator, token)
        return await request(subject, *arguments, **options)

    monkeypatch.setattr(client, "request", too_late)
    response = await admin.post(f"{path}/disable", data=fields, headers=cookie_header(admin))
    assert response.status_code == 303
    assert response.headers["location"] == f"/admin/sign-in?ended=true&next={path}"

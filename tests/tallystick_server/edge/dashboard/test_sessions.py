"""The dashboard needs a session, and no session outlives its token."""

import asyncio
import html
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from litestar.routes import HTTPRoute
from nats.aio.client import Client

from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats, TokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import RateLimit, Restrictions, Token
from tallystick.contracts.sessions import MAKE_SIGN_IN_LINK
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    REVOKE_TOKEN,
    EditedToken,
    EditToken,
    RestrictionsUpdate,
    RevokeToken,
    TokenUpdate,
)
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick_server.edge.app import create_app
from tallystick_server.edge.authorization.requirements import PUBLIC
from tallystick_server.edge.dashboard import login_link, sessions
from tallystick_server.edge.dashboard.assets import MEDIA_TYPES
from tallystick_server.edge.dashboard.sessions import Attempts, CookieNames, TooManyAttempts
from tallystick_server.edge.settings import Settings
from tallystick_server.tokens.store.queries import Store
from tests.support.dashboard import another_edge, browser, send, sign_in
from tests.support.servers import Database
from tests.support.services import issue

OPERATOR = Actor(name="test")
LITESTAR = create_app(Settings(nats_url="nats://127.0.0.1:1"))._app  # type: ignore[attr-defined]
GUARDED = sorted(
    (method, route.path_format)
    for route in LITESTAR.routes
    if isinstance(route, HTTPRoute) and route.path.startswith("/admin")
    for handler in route.route_handlers
    for method in handler.http_methods
    if handler.opt["requires"] != PUBLIC
)
OPEN = {
    (method, route.path_format)
    for route in LITESTAR.routes
    if isinstance(route, HTTPRoute) and route.path.startswith("/admin")
    for handler in route.route_handlers
    for method in handler.http_methods
    if handler.opt["requires"] == PUBLIC and method != "OPTIONS"
}


async def cookie_name(operator: Client) -> str:
    stats = await call(operator, TOKENS_STATS, AskTokensStats())
    assert isinstance(stats, TokensStats)
    assert re.fullmatch(r"[0-9a-f]{8}", stats.installation)
    return f"tallystick-{stats.installation}"


def cookie(client: httpx.AsyncClient) -> dict[str, str]:
    """The Cookie header of the client's current session."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


async def test_without_a_session_every_page_redirects_to_the_sign_in_page(
    edge, operator, services, subtests: pytest.Subtests
):
    name = await cookie_name(operator)
    for method, route in GUARDED:
        with subtests.test(method=method, route=route):
            path = route.format(token_id="tok_x", account="alice", path="x")
            value, _ = await issue(operator, "*")
            for headers in ({}, {"authorization": f"Bearer {value}"}, {"cookie": f"{name}=guessed"}):
                response = await edge.request(method, path, headers=headers, params={"access_token": value})
                assert response.status_code == 303
                assert response.headers["location"].startswith("/admin/sign-in")
                assert response.headers["cache-control"] == "no-store"
                assert response.content == b""


def test_only_assets_and_the_sign_in_page_are_public():
    assert len(GUARDED) > 15
    assets = {("GET", f"/admin/assets/{name}") for name in MEDIA_TYPES}
    assert {("GET", "/admin/sign-in"), ("POST", "/admin/sign-in"), *assets} == OPEN


async def test_the_cookie_is_http_only_and_same_site(edge, operator, services):
    value, _ = await issue(operator, "admin")
    response = await sign_in(edge, value)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{await cookie_name(operator)}=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=43200"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


SECURE: dict[str, list[tuple[str, bool]]] = {
    "127.0.0.0/8": [("https", True), ("http", False)],
    "": [("https", False)],
}
"""For each setting of trusted proxies: the forwarded protocol, and whether the cookie is secure."""


@pytest.mark.usefixtures("services")
async def test_the_cookie_is_secure_behind_a_trusted_proxy_with_https(
    nats_server, operator, subtests: pytest.Subtests
):
    for proxies, cases in SECURE.items():
        async with another_edge(nats_server, trusted_proxies=proxies) as edge:
            for protocol, is_secure in cases:
                with subtests.test(proxies=proxies, protocol=protocol):
                    value, _ = await issue(operator, "*")
                    response = await sign_in(edge, value, **{"x-forwarded-proto": protocol})
                    cookie = response.headers["set-cookie"]
                    assert cookie.startswith("__Host-tallystick-") is is_secure
                    assert ("Secure" in cookie.split("; ")) is is_secure
                    headers = {"x-forwarded-proto": protocol, "cookie": cookie.partition(";")[0]}
                    page = (await edge.get("/admin/tokens/new", headers=headers)).text
                    fields = dict(re.findall(r'name="(csrf|key)" value="([^"]+)"', page))
                    fields |= {"scope": "admin", "expires": "never"}
                    created = await edge.post("/admin/tokens/new", data=fields, headers=headers)
                    assert f"{'https' if is_secure else 'http'}://edge/v1/self" in created.text


async def test_a_session_ends_at_once_with_its_token_at_every_edge(nats_server, operator, services, edge):
    async def revoke(token: Token) -> object:
        return await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR))

    async def disable(token: Token) -> object:
        changes = TokenUpdate(disabled=True)
        return await call(
            operator, EDIT_TOKEN.by_operator, EditToken(id=token.id, changes=changes, actor=OPERATOR)
        )

    async def narrow(token: Token) -> object:
        changes = TokenUpdate(scopes=("api",))
        return await call(
            operator, EDIT_TOKEN.by_operator, EditToken(id=token.id, changes=changes, actor=OPERATOR)
        )

    async with another_edge(nats_server) as second:
        for end_session, status in ((revoke, 303), (disable, 303), (narrow, 303)):
            value, token = await issue(operator, "admin")
            await sign_in(edge, value)
            second.cookies = edge.cookies
            assert [(await client.get("/admin/tokens")).status_code for client in (edge, second)] == [
                200,
                200,
            ]
            assert not isinstance(await end_session(token), Failure)
            assert [(await client.get("/admin/tokens")).status_code for client in (edge, second)] == [
                status
            ] * 2


async def test_a_signed_out_session_is_rejected(admin: httpx.AsyncClient):
    session_cookie = cookie(admin)
    response = await send(admin, "/admin/sign-out", "/admin/tokens")
    assert (response.status_code, response.headers["location"]) == (303, "/admin/sign-in")
    assert "Max-Age=0" in response.headers["set-cookie"]
    admin.cookies.clear()
    assert (await admin.get("/admin", headers=session_cookie)).status_code == 303


async def test_only_the_digest_of_a_session_is_stored(admin: httpx.AsyncClient, database):
    (secret,) = admin.cookies.values()
    assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {secret}"})).status_code == 401
    connection = await asyncpg.connect(database.owner)
    rows = await connection.fetch("select * from tokens.session")
    await connection.close()
    assert len(rows) == 1
    assert secret not in repr(rows)
    assert secret.encode().hex() not in repr([row["digest"].hex() for row in rows])
    # Reading the table is not enough to send the session's forms.
    (sent,) = set(re.findall(r'name="csrf" value="(\w+)"', (await admin.get("/admin/tokens/new")).text))
    assert sent not in [row["digest"].hex() for row in rows]


async def test_the_oldest_session_ends_beyond_the_limit(edge, operator, services):
    value, _ = await issue(operator, "admin")
    await sign_in(edge, value)
    first = cookie(edge)
    for _ in range(20):
        edge.cookies.clear()
        await sign_in(edge, value)
    assert (await edge.get("/admin/tokens")).status_code == 200
    edge.cookies.clear()
    assert (await edge.get("/admin/tokens", headers=first)).status_code == 303


async def test_a_change_needs_the_csrf_token_of_the_session(admin: httpx.AsyncClient, operator):
    value, token = await issue(operator, "api")
    path = f"/admin/tokens/{token.id}/revoke"
    form = dict(re.findall(r'name="(csrf)" value="(\w+)"', (await admin.get(path)).text))
    session_cookie = cookie(admin)
    other, _ = await issue(operator, "*")
    admin.cookies.clear()
    await sign_in(admin, other)
    other_form = dict(re.findall(r'name="(csrf)" value="(\w+)"', (await admin.get(path)).text))
    admin.cookies.clear()
    for fields, headers in (
        ({}, {}),
        ({"csrf": ""}, {}),
        (other_form, {}),
        (form, {"sec-fetch-site": "cross-site"}),
        (form, {"sec-fetch-site": "same-site"}),
        (form, {"origin": "https://evil.example"}),
        (form, {"origin": "null"}),
    ):
        rejected = await admin.post(path, data=fields, headers={**headers, **session_cookie})
        assert rejected.status_code in {403, 415}, (fields, headers)  # a body without a field is not a form
    rejected = await admin.post(path, json=form, headers=session_cookie)
    assert rejected.status_code == 415
    assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 200
    response = await admin.post(path, data=form, headers={"origin": "http://edge", **session_cookie})
    assert response.status_code == 200
    assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 401


async def test_another_site_cannot_sign_in_its_visitor(edge, operator, services):
    value, _ = await issue(operator, "admin")
    assert (await sign_in(edge, value, origin="https://evil.example")).status_code == 403
    assert (await sign_in(edge, value, **{"sec-fetch-site": "cross-site"})).status_code == 403
    assert not edge.cookies
    # As a bookmark or a reload does.
    assert (await sign_in(edge, value, **{"sec-fetch-site": "none"})).status_code == 303


async def test_a_rejected_sign_in_gives_its_reason_for_valid_tokens_only(edge, operator, services):
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=OPERATOR))
    revoked, token = await issue(operator, "admin")
    await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR))
    elsewhere = Restrictions(addresses=("192.0.2.1",))
    for value, status in (
        ((await issue(operator, "api"))[0], 403),
        ((await issue(operator, "*", account="alice"))[0], 403),
        ((await issue(operator, "*", restrictions=elsewhere))[0], 403),
        (revoked, 401),
        (token_format.mint(), 401),
        ("", 401),
        ("tly_mistyped", 401),
        ("ü" * 40, 401),
    ):
        response = await sign_in(edge, value)
        assert response.status_code == status, value
        assert 'role="alert"' in response.text
        assert 'name="token" type="password"' in response.text
        assert "set-cookie" not in response.headers
        assert not value or value not in response.text
    unknown_page, revoked_page = [
        (await sign_in(edge, value)).text for value in (token_format.mint(), revoked)
    ]
    assert re.sub(r"req_\w+", "", unknown_page) == re.sub(r"req_\w+", "", revoked_page)


async def test_failed_sign_ins_are_rate_limited(edge, operator, services):
    value, _ = await issue(operator, "admin")
    for _ in range(Attempts.MAX_ATTEMPTS):
        assert (await sign_in(edge, token_format.mint())).status_code == 401
    for guess in (token_format.mint(), value):
        response = await sign_in(edge, guess)
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")


async def test_concurrent_sign_ins_are_counted_before_they_are_checked(edge, operator, services):
    """A16"""
    responses = await asyncio.gather(*(sign_in(edge, token_format.mint()) for _ in range(40)))
    statuses = Counter(response.status_code for response in responses)
    assert statuses.pop(429) == 30
    assert statuses.keys() <= {401, 503}  # 503 if the tokens service is slow


async def test_successful_sign_ins_are_not_rate_limited(edge, operator, services):
    value, _ = await issue(operator, "admin")
    for _ in range(Attempts.MAX_ATTEMPTS + 5):
        assert (await sign_in(edge, f" {value}\t")).status_code == 303  # pasted whitespace


async def test_a_login_link_works_from_a_blocked_address(edge, operator, services):
    for _ in range(Attempts.MAX_ATTEMPTS + 1):
        await sign_in(edge, token_format.mint())
    _, token = await issue(operator, "admin")
    link = login_link.new(token.id, OPERATOR, seconds=60)
    await call(operator, MAKE_SIGN_IN_LINK, link.request)
    assert (await edge.post("/admin/sign-in", data={"link": link.secret})).status_code == 303
    # It does not reset the limit.
    assert (await sign_in(edge, token_format.mint())).status_code == 429


async def test_a_rejected_sign_in_writes_nothing_and_does_not_consume_the_link(
    edge, operator, services, database
):
    """A17"""
    elsewhere = Restrictions(addresses=("192.0.2.1",))
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    for scopes, restrictions in ((("api",), Restrictions()), (("admin",), elsewhere)):
        value, token = await issue(operator, *scopes, restrictions=restrictions)
        link = login_link.new(token.id, OPERATOR, seconds=60)
        await call(operator, MAKE_SIGN_IN_LINK, link.request)
        assert (await sign_in(edge, value)).status_code == 403
        assert (await edge.post("/admin/sign-in", data={"link": link.secret})).status_code == 403
        assert await connection.fetchval("select count(*) from session") == 0
        assert await connection.fetchval("select count(*) from sign_in_link where token = $1", token.id) == 1
        actions = await connection.fetch("select action from audit where token = $1", token.id)
        assert "session.started" not in [row["action"] for row in actions]
    await connection.close()


END_AND_UNDO: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "disabled": ({"disabled": True}, {"disabled": False}),
    "scopes": ({"scopes": ("api",)}, {"scopes": ("admin", "api")}),
    "addresses": (
        {"restrictions": RestrictionsUpdate(addresses=("192.0.2.1",))},
        {"restrictions": RestrictionsUpdate(addresses=None)},
    ),
    "not before": ({"not_before": datetime.now(UTC) + timedelta(days=1)}, {"not_before": None}),
    "expired": (None, {"expires": None}),
}
"""A change that ends a session, and the change that undoes it. If the first is None, the token expires by itself."""


@pytest.mark.usefixtures("services")
async def test_an_ended_session_stays_ended_after_its_token_is_valid_again(
    edge, operator, database, subtests: pytest.Subtests
):
    """A15"""
    for number, (case, (end, undo)) in enumerate(END_AND_UNDO.items(), 1):
        with subtests.test(case):
            async with browser(edge, f"198.51.100.{number}") as client:
                await _end_session_and_undo(client, operator, database, end, undo)


async def _end_session_and_undo(
    edge: httpx.AsyncClient, operator: Client, database: Database, end: Any, undo: dict[str, Any]
) -> None:
    value, token = await issue(operator, "admin", "api", expires=datetime.now(UTC) + timedelta(days=1))
    await sign_in(edge, value)
    link = login_link.new(token.id, OPERATOR, seconds=60)
    await call(operator, MAKE_SIGN_IN_LINK, link.request)
    assert (await edge.get("/admin/tokens")).status_code == 200
    if end is None:
        connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
        await connection.execute("update token set expires = now() where id = $1", token.id)
        await connection.close()
    for changes in filter(None, (end, undo)):
        edit = EditToken(id=token.id, changes=TokenUpdate(**changes), actor=OPERATOR)
        assert isinstance(await call(operator, EDIT_TOKEN.by_operator, edit), EditedToken)
    assert (await edge.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 200
    assert (await edge.get("/admin/tokens")).status_code == 303
    edge.cookies.clear()
    assert (await edge.post("/admin/sign-in", data={"link": link.secret})).status_code == 401


async def test_an_edit_that_removes_no_permission_ends_no_session(edge, operator, services):
    value, token = await issue(operator, "admin", description="before")
    await sign_in(edge, value)
    for changes in ({"description": "after"}, {"scopes": ("admin", "api")}, {"metadata": {"a": 1}}):
        edit = EditToken(id=token.id, changes=TokenUpdate(**changes), actor=OPERATOR)
        await call(operator, EDIT_TOKEN.by_operator, edit)
        assert (await edge.get("/admin/tokens")).status_code == 200


async def test_the_admin_scope_alone_permits_reading_and_no_change(edge, operator, services):
    """A14"""
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=OPERATOR))
    admin, _ = await issue(operator, "admin")
    value, token = await issue(operator, "admin", account="alice")
    await sign_in(edge, admin)
    for path in ("/admin/tokens", f"/admin/tokens/{token.id}", "/admin/accounts"):
        assert (await edge.get(path)).status_code == 200, path
    page = f"/admin/tokens/{token.id}"
    for path, form, fields in (
        (f"{page}/revoke", f"{page}/revoke", {}),
        (f"{page}/end-grace", f"{page}/revoke", {}),
        (f"{page}/disable", page, {}),
        (f"{page}/enable", page, {}),
        (f"{page}/rotate", f"{page}/rotate", {"grace": "0"}),
        ("/admin/accounts/alice/delete", "/admin/accounts/alice/delete", {}),
        ("/admin/accounts", "/admin/accounts", {"account": "bob"}),
        ("/admin/tokens/new", "/admin/tokens/new", {"scope": "admin", "expires": "never"}),
        (f"{page}/edit", f"{page}/edit", {"scope": "admin", "expires": "never", "description": "mine"}),
    ):
        response = await send(edge, path, form, **fields)
        assert response.status_code == 403, path
    bearer = {"authorization": f"Bearer {value}"}
    assert (await edge.get("/auth?scope=admin&account=alice", headers=bearer)).status_code == 200


def test_attempts_are_limited_by_ipv4_address_and_by_ipv6_network(monkeypatch: pytest.MonkeyPatch):
    clock = 1000.0
    monkeypatch.setattr(sessions, "boot_time", lambda: clock)
    attempts = Attempts()
    for number in range(Attempts.MAX_ATTEMPTS):
        attempts.start(f"2001:db8::{number}")
        attempts.start("192.0.2.1")
    for blocked in ("2001:db8::ffff", "192.0.2.1", "::ffff:192.0.2.1"):
        with pytest.raises(TooManyAttempts):
            attempts.start(blocked)
    for allowed in ("2001:db8:0:1::1", "192.0.2.2", None):
        attempts.start(allowed)
    clock += Attempts.WINDOW_S - 1
    with pytest.raises(TooManyAttempts):
        attempts.start("192.0.2.1")
    clock += 1
    attempts.start("192.0.2.1")
    for number in range(Attempts.ADDRESSES):
        attempts.start(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._counts) == Attempts.ADDRESSES  # memory is bounded
    for _ in range(Attempts.MAX_ATTEMPTS):
        attempts.start("192.0.2.1")  # the least recent address was evicted


def test_a_refund_allows_one_more_attempt_and_never_more_than_the_limit():
    attempts = Attempts()
    attempts.start(None)
    for _ in range(3):
        attempts.refund(None)
    for _ in range(Attempts.MAX_ATTEMPTS):
        attempts.start(None)
    for _ in range(5):
        with pytest.raises(TooManyAttempts):
            attempts.start(None)
    attempts.refund(None)
    attempts.start(None)
    with pytest.raises(TooManyAttempts):
        attempts.start(None)


async def test_a_login_link_signs_in_once(edge, operator, services):
    _, token = await issue(operator, "admin")
    link = login_link.new(token.id, OPERATOR, seconds=60)
    assert not isinstance(await call(operator, MAKE_SIGN_IN_LINK, link.request), Failure)
    path = login_link.path(link.secret)
    assert "can be used once" in (await edge.get(path)).text
    assert (await edge.get(path)).status_code == 200
    assert not edge.cookies  # a GET request does not sign in
    assert (await send(edge, "/admin/sign-in", path)).status_code == 303
    assert (await edge.get("/admin/tokens")).status_code == 200
    edge.cookies.clear()
    repeated = await send(edge, "/admin/sign-in", path)
    assert (repeated.status_code, "was already used" in repeated.text) == (401, True)
    assert not edge.cookies


async def test_a_login_link_is_invalid_after_its_expiry_or_its_token_s_revocation(
    edge, operator, services, database
):
    for cause in ("token", "time"):
        _, token = await issue(operator, "admin")
        link = login_link.new(token.id, OPERATOR, seconds=60)
        await call(operator, MAKE_SIGN_IN_LINK, link.request)
        if cause == "token":
            await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR))
        else:
            connection = await asyncpg.connect(database.owner)
            await connection.execute("update tokens.sign_in_link set expires = now()")
            await connection.close()
        response = await edge.post("/admin/sign-in", data={"link": link.secret})
        assert (response.status_code, dict(edge.cookies)) == (401, {})
    link = login_link.new("tok_nobody", OPERATOR, seconds=60)
    failure = await call(operator, MAKE_SIGN_IN_LINK, link.request)
    assert isinstance(failure, Failure)
    assert failure.code == "not_found"


async def test_a_session_expires_by_itself_or_with_its_token(
    edge, operator, services, database, subtests: pytest.Subtests
):
    for update in (
        "token set expires = now() where id = $1",
        "session set expires = now() where token = $1",
    ):
        with subtests.test(update):
            async with browser(edge) as client:
                value, token = await issue(operator, "admin", expires=datetime.now(UTC) + timedelta(hours=1))
                await sign_in(client, value)
                assert (await client.get("/admin/tokens")).status_code == 200
                connection = await asyncpg.connect(database.owner)
                assert await connection.execute(f"update tokens.{update}", token.id) == "UPDATE 1"
                await connection.close()
                assert (await client.get("/admin/tokens")).status_code == 303


FOREIGN_PAGES = (
    "https://evil.example",
    "//evil.example",
    "/admin//evil.example",
    "/admin\\evil",
    "/v1/stats",
    "",
    "https:/admin",
    "//[admin",
    "/admin/\\evil.example",
    "/admin/../v1/stats",
    "/admin/x/%2E%2e/.%2e/v1/stats",
    "/%61dmin",
)


async def test_signing_in_redirects_to_no_page_outside_the_dashboard(
    edge, operator, services, subtests: pytest.Subtests
):
    for page in FOREIGN_PAGES:
        with subtests.test(page=page):
            value, _ = await issue(operator, "admin")
            async with browser(edge) as client:
                response = await client.post("/admin/sign-in", data={"token": value, "next": page})
                assert response.headers["location"] == "/admin"
                client.cookies.clear()
                response = await client.post(
                    "/admin/sign-in", data={"token": value, "next": "/admin/accounts"}
                )
                assert response.headers["location"] == "/admin/accounts"


async def test_an_htmx_request_without_a_session_redirects_the_whole_page(edge, services):
    headers = {"hx-request": "true", "hx-current-url": "http://edge/admin/tokens?query=a%26b"}
    response = await edge.get("/admin/tokens?query=a", headers=headers)
    assert response.status_code == 204
    assert response.headers["hx-redirect"] == "/admin/sign-in?ended=true&next=/admin/tokens%3Fquery%3Da%2526b"
    assert response.headers["cache-control"] == "no-store"
    for current_url in ({}, {"hx-current-url": "http://edge//evil.example"}, {"hx-current-url": "http://[x"}):
        response = await edge.get("/admin/tokens", headers={"hx-request": "true", **current_url})
        assert (response.status_code, response.headers["hx-redirect"]) == (204, "/admin/sign-in?ended=true")


async def test_a_token_s_rate_limit_applies_to_the_dashboard(edge, operator, services):
    limited = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=3600))
    value, token = await issue(operator, "admin", restrictions=limited)
    assert (await sign_in(edge, value)).status_code == 303
    responses = [await edge.get("/admin/accounts") for _ in range(2)]
    assert [response.status_code for response in responses] == [200, 429]
    assert responses[1].headers["content-type"].startswith("text/html")
    assert int(responses[1].headers["retry-after"]) > 0
    # A rate-limited token is valid, so its sign-ins are not counted as failed attempts.
    for _ in range(Attempts.MAX_ATTEMPTS + 1):
        repeated = await sign_in(edge, value)
        assert (repeated.status_code, "Rate limit exceeded" in repeated.text) == (429, True)
    for _ in range(Attempts.MAX_ATTEMPTS):
        assert (await sign_in(edge, token_format.mint())).status_code == 401
    # A login link is not an attempt, so it refunds none.
    link = login_link.new(token.id, OPERATOR, seconds=60)
    await call(operator, MAKE_SIGN_IN_LINK, link.request)
    limited_again = await edge.post("/admin/sign-in", data={"link": link.secret})
    assert (limited_again.status_code, "Rate limit exceeded" in limited_again.text) == (429, True)
    assert "Too many sign-in attempts" in (await sign_in(edge, token_format.mint())).text


async def test_the_dashboard_can_be_switched_off(nats_server, services):
    async with another_edge(nats_server, dashboard=False) as edge:
        for path in ("/admin", "/admin/sign-in", "/admin/assets/style.css"):
            assert (await edge.get(path)).status_code == 401


async def test_the_cookie_name_is_the_same_at_every_edge_and_replica_of_an_installation(
    edge, nats_server, database, operator, services
):
    value, _ = await issue(operator, "admin")
    names = {(await sign_in(edge, value)).headers["set-cookie"].partition("=")[0]}
    async with another_edge(nats_server) as second:
        names.add((await sign_in(second, value)).headers["set-cookie"].partition("=")[0])
    async with asyncpg.create_pool(database.owner, min_size=1) as pool:
        names.add(f"tallystick-{await Store(pool).installation()}")
    assert names == {await cookie_name(operator)}
    # After a restore the name is different, and the edge learns it.
    cookie_names = CookieNames()
    for _ in range(2):
        cookie_names._name, cookie_names._ends = (
            "tallystick-before",
            cookie_names._ends - CookieNames.FRESH_S,
        )
        assert {await cookie_names.get(operator)} == names


async def test_each_database_is_a_separate_installation(database, postgres_server):
    installations = []
    for url in (database.owner, postgres_server, postgres_server):
        async with asyncpg.create_pool(url, min_size=1) as pool:
            installations.append(await Store(pool).installation())
    assert installations[0] != installations[1] == installations[2]


async def test_two_installations_on_one_host_have_separate_sessions(admin: httpx.AsyncClient):
    """All ports of a host share their cookies, so the cookies of another installation are sent too."""
    ((name, secret),) = admin.cookies.items()
    other_name = "tallystick-00000000"
    for foreign in (f"{other_name}=x", "tallystick=x", f"x{name}=x", f"__Host-{name}=x"):
        response = await admin.get(
            "/admin/tokens", headers={"cookie": f"{foreign}; {name}={secret}; {foreign}"}
        )
        assert response.status_code == 200, foreign
        admin.cookies.clear()
        assert (await admin.get("/admin/tokens", headers={"cookie": foreign})).status_code == 303
    response = await admin.get("/admin/sign-in", headers={"cookie": f"{other_name}=x"})
    assert "set-cookie" not in response.headers


PROXY = {"host": "127.0.0.1:3000", "origin": "http://tally.example:8080"}


FORWARDED: dict[str, list[tuple[dict[str, str], int]]] = {
    "127.0.0.0/8": [
        ({"x-forwarded-host": "tally.example:8080"}, 303),
        ({"x-forwarded-host": "evil.example, tally.example:8080"}, 303),
        ({"x-forwarded-host": "Tally.Example", "x-forwarded-port": "8080"}, 303),
        ({"origin": "http://tally.example", "x-forwarded-host": "tally.example:80"}, 303),
        ({"origin": "https://tally.example", "x-forwarded-host": "tally.example"}, 303),
        ({"origin": "https://tally.example", "x-forwarded-host": "tally.example:443"}, 303),
        ({"x-forwarded-host": "tally.example:8080, evil.example"}, 403),
        ({"x-forwarded-host": "tally.example"}, 403),
        ({"x-forwarded-host": ""}, 403),
        ({}, 403),
        ({"origin": "null", "x-forwarded-host": "null"}, 403),
        ({"origin": "ftp://tally.example:8080", "x-forwarded-host": "tally.example:8080"}, 403),
        ({"origin": "http://", "x-forwarded-host": ""}, 403),
        ({"sec-fetch-site": "cross-site", "x-forwarded-host": "tally.example:8080"}, 403),
    ],
    "": [
        ({"host": "tally.example:8080"}, 303),
        ({"x-forwarded-host": "tally.example:8080"}, 403),
    ],
    "10.0.0.0/8": [
        ({"x-forwarded-host": "tally.example:8080"}, 403),
    ],
}


@pytest.mark.usefixtures("services")
async def test_a_form_s_origin_must_match_the_host_that_a_trusted_proxy_forwards(nats_server, operator):
    value, _ = await issue(operator, "admin")
    for proxies, cases in FORWARDED.items():
        async with another_edge(nats_server, trusted_proxies=proxies) as edge:
            for headers, status in cases:
                response = await sign_in(edge, value, **{**PROXY, **headers})
                assert response.status_code == status, (proxies, headers, response.text)
                if status == 403 and "sec-fetch-site" not in headers:
                    assert "TALLYSTICK_TRUSTED_PROXIES" in response.text
                    assert "proxy_set_header Host $http_host" in response.text
                    assert "127.0.0.1:3000" in response.text


async def test_the_page_that_rejects_a_form_escapes_the_origin(edge, services):
    response = await sign_in(edge, "x", origin="http://<script>alert(1)</script>")
    assert response.status_code == 403
    assert "<script>alert" not in response.text


NEXT_PAGES = [
    ("/admin/tokens?state=expiring&query=prod", True),
    ("/admin/tokens?query=https%3A%2F%2Fx", True),
    ("/admin/refusals?request_id=req_1", True),
    ("//evil.example/admin", False),
    ("https://evil.example/admin", False),
    ("/admin\\evil", False),
    ("/adminx", False),
    ("/admin//evil.example", False),
    ("javascript:alert(1)", False),
    ("/admin/tokens?query=\r\nx", False),
]
"""The requested page after signing in, and whether the dashboard redirects to it."""


async def test_signing_in_redirects_to_the_requested_page_with_its_query(
    edge, operator, services, subtests: pytest.Subtests
):
    for page, is_accepted in NEXT_PAGES:
        with subtests.test(page=page):
            async with browser(edge) as client:
                form = (await client.get("/admin/sign-in", params={"next": page})).text
                (next_page,) = re.findall(r'name="next" value="([^"]*)"', form)
                assert html.unescape(next_page) == (page if is_accepted else "/admin")
                value, _ = await issue(operator, "*")
                signed_in = await client.post("/admin/sign-in", data={"token": value, "next": page})
                assert signed_in.headers["location"] == (page if is_accepted else "/admin")
                if is_accepted:
                    client.cookies.clear()
                    redirect = await client.get(page)
                    assert httpx.URL(redirect.headers["location"]).params["next"] == str(httpx.URL(page))


FORMS = [("edit", "/edit"), ("rotate", "/rotate"), ("revoke", "/revoke"), ("disable", ""), ("end-grace", "")]
"""The forms of a token, and the path of the page that has each form."""


async def test_a_form_sent_after_the_session_ended_redirects_to_sign_in_and_back(
    edge, services, subtests: pytest.Subtests
):
    for form, page in FORMS:
        with subtests.test(form=form):
            response = await edge.post(f"/admin/tokens/tok_1/{form}", data={"description": "x"})
            assert response.status_code == 303
            assert response.headers["location"] == f"/admin/sign-in?ended=true&next=/admin/tokens/tok_1{page}"
            assert "Your session has ended" in (await edge.get(response.headers["location"])).text

"""Nobody sees or changes anything without a session, and no session outlives its token."""

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
    """The header of the session it has now."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


async def test_without_a_session_every_page_leads_to_signing_in(
    edge, operator, services, subtests: pytest.Subtests
):
    name = await cookie_name(operator)
    for method, route in GUARDED:
        with subtests.test(method=method, route=route):
            path = route.format(token_id="tok_x", account="alice", path="x")
            value, _ = await issue(operator, "*")
            for headers in ({}, {"authorization": f"Bearer {value}"}, {"cookie": f"{name}=guessed"}):
                answer = await edge.request(method, path, headers=headers, params={"access_token": value})
                assert answer.status_code == 303
                assert answer.headers["location"].startswith("/admin/sign-in")
                assert answer.headers["cache-control"] == "no-store"
                assert answer.content == b""


def test_there_are_pages_to_guard():
    assert len(GUARDED) > 15
    assets = {("GET", f"/admin/assets/{name}") for name in MEDIA_TYPES}
    assert {("GET", "/admin/sign-in"), ("POST", "/admin/sign-in"), *assets} == OPEN


async def test_the_cookie_is_for_this_host_and_no_script(edge, operator, services):
    value, _ = await issue(operator, "admin")
    answer = await sign_in(edge, value)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{await cookie_name(operator)}=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=43200"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


SECURE: dict[str, list[tuple[str, bool]]] = {
    "127.0.0.0/8": [("https", True), ("http", False)],
    "": [("https", False)],
}
"""For each setting of trusted proxies: the forwarded protocol, and whether the cookie is secure."""


@pytest.mark.usefixtures("services")
async def test_behind_a_trusted_proxy_that_speaks_https_it_is_secure(
    nats_server, operator, subtests: pytest.Subtests
):
    for proxies, cases in SECURE.items():
        async with another_edge(nats_server, trusted_proxies=proxies) as edge:
            for said, secure in cases:
                with subtests.test(proxies=proxies, said=said):
                    value, _ = await issue(operator, "*")
                    given = (await sign_in(edge, value, **{"x-forwarded-proto": said})).headers["set-cookie"]
                    assert given.startswith("__Host-tallystick-") is secure
                    assert ("Secure" in given.split("; ")) is secure
                    shown = {"x-forwarded-proto": said, "cookie": given.partition(";")[0]}
                    page = (await edge.get("/admin/tokens/new", headers=shown)).text
                    fields = dict(re.findall(r'name="(csrf|key)" value="([^"]+)"', page))
                    fields |= {"scope": "admin", "expires": "never"}
                    made = await edge.post("/admin/tokens/new", data=fields, headers=shown)
                    assert f"{'https' if secure else 'http'}://edge/v1/self" in made.text


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
        for end, status in ((revoke, 303), (disable, 303), (narrow, 303)):
            value, token = await issue(operator, "admin")
            await sign_in(edge, value)
            second.cookies = edge.cookies
            assert [(await each.get("/admin/tokens")).status_code for each in (edge, second)] == [200, 200]
            assert not isinstance(await end(token), Failure)
            assert [(await each.get("/admin/tokens")).status_code for each in (edge, second)] == [status] * 2


async def test_whoever_signed_out_is_out(admin: httpx.AsyncClient):
    mine = cookie(admin)
    answer = await send(admin, "/admin/sign-out", "/admin/tokens")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/sign-in")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    admin.cookies.clear()
    assert (await admin.get("/admin", headers=mine)).status_code == 303


async def test_only_the_digest_of_a_session_is_kept(admin: httpx.AsyncClient, database):
    (secret,) = admin.cookies.values()
    assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {secret}"})).status_code == 401
    connection = await asyncpg.connect(database.owner)
    rows = await connection.fetch("select * from tokens.session")
    await connection.close()
    assert len(rows) == 1
    assert secret not in repr(rows)
    assert secret.encode().hex() not in repr([row["digest"].hex() for row in rows])
    # Whoever reads the table cannot send the session's forms.
    (sent,) = set(re.findall(r'name="csrf" value="(\w+)"', (await admin.get("/admin/tokens/new")).text))
    assert sent not in [row["digest"].hex() for row in rows]


async def test_of_too_many_sessions_the_oldest_end(edge, operator, services):
    value, _ = await issue(operator, "admin")
    await sign_in(edge, value)
    first = cookie(edge)
    for _ in range(20):
        edge.cookies.clear()
        await sign_in(edge, value)
    assert (await edge.get("/admin/tokens")).status_code == 200
    edge.cookies.clear()
    assert (await edge.get("/admin/tokens", headers=first)).status_code == 303


async def test_a_change_needs_a_form_of_this_session(admin: httpx.AsyncClient, operator):
    value, token = await issue(operator, "api")
    path = f"/admin/tokens/{token.id}/revoke"
    form = dict(re.findall(r'name="(csrf)" value="(\w+)"', (await admin.get(path)).text))
    mine = cookie(admin)
    other, _ = await issue(operator, "*")
    admin.cookies.clear()
    await sign_in(admin, other)
    theirs = dict(re.findall(r'name="(csrf)" value="(\w+)"', (await admin.get(path)).text))
    admin.cookies.clear()
    for fields, headers in (
        ({}, {}),
        ({"csrf": ""}, {}),
        (theirs, {}),
        (form, {"sec-fetch-site": "cross-site"}),
        (form, {"sec-fetch-site": "same-site"}),
        (form, {"origin": "https://evil.example"}),
        (form, {"origin": "null"}),
    ):
        refused = await admin.post(path, data=fields, headers={**headers, **mine})
        assert refused.status_code in {403, 415}, (fields, headers)  # without a field it is no form
    refused = await admin.post(path, json=form, headers=mine)
    assert refused.status_code == 415
    assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 200
    done = await admin.post(path, data=form, headers={"origin": "http://edge", **mine})
    assert done.status_code == 200
    assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 401


async def test_another_site_cannot_sign_anyone_in(edge, operator, services):
    value, _ = await issue(operator, "admin")
    assert (await sign_in(edge, value, origin="https://evil.example")).status_code == 403
    assert (await sign_in(edge, value, **{"sec-fetch-site": "cross-site"})).status_code == 403
    assert not edge.cookies
    # As a bookmark or a reload does.
    assert (await sign_in(edge, value, **{"sec-fetch-site": "none"})).status_code == 303


async def test_who_may_not_come_in_is_told_why_if_the_token_is_theirs(edge, operator, services):
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
        answer = await sign_in(edge, value)
        assert answer.status_code == status, value
        assert 'role="alert"' in answer.text
        assert 'name="token" type="password"' in answer.text
        assert "set-cookie" not in answer.headers
        assert not value or value not in answer.text
    unknown, ended = [(await sign_in(edge, value)).text for value in (token_format.mint(), revoked)]
    assert re.sub(r"req_\w+", "", unknown) == re.sub(r"req_\w+", "", ended)


async def test_guessing_is_bounded(edge, operator, services):
    value, _ = await issue(operator, "admin")
    for _ in range(Attempts.MAX_ATTEMPTS):
        assert (await sign_in(edge, token_format.mint())).status_code == 401
    for guess in (token_format.mint(), value):
        answer = await sign_in(edge, guess)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")


async def test_guesses_in_parallel_are_counted_before_they_are_judged(edge, operator, services):
    """A16"""
    answers = await asyncio.gather(*(sign_in(edge, token_format.mint()) for _ in range(40)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.pop(429) == 30
    assert statuses.keys() <= {401, 503}  # which it is when the tokens service is slow


async def test_who_signs_in_again_and_again_is_no_guesser(edge, operator, services):
    value, _ = await issue(operator, "admin")
    for _ in range(Attempts.MAX_ATTEMPTS + 5):
        assert (await sign_in(edge, f" {value}\t")).status_code == 303  # as it may be pasted


async def test_a_link_works_where_others_have_guessed(edge, operator, services):
    for _ in range(Attempts.MAX_ATTEMPTS + 1):
        await sign_in(edge, token_format.mint())
    _, token = await issue(operator, "admin")
    link = login_link.new(token.id, OPERATOR, seconds=60)
    await call(operator, MAKE_SIGN_IN_LINK, link.request)
    assert (await edge.post("/admin/sign-in", data={"link": link.secret})).status_code == 303
    # Nor does it free them to guess on.
    assert (await sign_in(edge, token_format.mint())).status_code == 429


async def test_a_rejected_sign_in_writes_nothing_and_uses_no_link_up(edge, operator, services, database):
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


THERE_AND_BACK: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "disabled": ({"disabled": True}, {"disabled": False}),
    "scopes": ({"scopes": ("api",)}, {"scopes": ("admin", "api")}),
    "addresses": (
        {"restrictions": RestrictionsUpdate(addresses=("192.0.2.1",))},
        {"restrictions": RestrictionsUpdate(addresses=None)},
    ),
    "not before": ({"not_before": datetime.now(UTC) + timedelta(days=1)}, {"not_before": None}),
    "expired": (None, {"expires": None}),
}
"""Changes that end a session, and those that undo them; without the first, the token expires by itself."""


@pytest.mark.usefixtures("services")
async def test_a_session_that_has_ended_does_not_come_back(
    edge, operator, database, subtests: pytest.Subtests
):
    """A15"""
    for number, (case, (there, back)) in enumerate(THERE_AND_BACK.items(), 1):
        with subtests.test(case):
            async with browser(edge, f"198.51.100.{number}") as client:
                await _end_session_and_undo(client, operator, database, there, back)


async def _end_session_and_undo(
    edge: httpx.AsyncClient, operator: Client, database: Database, there: Any, back: dict[str, Any]
) -> None:
    value, token = await issue(operator, "admin", "api", expires=datetime.now(UTC) + timedelta(days=1))
    await sign_in(edge, value)
    link = login_link.new(token.id, OPERATOR, seconds=60)
    await call(operator, MAKE_SIGN_IN_LINK, link.request)
    assert (await edge.get("/admin/tokens")).status_code == 200
    if there is None:
        connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
        await connection.execute("update token set expires = now() where id = $1", token.id)
        await connection.close()
    for changes in filter(None, (there, back)):
        edit = EditToken(id=token.id, changes=TokenUpdate(**changes), actor=OPERATOR)
        assert isinstance(await call(operator, EDIT_TOKEN.by_operator, edit), EditedToken)
    assert (await edge.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 200
    assert (await edge.get("/admin/tokens")).status_code == 303
    edge.cookies.clear()
    assert (await edge.post("/admin/sign-in", data={"link": link.secret})).status_code == 401


async def test_an_edit_that_takes_nothing_away_ends_no_session(edge, operator, services):
    value, token = await issue(operator, "admin", description="before")
    await sign_in(edge, value)
    for changes in ({"description": "after"}, {"scopes": ("admin", "api")}, {"metadata": {"a": 1}}):
        edit = EditToken(id=token.id, changes=TokenUpdate(**changes), actor=OPERATOR)
        await call(operator, EDIT_TOKEN.by_operator, edit)
        assert (await edge.get("/admin/tokens")).status_code == 200


async def test_with_admin_alone_one_sees_and_changes_nothing(edge, operator, services):
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
        answer = await send(edge, path, form, **fields)
        assert answer.status_code == 403, path
    bearer = {"authorization": f"Bearer {value}"}
    assert (await edge.get("/auth?scope=admin&account=alice", headers=bearer)).status_code == 200


def test_addresses_are_bounded_apart_and_an_ipv6_network_is_one(monkeypatch: pytest.MonkeyPatch):
    clock = 1000.0
    monkeypatch.setattr(sessions, "boot_time", lambda: clock)
    attempts = Attempts()
    for number in range(Attempts.MAX_ATTEMPTS):
        attempts.start(f"2001:db8::{number}")
        attempts.start("192.0.2.1")
    for blocked in ("2001:db8::ffff", "192.0.2.1", "::ffff:192.0.2.1"):
        with pytest.raises(TooManyAttempts):
            attempts.start(blocked)
    for free in ("2001:db8:0:1::1", "192.0.2.2", None):
        attempts.start(free)
    clock += Attempts.WINDOW_S - 1
    with pytest.raises(TooManyAttempts):
        attempts.start("192.0.2.1")
    clock += 1
    attempts.start("192.0.2.1")
    for number in range(Attempts.ADDRESSES):
        attempts.start(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._counts) == Attempts.ADDRESSES  # what is kept is bounded
    for _ in range(Attempts.MAX_ATTEMPTS):
        attempts.start("192.0.2.1")  # the longest unheard of is forgotten


def test_an_attempt_that_is_refunded_frees_one_and_no_more():
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


async def test_a_link_signs_in_once(edge, operator, services):
    _, token = await issue(operator, "admin")
    link = login_link.new(token.id, OPERATOR, seconds=60)
    assert not isinstance(await call(operator, MAKE_SIGN_IN_LINK, link.request), Failure)
    path = login_link.path(link.secret)
    assert "can be used once" in (await edge.get(path)).text
    assert (await edge.get(path)).status_code == 200
    assert not edge.cookies  # who merely looks is not signed in
    assert (await send(edge, "/admin/sign-in", path)).status_code == 303
    assert (await edge.get("/admin/tokens")).status_code == 200
    edge.cookies.clear()
    again = await send(edge, "/admin/sign-in", path)
    assert (again.status_code, "was already used" in again.text) == (401, True)
    assert not edge.cookies


async def test_a_link_is_worth_nothing_without_its_token_or_too_late(edge, operator, services, database):
    for spoil in ("token", "time"):
        _, token = await issue(operator, "admin")
        link = login_link.new(token.id, OPERATOR, seconds=60)
        await call(operator, MAKE_SIGN_IN_LINK, link.request)
        if spoil == "token":
            await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR))
        else:
            connection = await asyncpg.connect(database.owner)
            await connection.execute("update tokens.sign_in_link set expires = now()")
            await connection.close()
        answer = await edge.post("/admin/sign-in", data={"link": link.secret})
        assert (answer.status_code, dict(edge.cookies)) == (401, {})
    link = login_link.new("tok_nobody", OPERATOR, seconds=60)
    refused = await call(operator, MAKE_SIGN_IN_LINK, link.request)
    assert isinstance(refused, Failure)
    assert refused.code == "not_found"


async def test_a_session_ends_by_itself_with_its_time_or_its_token_s(
    edge, operator, services, database, subtests: pytest.Subtests
):
    for ends in (
        "token set expires = now() where id = $1",
        "session set expires = now() where token = $1",
    ):
        with subtests.test(ends):
            async with browser(edge) as client:
                value, token = await issue(operator, "admin", expires=datetime.now(UTC) + timedelta(hours=1))
                await sign_in(client, value)
                assert (await client.get("/admin/tokens")).status_code == 200
                connection = await asyncpg.connect(database.owner)
                assert await connection.execute(f"update tokens.{ends}", token.id) == "UPDATE 1"
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


async def test_signing_in_leads_nowhere_else(edge, operator, services, subtests: pytest.Subtests):
    for wanted in FOREIGN_PAGES:
        with subtests.test(wanted=wanted):
            value, _ = await issue(operator, "admin")
            async with browser(edge) as client:
                answer = await client.post("/admin/sign-in", data={"token": value, "next": wanted})
                assert answer.headers["location"] == "/admin"
                client.cookies.clear()
                there = await client.post("/admin/sign-in", data={"token": value, "next": "/admin/accounts"})
                assert there.headers["location"] == "/admin/accounts"


async def test_a_part_of_a_page_sends_the_whole_browser_to_sign_in(edge, services):
    shown = {"hx-request": "true", "hx-current-url": "http://edge/admin/tokens?query=a%26b"}
    answer = await edge.get("/admin/tokens?query=a", headers=shown)
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"] == "/admin/sign-in?ended=true&next=/admin/tokens%3Fquery%3Da%2526b"
    assert answer.headers["cache-control"] == "no-store"
    for shown_page in ({}, {"hx-current-url": "http://edge//evil.example"}, {"hx-current-url": "http://[x"}):
        answer = await edge.get("/admin/tokens", headers={"hx-request": "true", **shown_page})
        assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/admin/sign-in?ended=true")


async def test_a_rate_limited_token_is_limited_here_too(edge, operator, services):
    limited = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=3600))
    value, token = await issue(operator, "admin", restrictions=limited)
    assert (await sign_in(edge, value)).status_code == 303
    answers = [await edge.get("/admin/accounts") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["content-type"].startswith("text/html")
    assert int(answers[1].headers["retry-after"]) > 0
    # Whoever has such a token does not guess.
    for _ in range(Attempts.MAX_ATTEMPTS + 1):
        again = await sign_in(edge, value)
        assert (again.status_code, "Rate limit exceeded" in again.text) == (429, True)
    for _ in range(Attempts.MAX_ATTEMPTS):
        assert (await sign_in(edge, token_format.mint())).status_code == 401
    # A link is no attempt, so it takes none back either.
    link = login_link.new(token.id, OPERATOR, seconds=60)
    await call(operator, MAKE_SIGN_IN_LINK, link.request)
    limited_again = await edge.post("/admin/sign-in", data={"link": link.secret})
    assert (limited_again.status_code, "Rate limit exceeded" in limited_again.text) == (429, True)
    assert "Too many sign-in attempts" in (await sign_in(edge, token_format.mint())).text


async def test_the_dashboard_can_be_switched_off(nats_server, services):
    async with another_edge(nats_server, dashboard=False) as edge:
        for path in ("/admin", "/admin/sign-in", "/admin/assets/style.css"):
            assert (await edge.get(path)).status_code == 401


async def test_the_cookie_has_one_name_at_every_edge_and_replica_of_an_installation(
    edge, nats_server, database, operator, services
):
    value, _ = await issue(operator, "admin")
    names = {(await sign_in(edge, value)).headers["set-cookie"].partition("=")[0]}
    async with another_edge(nats_server) as second:
        names.add((await sign_in(second, value)).headers["set-cookie"].partition("=")[0])
    async with asyncpg.create_pool(database.owner, min_size=1) as pool:
        names.add(f"tallystick-{await Store(pool).installation()}")
    assert names == {await cookie_name(operator)}
    # After a restore it is another one, and the edge learns that.
    learnt = CookieNames()
    for _ in range(2):
        learnt._name, learnt._ends = "tallystick-before", learnt._ends - CookieNames.FRESH_S
        assert {await learnt.get(operator)} == names


async def test_another_database_is_another_installation(database, postgres_server):
    found = []
    for url in (database.owner, postgres_server, postgres_server):
        async with asyncpg.create_pool(url, min_size=1) as pool:
            found.append(await Store(pool).installation())
    assert found[0] != found[1] == found[2]


async def test_two_installations_on_one_host_keep_their_sessions(admin: httpx.AsyncClient):
    """Cookies are shared by all ports of a host: the other installation signs in and out beside this one."""
    ((name, secret),) = admin.cookies.items()
    theirs = "tallystick-00000000"
    for beside in (f"{theirs}=x", "tallystick=x", f"x{name}=x", f"__Host-{name}=x"):
        answer = await admin.get("/admin/tokens", headers={"cookie": f"{beside}; {name}={secret}; {beside}"})
        assert answer.status_code == 200, beside
        admin.cookies.clear()
        assert (await admin.get("/admin/tokens", headers={"cookie": beside})).status_code == 303
    left = await admin.get("/admin/sign-in", headers={"cookie": f"{theirs}=x"})
    assert "set-cookie" not in left.headers


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
async def test_a_form_comes_from_the_site_that_a_trusted_proxy_names(nats_server, operator):
    value, _ = await issue(operator, "admin")
    for proxies, cases in FORWARDED.items():
        async with another_edge(nats_server, trusted_proxies=proxies) as edge:
            for headers, status in cases:
                answer = await sign_in(edge, value, **{**PROXY, **headers})
                assert answer.status_code == status, (proxies, headers, answer.text)
                if status == 403 and "sec-fetch-site" not in headers:
                    assert "TALLYSTICK_TRUSTED_PROXIES" in answer.text
                    assert "proxy_set_header Host $http_host" in answer.text
                    assert "127.0.0.1:3000" in answer.text


async def test_the_page_that_rejects_a_form_shows_the_origin_as_text(edge, services):
    answer = await sign_in(edge, "x", origin="http://<script>alert(1)</script>")
    assert answer.status_code == 403
    assert "<script>alert" not in answer.text


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
"""The page to go to after signing in, and whether the dashboard goes there."""


async def test_signing_in_leads_back_to_the_page_with_its_query(
    edge, operator, services, subtests: pytest.Subtests
):
    for wanted, kept in NEXT_PAGES:
        with subtests.test(wanted=wanted):
            async with browser(edge) as client:
                asked = (await client.get("/admin/sign-in", params={"next": wanted})).text
                (carried,) = re.findall(r'name="next" value="([^"]*)"', asked)
                assert html.unescape(carried) == (wanted if kept else "/admin")
                value, _ = await issue(operator, "*")
                signed_in = await client.post("/admin/sign-in", data={"token": value, "next": wanted})
                assert signed_in.headers["location"] == (wanted if kept else "/admin")
                if kept:
                    client.cookies.clear()
                    asked_first = await client.get(wanted)
                    assert httpx.URL(asked_first.headers["location"]).params["next"] == str(httpx.URL(wanted))


FORMS = [("edit", "/edit"), ("rotate", "/rotate"), ("revoke", "/revoke"), ("disable", ""), ("end-grace", "")]
"""Forms of a token, and the page that each is on."""


async def test_a_form_after_the_end_of_the_session_leads_back_to_its_page(
    edge, services, subtests: pytest.Subtests
):
    for form, page in FORMS:
        with subtests.test(form=form):
            answer = await edge.post(f"/admin/tokens/tok_1/{form}", data={"description": "x"})
            assert answer.status_code == 303
            assert answer.headers["location"] == f"/admin/sign-in?ended=true&next=/admin/tokens/tok_1{page}"
            assert "Your session has ended" in (await edge.get(answer.headers["location"])).text

"""The pages of the dashboard over HTTP. `tests/browser` tests them in a browser."""

import asyncio
import hmac
import html
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from jinja2 import UndefinedError

import tallystick_server.edge.dashboard
from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.operation import Actor
from tallystick.contracts.records import RateLimit, Restrictions, Token
from tallystick.contracts.tokens import GET_TOKEN, REVOKE_TOKEN, GetToken, RevokeToken
from tallystick.rpc.call import call
from tallystick_server.edge.dashboard.pages import TEMPLATES
from tests.support.dashboard import send
from tests.support.services import issue

FOLDER = Path(tallystick_server.edge.dashboard.__file__).parent
PAGES = [
    "/admin",
    "/admin/tokens",
    "/admin/tokens/new",
    "/admin/accounts",
    "/admin/refusals",
    "/admin/sign-in",
]
OPERATOR = Actor(name="test")
PROTECTION = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "cache-control": "no-store",
}
HTMX = {
    "allowEval": False,
    "allowScriptTags": False,
    "includeIndicatorStyles": False,  # they would be inline
    "historyCacheSize": 0,  # in the browser's storage, pages would outlive the session
    "selfRequestsOnly": True,
}
LONG = "x" * 257
BAD_QUERIES = [
    *("/admin/tokens?page=x", "/admin/tokens?page=-1", "/admin/tokens?page=1000001"),
    *(f"/admin/{name}?page={'9' * 30}" for name in ("tokens", "accounts")),
    *(f"/admin/tokens?{name}={LONG}" for name in ("query", "scope", "account", "state", "order")),
    *(f"/admin/tokens/new?account={LONG}", f"/admin/refusals?request_id={LONG}"),
    *("/admin/accounts?page=-1", "/admin/accounts?page=1000001", f"/admin/accounts?query={LONG}"),
    *(f"/admin/sign-in?link={LONG}", f"/admin/sign-in?next=/admin/{'x' * 2048}", "/admin/sign-in?ended=x"),
]


def is_protected(response: httpx.Response) -> bool:
    return PROTECTION.items() <= dict(response.headers).items()


async def test_every_page_is_protected_by_headers_and_has_no_inline_script(
    admin: httpx.AsyncClient, subtests: pytest.Subtests
):
    for path in (*PAGES, "/admin/nowhere", "/admin/tokens/tok_x", *BAD_QUERIES):
        with subtests.test(path=path[:60]):
            response = await admin.get(path)
            assert response.status_code == (200 if path in PAGES else 400 if path in BAD_QUERIES else 404)
            assert response.headers["content-type"] == "text/html; charset=utf-8"
            assert is_protected(response)
            assert re.findall(r"<script[^>]*>([^<]+)</script>", response.text) == []
            assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", response.text)
            assert not re.search(r"(src|href|action)=.(https?:)?//", response.text)
            (htmx,) = re.findall(r"name=\"htmx-config\" content='([^']+)'", response.text)
            assert HTMX.items() <= json.loads(htmx).items()


def test_no_page_loads_from_another_host():
    for path in (*FOLDER.glob("assets/*.css"), *FOLDER.glob("templates/**/*.html")):
        assert not re.search(r"https?://(?!\*?\.?example|\*\.example)", path.read_text()), path


def test_an_undefined_template_variable_raises():
    with pytest.raises(UndefinedError):
        TEMPLATES.engine_instance.engine.from_string("{{ missing }}").render()


async def test_assets_need_no_session_and_are_revalidated_by_their_etag(
    edge: httpx.AsyncClient, subtests: pytest.Subtests
):
    for name in ("style.css", "script.js", "htmx.min.js", "icon.svg"):
        with subtests.test(name=name):
            full = await edge.get(f"/admin/assets/{name}")
            assert full.status_code == 200
            revalidated = await edge.get(
                f"/admin/assets/{name}", headers={"if-none-match": full.headers["etag"]}
            )
            assert (revalidated.status_code, revalidated.content) == (304, b"")
            for response in (full, revalidated):
                expected = {**PROTECTION, "cache-control": "no-cache"}
                assert expected.items() <= dict(response.headers).items()
    # The redirect to the sign-in page needs no service either.
    redirect = await edge.get("/admin/tokens", headers={"cookie": "other=x"})
    assert (redirect.status_code, redirect.headers["location"]) == (303, "/admin/sign-in?next=/admin/tokens")


async def test_no_other_file_is_an_asset(edge: httpx.AsyncClient, services, subtests: pytest.Subtests):
    for name in ("nothing.js", "..%2Fpages.py", "%2e%2e/pages.py"):
        with subtests.test(name=name):
            assert (await edge.get(f"/admin/assets/{name}")).status_code in {303, 401}


def secret_in(page: str) -> str | None:
    match = re.search(r'id="secret"[^>]*value="(tly_\w+)"', page)
    return match[1] if match else None


async def test_a_form_that_is_sent_again_creates_no_second_token(admin: httpx.AsyncClient):
    form = (await admin.get("/admin/tokens/new")).text
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
    fields = {
        **hidden,
        "description": "mine",
        "scope": ["metrics", "orders:read invoices"],
        "expires": "never",
    }
    assert hidden.keys() == {"csrf", "key"}
    first = await admin.post("/admin/tokens/new", data=fields)
    secret = secret_in(first.text)
    assert secret
    record = (await admin.get("/v1/self", headers={"authorization": f"Bearer {secret}"})).json()
    assert record["scopes"] == ["metrics", "orders:read", "invoices"]
    assert record["expires"] is None
    repeated = await admin.post("/admin/tokens/new", data=fields)
    assert repeated.status_code == 200
    assert "was sent before" in repeated.text
    assert "tly_" not in repeated.text.replace(record["hint"], "")
    other = await admin.post("/admin/tokens/new", data={**fields, "description": "another"})
    assert "was sent before" in other.text
    # A form without an idempotency key is never a repetition.
    for _ in range(2):
        assert secret_in(
            (await admin.post("/admin/tokens/new", data={**fields, "key": "", "description": "x"})).text
        )
    assert "1 token" in (await admin.get("/admin/tokens", params={"query": "mine"})).text


PROBLEMS: list[tuple[dict[str, str], str]] = [
    ({"scope": ""}, "scopes"),
    ({"scope": "A:b"}, "scopes"),
    ({"account": "nobody"}, "account"),
    ({"addresses": "10.0.0.1/8"}, "addresses"),
    ({"addresses": "here"}, "addresses"),
    ({"referrers": "https://x .example/"}, "referrers"),
    ({"requests": "-1"}, "rateLimit"),
    ({"requests": "0"}, "rateLimit"),
    ({"requests": "1", "window": "x"}, "rateLimit"),
    ({"requests": "9" * 30}, "rateLimit"),
    ({"requests": "١"}, "rateLimit"),
    ({"requests": "1_0"}, "rateLimit"),
    ({"expires": "at"}, "expires"),
    ({"expires": "at", "expires_at": "soon"}, "expires"),
    ({"expires": "at", "expires_at": "2000-01-01T00:00"}, "expires"),
    ({"expires": "at", "expires_at": "9999-12-31T23:59-14:00"}, "expires"),
    ({"expires": "x"}, "expires"),
    ({"expires": "8"}, "expires"),
    ({"not_before": "9999-99-99T00:00"}, "notBefore"),
    ({"not_before_utc": "0001-01-01T00:00+14:00"}, "notBefore"),
    ({"metadata": "[1]"}, "metadata"),
    # Together with a problem that only the tokens service can detect.
    ({"metadata": "[1]", "account": "nobody"}, "account"),
    ({"metadata": "[" * 5000}, "metadata"),
    ({"metadata": '{"a":' * 5000}, "metadata"),
    ({"description": "x" * 2000}, "description"),
    ({"description": "a\0b"}, "description"),
]
"""An invalid field in the form of a new token, and the field that shows the problem."""


async def test_a_problem_is_displayed_at_its_field_and_all_values_are_retained(
    admin: httpx.AsyncClient, subtests: pytest.Subtests
):
    for number, (fields, field) in enumerate(PROBLEMS, 10):
        with subtests.test(field=field, fields=repr(fields)[:80]):
            sent = {
                "description": f"kept{number} <b>",
                "scope": "orders",
                "expires": "30",
                "window": "60",
                **fields,
            }
            response = await send(admin, "/admin/tokens/new", **sent)
            assert response.status_code == 400
            assert f'id="{field}-problem"' in response.text
            (focused,) = re.findall(r"<(?:input|select|textarea)[^>]+ autofocus>", response.text)
            assert ('id="other"' if field == "scopes" else f"{field}-problem") in focused
            if "description" not in fields:
                assert f'value="kept{number} &lt;b&gt;"' in response.text
            assert "0 tokens" in (await admin.get("/admin/tokens", params={"query": f"kept{number}"})).text


async def test_a_session_cannot_grant_a_scope_that_its_token_lacks(edge, operator, services):
    value, _ = await issue(operator, "admin", "orders:read", "api:tokens:write")
    await edge.post("/admin/sign-in", data={"token": value})
    rejected = await send(edge, "/admin/tokens/new", description="x", scope="orders", expires="never")
    assert (rejected.status_code, 'id="scopes-problem"' in rejected.text) == (400, True)
    created = await send(edge, "/admin/tokens/new", description="x", scope="orders:read", expires="never")
    assert secret_in(created.text)
    assert (
        'name="description" value="" maxlength="1024" aria-describedby="description-hint" autofocus'
        in (await edge.get("/admin/tokens/new")).text
    )


async def test_an_edit_changes_only_the_edited_fields(admin: httpx.AsyncClient, operator):
    limits = Restrictions(
        addresses=("192.0.2.0/24",),
        referrers=("https://*.example/*",),
        rate_limit=RateLimit(max_requests=7, time_window=90),
    )
    _, token = await issue(
        operator, "api:tokens", "own", description="before", restrictions=limits, metadata={"a": [1], "b": 2}
    )
    path = f"/admin/tokens/{token.id}/edit"
    form = (await admin.get(path)).text
    fields = {
        "csrf": re.findall(r'name="csrf" value="(\w+)"', form)[0],
        "revision": re.findall(r'name="revision" value="(\d+)"', form)[0],
        "description": "after",
        "scope": re.findall(r'id="other" name="scope" value="([^"]*)"', form)[0],
        "expires": "never",
        "addresses": "192.0.2.0/24",
        "referrers": "https://*.example/*",
        "requests": "7",
        "window": re.findall(r'<option value="(\d+)" selected>\d+ seconds', form)[0],
        "metadata": '{"a": [1]}',
    }
    response = await admin.post(path, data=fields)
    assert response.status_code == 303
    page = await admin.get(response.headers["location"])
    assert "Saved. Applied on" in page.text
    edited = await call(operator, GET_TOKEN.by_operator, GetToken(id=token.id, actor=OPERATOR))
    assert isinstance(edited, Token)
    assert (edited.description, edited.scopes, edited.restrictions, edited.metadata) == (
        "after",
        token.scopes,
        limits,
        {"a": [1]},
    )
    fields |= {"addresses": "", "referrers": "", "requests": "", "metadata": ""}
    stale = await admin.post(path, data=fields)
    assert (stale.status_code, "has changed since you opened" in stale.text) == (409, True)
    assert await call(operator, GET_TOKEN.by_operator, GetToken(id=token.id, actor=OPERATOR)) == edited
    assert "[U+202E]" in (await admin.post(path, data={**fields, "description": "\u202e"})).text
    fields["revision"] = str(edited.revision)
    wrong = await admin.post(path, data={**fields, "metadata": "["})
    assert (wrong.status_code, 'id="metadata-problem"' in wrong.text) == (400, True)
    # Of concurrent edits one succeeds; the others are rejected because the token has changed.
    responses = await asyncio.gather(*(admin.post(path, data=fields) for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [303, 409, 409, 409]
    assert all(
        "has changed since you opened" in response.text
        for response in responses
        if response.status_code == 409
    )
    edited = await call(operator, GET_TOKEN.by_operator, GetToken(id=token.id, actor=OPERATOR))
    assert isinstance(edited, Token)
    assert (edited.restrictions, edited.metadata) == (Restrictions(), None)


async def test_a_grace_period_can_be_ended(admin: httpx.AsyncClient, operator):
    value, token = await issue(operator, "orders", "api:tokens:write", description="leaked")
    rotated = await send(admin, f"/admin/tokens/{token.id}/rotate", grace="3600")
    successor = re.findall(r'data-secret="(/admin/tokens/tok_\w+)"', rotated.text)[0]
    assert "End grace period" in (await admin.get(successor)).text
    response = await send(admin, f"{successor}/end-grace", successor)
    assert "1 older secret of “<bdi>leaked</bdi>” is rejected" in response.text
    statuses = [
        (await admin.get("/v1/self", headers={"authorization": f"Bearer {secret}"})).status_code
        for secret in (value, secret_in(rotated.text))
    ]
    assert statuses == [401, 200]
    bearer = {"authorization": f"Bearer {secret_in(rotated.text)}"}
    child = (await admin.post("/v1/tokens", json={"scopes": ["orders"]}, headers=bearer)).json()["token"]
    # The tokens that it created stay valid unless the form revokes them too, at once or later.
    for fields, message, status in (
        ({}, "1 token created with it is still valid", 200),
        ({"descendants": "true"}, "and 1 token created with it are rejected", 401),
    ):
        revoked = await send(admin, f"{successor}/revoke", "/admin/tokens/new", **fields)
        assert (revoked.status_code, message in revoked.text) == (200, True), revoked.text
        own = await admin.get("/v1/self", headers={"authorization": f"Bearer {child}"})
        assert own.status_code == status


async def test_use_of_the_old_secret_is_displayed_after_a_rotation(admin: httpx.AsyncClient, operator):
    value, token = await issue(operator, "orders", description="turning")
    form = f"/admin/tokens/{token.id}/rotate"
    fields = dict(
        re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', (await admin.get(form)).text)
    )
    rotated = await admin.post(form, data={**fields, "grace": "3600"})
    assert secret_in(rotated.text)
    assert "The old secret is valid until" in rotated.text
    repeated = await admin.post(form, data={**fields, "grace": "3600"})
    assert (repeated.status_code, "was sent before" in repeated.text, secret_in(repeated.text)) == (
        200,
        True,
        None,
    )
    replaced = (await admin.get(f"/admin/tokens/{token.id}")).text
    assert "View new token" in replaced
    assert not re.search('/(edit|rotate|disable)"', replaced)
    (successor,) = re.findall(r'href="/admin/tokens/(tok_\w+)">Done', rotated.text)
    assert "has not been used since" in (await admin.get(f"/admin/tokens/{successor}")).text
    assert (
        await admin.get("/auth?scope=orders", headers={"authorization": f"Bearer {value}"})
    ).status_code == 200

    async with asyncio.timeout(30):
        while "still in use" not in (await admin.get(f"/admin/tokens/{successor}")).text:
            await asyncio.sleep(0.05)
    rejected = await send(admin, f"/admin/tokens/{successor}/rotate", grace="17")
    assert rejected.status_code == 400


async def test_uses_are_displayed_by_hour_and_rejections_are_found_by_request_id(
    admin: httpx.AsyncClient, operator
):
    value, token = await issue(operator, "orders", description="used")
    bearer = {"authorization": f"Bearer {value}"}
    for _ in range(3):
        await admin.get("/auth?scope=orders", headers=bearer)
    rejected = await admin.get("/auth?scope=other", headers=bearer)
    request_id = rejected.headers["x-request-id"]
    pages: list[str] = []

    async def reported() -> bool:
        pages[:] = [
            (await admin.get("/admin/tokens", params={"query": "used"})).text,
            (await admin.get(f"/admin/tokens/{token.id}")).text,
            (await admin.get("/admin/refusals", params={"request_id": f" {request_id} "})).text,
        ]
        return "used 3 times in the last 24 hours" in pages[0] and "Insufficient scope" in pages[2]

    async with asyncio.timeout(30):
        while not await reported():
            await asyncio.sleep(0.05)
    assert "used 3 times in the last 24 hours" in pages[0]
    assert "3 uses" in pages[1]
    assert request_id in pages[1]
    assert token.id in pages[2]
    empty = await admin.get("/admin/refusals", params={"request_id": "req_other"})
    assert "No token's log contains this" in empty.text


async def test_the_list_is_filtered_sorted_and_paged(admin: httpx.AsyncClient, operator):
    for number in range(60):
        await issue(operator, "even" if number % 2 == 0 else "odd", description=f"number {number:02d}")
    _, revoked = await issue(operator, "even", description="number gone")
    await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=revoked.id, actor=OPERATOR))

    async def list_tokens(**parameters: str | int) -> list[str]:
        response = await admin.get("/admin/tokens", params=parameters, headers={"hx-request": "true"})
        assert "<html" not in response.text
        assert response.text.count('hx-swap-oob="true"') == 1  # the number of tokens, outside the list
        return re.findall(r">number (\w+)</bdi></a>", response.text)

    assert (await list_tokens(query="number"))[:2] == ["59", "58"]
    assert len(await list_tokens(query="number")) == 25
    assert await list_tokens(query="number", page=2) == [f"{number:02d}" for number in range(9, -1, -1)]
    assert (await list_tokens(query="number", order="description"))[:2] == ["00", "01"]
    assert (await list_tokens(scope=" odd "))[:2] == ["59", "57"]
    assert (await list_tokens(state="misspelt", order="misspelt"))[:2] == ["59", "58"]
    assert await list_tokens(state="revoked") == ["gone"]
    assert await list_tokens(query="%") == []
    revoked_page = await admin.get(f"/admin/tokens/{revoked.id}")
    assert (revoked_page.status_code, f"{revoked.id}/" in revoked_page.text) == (
        200,
        False,
    )  # no action is offered
    page = (await admin.get("/admin/tokens", params={"scope": "odd", "query": "number"})).text
    assert "hx-swap-oob" not in page
    (following,) = re.findall(r'rel="next" href="([^"]+)"', page)
    assert len(re.findall(">number", (await admin.get(following.replace("&amp;", "&"))).text)) == 5
    whole = await admin.get(
        "/admin/tokens", headers={"hx-request": "true", "hx-history-restore-request": "true"}
    )
    assert "<html" in whole.text


async def test_the_overview_displays_metrics(admin: httpx.AsyncClient, operator):
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="acme", actor=OPERATOR))
    page = ""
    async with asyncio.timeout(30):
        while not re.search(r"<dt>Accounts</dt><dd>1", page):
            await asyncio.sleep(0.05)
            page = (await admin.get("/admin", headers={"hx-request": "true"})).text
    assert "<html" not in page
    whole = (await admin.get("/admin")).text
    assert '<div id="facts" data-refresh="5" hx-get="/admin" hx-trigger="refresh">' in whole
    assert re.search(r'id="facts-age" role="status" hidden>Last updated <span data-age></span> ago', whole)


async def test_the_overview_says_that_the_metrics_service_does_not_respond(edge, operator, tokens_service):
    value, _ = await issue(operator, "*")
    await edge.post("/admin/sign-in", data={"token": value})
    response = await edge.get("/admin")  # no metrics service is running
    assert response.status_code == 200
    assert "The metrics service is not responding" in response.text
    assert "<dt>Tokens</dt><dd>1 " in response.text
    # The browser keeps displaying the previous facts.
    part = await edge.get("/admin", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["retry-after"]) == (503, "1")
    assert (await edge.get("/admin/tokens")).status_code == 200


async def test_an_account_is_deleted_with_its_tokens(admin: httpx.AsyncClient, operator):
    added = await send(admin, "/admin/accounts", account=" acme ", name=" <Acme> ")
    assert added.status_code == 303
    for path in ("/admin/accounts", "/admin/accounts?query=+acme+"):
        assert "<bdi>&lt;Acme&gt;</bdi>" in (await admin.get(path)).text
    assert "0 accounts" in (await admin.get("/admin/accounts", params={"query": "x"})).text
    wrong = await send(admin, "/admin/accounts", account="a/b", name="<B>")
    assert (wrong.status_code, 'id="account-problem"' in wrong.text) == (400, True)
    assert 'value="a/b"' in wrong.text
    assert 'value="&lt;B&gt;"' in wrong.text
    value, _ = await issue(operator, "orders", account="acme")
    assert "1 token<" in (await admin.get("/admin/tokens", params={"account": " acme "})).text
    assert "<strong>1 token</strong>" in (await admin.get("/admin/accounts/acme/delete")).text
    deleted = await send(admin, "/admin/accounts/acme/delete")
    assert "1 token revoked on 1 edge" in deleted.text
    bearer = {"authorization": f"Bearer {value}"}
    assert (await admin.get("/auth?scope=orders&account=acme", headers=bearer)).status_code == 401
    assert (await admin.get("/admin/accounts/acme/delete")).status_code == 404


async def test_a_page_of_tokens_too_large_for_one_reply_displays_all_of_them(admin, operator):
    referrers = tuple(f"{number:0512}" for number in range(64))
    for number in range(30):
        await issue(
            operator,
            "api",
            *(f"scope{index}" for index in range(7)),
            description=f"large-{number:02}",
            restrictions=Restrictions(referrers=referrers, addresses=("192.0.2.1", "192.0.2.2")),
            metadata={"note": "n" * 8000},
        )
    for page, expected in ((0, range(5, 30)), (1, range(5))):
        response = await admin.get(f"/admin/tokens?query=large&page={page}")
        assert response.status_code == 200
        assert set(re.findall(r"large-(\d\d)", response.text)) == {f"{number:02}" for number in expected}
        assert f"Page {page + 1} of 2" in response.text
        # Long values do not enlarge a row.
        cells = re.sub(r' title="[^"]*"', "", response.text)
        for text in ('class="clamp"', ">and 2 more<", ">2 IP ranges<", ">64 referrers<"):
            assert cells.count(text) == len(expected), text


async def test_a_result_message_is_displayed_once_and_not_from_a_link(admin: httpx.AsyncClient, operator):
    _, token = await issue(operator, "orders", description="mine")
    path = f"/admin/tokens/{token.id}"
    disabled = await send(admin, f"{path}/disable", path)
    assert (disabled.status_code, disabled.headers["location"]) == (303, path)
    assert "Token disabled. Applied on 1 edge" in (await admin.get(path)).text
    assert "Disabled." not in (await admin.get(path)).text
    linked = await admin.get(path, params={"done": "disabled", "edges": 999999, "seconds": 0.0001})
    assert "999,999" not in linked.text


FORGERIES: dict[str, Callable[[str], str]] = {
    "another signature": lambda value: f"{value[:-1]}x",
    "another message": lambda value: f"e30=.{value[-64:]}",
    "no Base64": lambda value: f"x.{value[-64:]}",
    "no message": lambda value: f".{value[-64:]}",
    "no signature": lambda value: value.replace(".", ""),
    "empty": lambda _: "",
}


async def test_a_message_that_the_session_did_not_sign_is_not_displayed(
    admin: httpx.AsyncClient, operator, subtests: pytest.Subtests
):
    for case, change in FORGERIES.items():
        with subtests.test(case):
            _, token = await issue(operator, "orders")
            path = f"/admin/tokens/{token.id}"
            await send(admin, f"{path}/disable", path)
            (name,) = (cookie.name for cookie in admin.cookies.jar if "flash" in cookie.name)
            value = str(admin.cookies[name]).strip('"')
            del admin.cookies[name]
            response = await admin.get(
                path, headers={"cookie": _cookies(admin) + f"; {name}={change(value)}"}
            )
            assert response.status_code == 200
            assert "Applied on" not in response.text
            for sent in (value, f'"{value}"'):  # Set-Cookie quotes a value with padding
                page = await admin.get(path, headers={"cookie": _cookies(admin) + f"; {name}={sent}"})
                assert "Applied on" in page.text
            # Without a session no signature is valid.
            sign_in_page = await admin.get("/admin/sign-in", headers={"cookie": f"{name}={value}"})
            assert (sign_in_page.status_code, "Applied on" in sign_in_page.text) == (200, False)


async def test_a_signed_message_is_displayed_if_this_version_knows_it(admin: httpx.AsyncClient, operator):
    _, token = await issue(operator, "orders")
    path = f"/admin/tokens/{token.id}"
    await send(admin, f"{path}/disable", path)
    (name,) = (cookie.name for cookie in admin.cookies.jar if "flash" in cookie.name)
    (csrf,) = set(re.findall(r'name="csrf" value="([^"]+)"', (await admin.get(f"{path}/disable")).text))
    del admin.cookies[name]
    valid = b'{"done":"disabled","edges":7,"seconds":0.1}'
    for content, purpose, is_displayed in (
        (valid, b"flash:", True),
        (valid, b"", False),  # signed for another purpose
        (b'{"done":"of another version"}', b"flash:", False),
        (b"{", b"flash:", False),
        (valid + b" " * 1024, b"flash:", False),  # larger than any message of this version
    ):
        signature = hmac.new(csrf.encode(), purpose + content, sha256).hexdigest()
        cookie = f"{name}={urlsafe_b64encode(content).decode()}.{signature}"
        response = await admin.get(path, headers={"cookie": f"{_cookies(admin)}; {cookie}"})
        assert response.status_code == 200
        assert ("Applied on" in response.text) is is_displayed, content


def _cookies(client: httpx.AsyncClient) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


async def test_adding_an_existing_account_says_that_it_exists(admin: httpx.AsyncClient):
    for message in ("Account added", "The account already exists"):
        await send(admin, "/admin/accounts", account="acme", name="Acme")
        assert message in (await admin.get("/admin/accounts")).text


async def test_free_text_cannot_reverse_the_page_or_hide_characters(admin: httpx.AsyncClient, operator):
    account = "a&b+c"
    await call(
        operator, ADD_ACCOUNT.by_operator, AddAccount(account=account, name="\u202eevil", actor=OPERATOR)
    )
    _, token = await issue(
        operator,
        "orders",
        account=account,
        description="\u202eevil\u200b\u2066x\x07 می‌خواهم",
        metadata={"<b>": "\u202ex", "a": "ä"},
        restrictions=Restrictions(referrers=("https://h/*",)),
    )
    path = f"/admin/tokens/{token.id}"
    for page in (
        "/admin/tokens",
        "/admin/accounts",
        path,
        f"{path}/rotate",
        f"{path}/revoke",
        f"{path}/disable",
    ):
        text = (await admin.get(page)).text
        assert not re.search("[\u200b\u202a-\u202e\u2066-\u2069\x07]", text), page
        assert "[U+202E]evil" in text, page
    for page in ("/admin/tokens", "/admin/accounts", path):
        assert "/admin/tokens?account=a%26b%2Bc" in (await admin.get(page)).text, page
    assert "<title>Edit [U+202E]evil" in (await admin.get(f"{path}/edit")).text
    text = (await admin.get(path)).text
    assert "<bdi>[U+202E]evil[U+200B][U+2066]x[U+0007] می‌خواهم</bdi>" in text
    assert "&lt;b&gt;&#34;: &#34;\\u202ex&#34;" in text
    assert "ä" in text
    _, long = await issue(operator, "orders", description="x" * 121)
    assert '<h1 class="long">' in (await admin.get(f"/admin/tokens/{long.id}")).text
    page = (await send(admin, f"{path}/rotate", grace="0")).text
    assert '<label for="secret"><bdi>[U+202E]evil' in page


def test_every_template_displays_free_text_by_the_macro():
    """Free text is displayed by `parts.text`, or by the `visible` filter where no markup is possible."""
    free = re.compile(r"\{\{[^}]*\b(description|\.name|referrers?|created_by|actor)\b[^}]*\}\}")
    for path in FOLDER.glob("templates/**/*.html"):
        for match in free.finditer(path.read_text()):
            assert re.search(
                r"parts\.|shown\.|text\(|visible|form\.get|problem|length|field\.name|focus_at|described",
                match[0],
            ), (
                path,
                match[0],
            )


async def test_a_page_beyond_the_last_redirects_to_the_last(admin: httpx.AsyncClient):
    response = await admin.get("/admin/tokens", params={"page": 99, "query": "admin"})
    assert response.status_code == 303
    assert response.headers["location"] == "/admin/tokens?query=admin&order=created&page=0"
    await send(admin, "/admin/accounts", account="acme")
    response = await admin.get("/admin/accounts", params={"page": 99, "query": "acme"})
    assert (response.status_code, response.headers["location"]) == (303, "/admin/accounts?query=acme&page=0")
    for path, message in (
        ("/admin/tokens", "No tokens match"),
        ("/admin/accounts", "No accounts match your search"),
    ):
        empty = await admin.get(path, params={"page": 99, "query": "nothing"})
        assert (empty.status_code, message in empty.text) == (200, True)


async def test_a_search_for_a_secret_finds_its_token_and_does_not_display_the_secret(
    admin: httpx.AsyncClient, operator
):
    value, _ = await issue(operator, "orders", description="leaked")
    await issue(operator, "orders", description="another")
    response = await admin.get("/admin/tokens", params={"query": f" {value} "})
    assert "1 token" in response.text
    assert "leaked" in response.text
    assert value not in response.text
    mistyped = await admin.get("/admin/tokens", params={"query": value[:-1]})
    assert "leaked" in mistyped.text
    assert value[:-1] not in mistyped.text
    # The browser does not send a form whose search text looks like a secret.
    (pattern,) = re.findall(r'name="query"[^>]* pattern="([^"]+)"', response.text)
    for text, is_allowed in (
        (value, False),
        ("a" * 64, False),
        (f" {value} ", False),
        ("orders", True),
        ("", True),
    ):
        assert (re.fullmatch(html.unescape(pattern), text) is not None) is is_allowed, text


async def test_disabling_the_session_s_own_token_needs_confirmation(admin: httpx.AsyncClient, operator):
    own_page = re.findall(r'class="me" href="([^"]+)"', (await admin.get("/admin")).text)[0]
    assert f'href="{own_page}/disable"' in (await admin.get(own_page)).text
    _, other = await issue(operator, "orders")
    for form in ("disable", "revoke"):
        assert "you will be signed out" in (await admin.get(f"{own_page}/{form}")).text
        assert "you will be signed out" not in (await admin.get(f"/admin/tokens/{other.id}/{form}")).text
    assert f'action="/admin/tokens/{other.id}/disable"' in (await admin.get(f"/admin/tokens/{other.id}")).text


FILTERS = [
    ("?query=p", "?query=pr&state=&order=created", True),
    ("", "?query=p&state=&order=created", True),
    ("?query=p", "?query=p&state=disabled", False),
    ("?query=p&order=used", "?query=p", False),
]
"""The displayed query, the requested query, and whether the request replaces the history entry."""


async def test_only_a_changed_search_text_replaces_the_history_entry(
    admin: httpx.AsyncClient, subtests: pytest.Subtests
):
    for displayed, requested, is_replaced in FILTERS:
        with subtests.test(displayed=displayed, requested=requested):
            headers = {"hx-request": "true", "hx-current-url": f"http://edge/admin/tokens{displayed}"}
            response = await admin.get(f"/admin/tokens{requested}", headers=headers)
            assert response.headers.get("hx-replace-url") == (
                f"/admin/tokens{requested}" if is_replaced else None
            )
            assert is_protected(response)
            whole = await admin.get(
                f"/admin/tokens{requested}",
                headers={"hx-current-url": f"http://edge/admin/tokens{displayed}"},
            )
            assert "hx-replace-url" not in whole.headers
    invalid_url = {"hx-request": "true", "hx-current-url": "http://["}
    assert (await admin.get("/admin/tokens", headers=invalid_url)).status_code == 200

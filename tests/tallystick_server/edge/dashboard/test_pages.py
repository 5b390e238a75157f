"""What the pages do, without a browser: `tests/browser` has the rest."""

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
    "includeIndicatorStyles": False,  # which would be inline
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


def is_protected(answer: httpx.Response) -> bool:
    return PROTECTION.items() <= dict(answer.headers).items()


async def test_every_page_is_private_and_runs_nothing_from_elsewhere(
    admin: httpx.AsyncClient, subtests: pytest.Subtests
):
    for path in (*PAGES, "/admin/nowhere", "/admin/tokens/tok_x", *BAD_QUERIES):
        with subtests.test(path=path[:60]):
            answer = await admin.get(path)
            assert answer.status_code == (200 if path in PAGES else 400 if path in BAD_QUERIES else 404)
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert is_protected(answer)
            assert re.findall(r"<script[^>]*>([^<]+)</script>", answer.text) == []
            assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", answer.text)
            assert not re.search(r"(src|href|action)=.(https?:)?//", answer.text)
            (htmx,) = re.findall(r"name=\"htmx-config\" content='([^']+)'", answer.text)
            assert HTMX.items() <= json.loads(htmx).items()


def test_what_the_pages_load_is_all_here():
    for path in (*FOLDER.glob("assets/*.css"), *FOLDER.glob("templates/**/*.html")):
        assert not re.search(r"https?://(?!\*?\.?example|\*\.example)", path.read_text()), path


def test_a_value_that_a_page_lacks_is_no_empty_text():
    with pytest.raises(UndefinedError):
        TEMPLATES.engine_instance.engine.from_string("{{ missing }}").render()


async def test_assets_need_no_session_and_are_sent_once(edge: httpx.AsyncClient, subtests: pytest.Subtests):
    for name in ("style.css", "script.js", "htmx.min.js", "icon.svg"):
        with subtests.test(name=name):
            answer = await edge.get(f"/admin/assets/{name}")
            assert answer.status_code == 200
            again = await edge.get(f"/admin/assets/{name}", headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            for each in (answer, again):
                kept = {**PROTECTION, "cache-control": "no-cache"}
                assert kept.items() <= dict(each.headers).items()
    # Nor does leading to where one signs in need a service.
    left = await edge.get("/admin/tokens", headers={"cookie": "other=x"})
    assert (left.status_code, left.headers["location"]) == (303, "/admin/sign-in?next=/admin/tokens")


async def test_no_other_file_is_an_asset(edge: httpx.AsyncClient, services, subtests: pytest.Subtests):
    for name in ("nothing.js", "..%2Fpages.py", "%2e%2e/pages.py"):
        with subtests.test(name=name):
            assert (await edge.get(f"/admin/assets/{name}")).status_code in {303, 401}


def secret_in(page: str) -> str | None:
    found = re.search(r'id="secret"[^>]*value="(tly_\w+)"', page)
    return found[1] if found else None


async def test_a_token_is_made_once_however_often_the_form_is_sent(admin: httpx.AsyncClient):
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
    mine = (await admin.get("/v1/self", headers={"authorization": f"Bearer {secret}"})).json()
    assert mine["scopes"] == ["metrics", "orders:read", "invoices"]
    assert mine["expires"] is None
    again = await admin.post("/admin/tokens/new", data=fields)
    assert again.status_code == 200
    assert "was sent before" in again.text
    assert "tly_" not in again.text.replace(mine["hint"], "")
    other = await admin.post("/admin/tokens/new", data={**fields, "description": "another"})
    assert "was sent before" in other.text
    # A form without a key is no other's second try.
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
    # With what only the tokens service can tell.
    ({"metadata": "[1]", "account": "nobody"}, "account"),
    ({"metadata": "[" * 5000}, "metadata"),
    ({"metadata": '{"a":' * 5000}, "metadata"),
    ({"description": "x" * 2000}, "description"),
    ({"description": "a\0b"}, "description"),
]
"""What is wrong in the form of a new token, and the field that the problem is shown at."""


async def test_a_problem_is_shown_at_its_field_and_nothing_is_lost(
    admin: httpx.AsyncClient, subtests: pytest.Subtests
):
    for number, (fields, field) in enumerate(PROBLEMS, 10):
        with subtests.test(field=field, fields=repr(fields)[:80]):
            kept = {
                "description": f"kept{number} <b>",
                "scope": "orders",
                "expires": "30",
                "window": "60",
                **fields,
            }
            answer = await send(admin, "/admin/tokens/new", **kept)
            assert answer.status_code == 400
            assert f'id="{field}-problem"' in answer.text
            (focused,) = re.findall(r"<(?:input|select|textarea)[^>]+ autofocus>", answer.text)
            assert ('id="other"' if field == "scopes" else f"{field}-problem") in focused
            if "description" not in fields:
                assert f'value="kept{number} &lt;b&gt;"' in answer.text
            assert "0 tokens" in (await admin.get("/admin/tokens", params={"query": f"kept{number}"})).text


async def test_nobody_gives_what_they_do_not_have(edge, operator, services):
    value, _ = await issue(operator, "admin", "orders:read", "api:tokens:write")
    await edge.post("/admin/sign-in", data={"token": value})
    refused = await send(edge, "/admin/tokens/new", description="x", scope="orders", expires="never")
    assert (refused.status_code, 'id="scopes-problem"' in refused.text) == (400, True)
    made = await send(edge, "/admin/tokens/new", description="x", scope="orders:read", expires="never")
    assert secret_in(made.text)
    assert (
        'name="description" value="" maxlength="1024" aria-describedby="description-hint" autofocus'
        in (await edge.get("/admin/tokens/new")).text
    )


async def test_an_edit_changes_what_was_changed(admin: httpx.AsyncClient, operator):
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
    answer = await admin.post(path, data=fields)
    assert answer.status_code == 303
    shown = await admin.get(answer.headers["location"])
    assert "Saved. Applied on" in shown.text
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
    # Of several at once one is carried out: the others find the token changed.
    answers = await asyncio.gather(*(admin.post(path, data=fields) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [303, 409, 409, 409]
    assert all(
        "has changed since you opened" in answer.text for answer in answers if answer.status_code == 409
    )
    edited = await call(operator, GET_TOKEN.by_operator, GetToken(id=token.id, actor=OPERATOR))
    assert isinstance(edited, Token)
    assert (edited.restrictions, edited.metadata) == (Restrictions(), None)


async def test_a_grace_period_can_be_ended(admin: httpx.AsyncClient, operator):
    value, token = await issue(operator, "orders", "api:tokens:write", description="leaked")
    made = await send(admin, f"/admin/tokens/{token.id}/rotate", grace="3600")
    successor = re.findall(r'data-secret="(/admin/tokens/tok_\w+)"', made.text)[0]
    assert "End grace period" in (await admin.get(successor)).text
    ended = await send(admin, f"{successor}/end-grace", successor)
    assert "1 older secret of “<bdi>leaked</bdi>” is rejected" in ended.text
    statuses = [
        (await admin.get("/v1/self", headers={"authorization": f"Bearer {each}"})).status_code
        for each in (value, secret_in(made.text))
    ]
    assert statuses == [401, 200]
    bearer = {"authorization": f"Bearer {secret_in(made.text)}"}
    child = (await admin.post("/v1/tokens", json={"scopes": ["orders"]}, headers=bearer)).json()["token"]
    # What it has created lives on unless the form says otherwise, then or later.
    for fields, said, status in (
        ({}, "1 token created with it is still valid", 200),
        ({"descendants": "true"}, "and 1 token created with it are rejected", 401),
    ):
        revoked = await send(admin, f"{successor}/revoke", "/admin/tokens/new", **fields)
        assert (revoked.status_code, said in revoked.text) == (200, True), revoked.text
        own = await admin.get("/v1/self", headers={"authorization": f"Bearer {child}"})
        assert own.status_code == status


async def test_the_old_secret_s_use_is_shown_after_a_rotation(admin: httpx.AsyncClient, operator):
    value, token = await issue(operator, "orders", description="turning")
    form = f"/admin/tokens/{token.id}/rotate"
    fields = dict(
        re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', (await admin.get(form)).text)
    )
    made = await admin.post(form, data={**fields, "grace": "3600"})
    assert secret_in(made.text)
    assert "The old secret is valid until" in made.text
    again = await admin.post(form, data={**fields, "grace": "3600"})
    assert (again.status_code, "was sent before" in again.text, secret_in(again.text)) == (200, True, None)
    replaced = (await admin.get(f"/admin/tokens/{token.id}")).text
    assert "View new token" in replaced
    assert not re.search('/(edit|rotate|disable)"', replaced)
    (successor,) = re.findall(r'href="/admin/tokens/(tok_\w+)">Done', made.text)
    assert "has not been used since" in (await admin.get(f"/admin/tokens/{successor}")).text
    assert (
        await admin.get("/auth?scope=orders", headers={"authorization": f"Bearer {value}"})
    ).status_code == 200

    async with asyncio.timeout(30):
        while "still in use" not in (await admin.get(f"/admin/tokens/{successor}")).text:
            await asyncio.sleep(0.05)
    refused = await send(admin, f"/admin/tokens/{successor}/rotate", grace="17")
    assert refused.status_code == 400


async def test_use_is_shown_by_the_hour_and_refusals_are_found_by_their_id(
    admin: httpx.AsyncClient, operator
):
    value, token = await issue(operator, "orders", description="used")
    bearer = {"authorization": f"Bearer {value}"}
    for _ in range(3):
        await admin.get("/auth?scope=orders", headers=bearer)
    refused = await admin.get("/auth?scope=other", headers=bearer)
    request_id = refused.headers["x-request-id"]
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
    none = await admin.get("/admin/refusals", params={"request_id": "req_other"})
    assert "No token's log contains this" in none.text


async def test_the_list_is_filtered_sorted_and_paged(admin: httpx.AsyncClient, operator):
    for number in range(60):
        await issue(operator, "even" if number % 2 == 0 else "odd", description=f"number {number:02d}")
    _, gone = await issue(operator, "even", description="number gone")
    await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=gone.id, actor=OPERATOR))

    async def listed(**wanted) -> list[str]:
        answer = await admin.get("/admin/tokens", params=wanted, headers={"hx-request": "true"})
        assert "<html" not in answer.text
        assert answer.text.count('hx-swap-oob="true"') == 1  # the number of tokens, outside the list
        return re.findall(r">number (\w+)</bdi></a>", answer.text)

    assert (await listed(query="number"))[:2] == ["59", "58"]
    assert len(await listed(query="number")) == 25
    assert await listed(query="number", page=2) == [f"{number:02d}" for number in range(9, -1, -1)]
    assert (await listed(query="number", order="description"))[:2] == ["00", "01"]
    assert (await listed(scope=" odd "))[:2] == ["59", "57"]
    assert (await listed(state="misspelt", order="misspelt"))[:2] == ["59", "58"]
    assert await listed(state="revoked") == ["gone"]
    assert await listed(query="%") == []
    its_page = await admin.get(f"/admin/tokens/{gone.id}")
    assert (its_page.status_code, f"{gone.id}/" in its_page.text) == (200, False)  # nothing is left to do
    page = (await admin.get("/admin/tokens", params={"scope": "odd", "query": "number"})).text
    assert "hx-swap-oob" not in page
    (following,) = re.findall(r'rel="next" href="([^"]+)"', page)
    assert len(re.findall(">number", (await admin.get(following.replace("&amp;", "&"))).text)) == 5
    whole = await admin.get(
        "/admin/tokens", headers={"hx-request": "true", "hx-history-restore-request": "true"}
    )
    assert "<html" in whole.text


async def test_the_overview_tells_what_metrics_tell(admin: httpx.AsyncClient, operator):
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


async def test_with_the_services_away_it_says_so(edge, operator, tokens_service):
    value, _ = await issue(operator, "*")
    await edge.post("/admin/sign-in", data={"token": value})
    answer = await edge.get("/admin")  # nobody tells the metrics
    assert answer.status_code == 200
    assert "The metrics service is not responding" in answer.text
    assert "<dt>Tokens</dt><dd>1 " in answer.text
    # The part keeps what it shows in the browser.
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
    done = await send(admin, "/admin/accounts/acme/delete")
    assert "1 token revoked on 1 edge" in done.text
    bearer = {"authorization": f"Bearer {value}"}
    assert (await admin.get("/auth?scope=orders&account=acme", headers=bearer)).status_code == 401
    assert (await admin.get("/admin/accounts/acme/delete")).status_code == 404


async def test_a_page_of_tokens_too_large_for_one_answer_shows_all_of_them(admin, operator):
    referrers = tuple(f"{number:0512}" for number in range(64))
    for number in range(30):
        await issue(
            operator,
            "api",
            *(f"scope{each}" for each in range(7)),
            description=f"large-{number:02}",
            restrictions=Restrictions(referrers=referrers, addresses=("192.0.2.1", "192.0.2.2")),
            metadata={"note": "n" * 8000},
        )
    for page, expected in ((0, range(5, 30)), (1, range(5))):
        answer = await admin.get(f"/admin/tokens?query=large&page={page}")
        assert answer.status_code == 200
        assert set(re.findall(r"large-(\d\d)", answer.text)) == {f"{number:02}" for number in expected}
        assert f"Page {page + 1} of 2" in answer.text
        # None takes more room than others do.
        cells = re.sub(r' title="[^"]*"', "", answer.text)
        for text in ('class="clamp"', ">and 2 more<", ">2 IP ranges<", ">64 referrers<"):
            assert cells.count(text) == len(expected), text


async def test_what_was_done_is_said_once_and_by_nobody_else(admin: httpx.AsyncClient, operator):
    _, token = await issue(operator, "orders", description="mine")
    path = f"/admin/tokens/{token.id}"
    done = await send(admin, f"{path}/disable", path)
    assert (done.status_code, done.headers["location"]) == (303, path)
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


async def test_a_message_that_this_session_did_not_sign_is_not_shown(
    admin: httpx.AsyncClient, operator, subtests: pytest.Subtests
):
    for case, change in FORGERIES.items():
        with subtests.test(case):
            _, token = await issue(operator, "orders")
            path = f"/admin/tokens/{token.id}"
            await send(admin, f"{path}/disable", path)
            (name,) = (each.name for each in admin.cookies.jar if "flash" in each.name)
            value = str(admin.cookies[name]).strip('"')
            del admin.cookies[name]
            answer = await admin.get(path, headers={"cookie": _cookies(admin) + f"; {name}={change(value)}"})
            assert answer.status_code == 200
            assert "Applied on" not in answer.text
            for sent in (value, f'"{value}"'):  # as Set-Cookie has a value with padding
                shown = await admin.get(path, headers={"cookie": _cookies(admin) + f"; {name}={sent}"})
                assert "Applied on" in shown.text
            # Without a session nothing is signed.
            outside = await admin.get("/admin/sign-in", headers={"cookie": f"{name}={value}"})
            assert (outside.status_code, "Applied on" in outside.text) == (200, False)


async def test_a_message_that_the_session_signed_is_shown_if_it_is_one_of_this_version(
    admin: httpx.AsyncClient, operator
):
    _, token = await issue(operator, "orders")
    path = f"/admin/tokens/{token.id}"
    await send(admin, f"{path}/disable", path)
    (name,) = (each.name for each in admin.cookies.jar if "flash" in each.name)
    (csrf,) = set(re.findall(r'name="csrf" value="([^"]+)"', (await admin.get(f"{path}/disable")).text))
    del admin.cookies[name]
    right = b'{"done":"disabled","edges":7,"seconds":0.1}'
    for content, purpose, is_shown in (
        (right, b"flash:", True),
        (right, b"", False),  # what is signed for another purpose
        (b'{"done":"of another version"}', b"flash:", False),
        (b"{", b"flash:", False),
        (right + b" " * 1024, b"flash:", False),  # larger than any of ours
    ):
        signature = hmac.new(csrf.encode(), purpose + content, sha256).hexdigest()
        cookie = f"{name}={urlsafe_b64encode(content).decode()}.{signature}"
        answer = await admin.get(path, headers={"cookie": f"{_cookies(admin)}; {cookie}"})
        assert answer.status_code == 200
        assert ("Applied on" in answer.text) is is_shown, content


def _cookies(client: httpx.AsyncClient) -> str:
    return "; ".join(f"{each.name}={each.value}" for each in client.cookies.jar)


async def test_an_account_that_exists_is_not_said_to_be_added(admin: httpx.AsyncClient):
    for said in ("Account added", "The account already exists"):
        await send(admin, "/admin/accounts", account="acme", name="Acme")
        assert said in (await admin.get("/admin/accounts")).text


async def test_text_of_others_neither_turns_the_page_nor_hides(admin: httpx.AsyncClient, operator):
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
    made = (await send(admin, f"{path}/rotate", grace="0")).text
    assert '<label for="secret"><bdi>[U+202E]evil' in made


def test_every_text_of_others_goes_through_the_macro():
    """Whatever holds free text is shown by `parts.text`, or is made visible where no markup can stand."""
    free = re.compile(r"\{\{[^}]*\b(description|\.name|referrers?|created_by|actor)\b[^}]*\}\}")
    for path in FOLDER.glob("templates/**/*.html"):
        for found in free.finditer(path.read_text()):
            assert re.search(
                r"parts\.|shown\.|text\(|visible|form\.get|problem|length|field\.name|focus_at|described",
                found[0],
            ), (
                path,
                found[0],
            )


async def test_a_page_beyond_the_last_leads_to_the_last(admin: httpx.AsyncClient):
    answer = await admin.get("/admin/tokens", params={"page": 99, "query": "admin"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/admin/tokens?query=admin&order=created&page=0"
    await send(admin, "/admin/accounts", account="acme")
    answer = await admin.get("/admin/accounts", params={"page": 99, "query": "acme"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/accounts?query=acme&page=0")
    for path, said in (
        ("/admin/tokens", "No tokens match"),
        ("/admin/accounts", "No accounts match your search"),
    ):
        empty = await admin.get(path, params={"page": 99, "query": "nothing"})
        assert (empty.status_code, said in empty.text) == (200, True)


async def test_a_secret_is_found_without_being_passed_on_or_shown(admin: httpx.AsyncClient, operator):
    value, _ = await issue(operator, "orders", description="leaked")
    await issue(operator, "orders", description="another")
    answer = await admin.get("/admin/tokens", params={"query": f" {value} "})
    assert "1 token" in answer.text
    assert "leaked" in answer.text
    assert value not in answer.text
    mistyped = await admin.get("/admin/tokens", params={"query": value[:-1]})
    assert "leaked" in mistyped.text
    assert value[:-1] not in mistyped.text
    # The browser sends no such form.
    (pattern,) = re.findall(r'name="query"[^>]* pattern="([^"]+)"', answer.text)
    for text, may in ((value, False), ("a" * 64, False), (f" {value} ", False), ("orders", True), ("", True)):
        assert (re.fullmatch(html.unescape(pattern), text) is not None) is may, text


async def test_who_is_signed_in_with_a_token_is_asked_before_it_is_disabled(
    admin: httpx.AsyncClient, operator
):
    mine = re.findall(r'class="me" href="([^"]+)"', (await admin.get("/admin")).text)[0]
    assert f'href="{mine}/disable"' in (await admin.get(mine)).text
    _, other = await issue(operator, "orders")
    for form in ("disable", "revoke"):
        assert "you will be signed out" in (await admin.get(f"{mine}/{form}")).text
        assert "you will be signed out" not in (await admin.get(f"/admin/tokens/{other.id}/{form}")).text
    assert f'action="/admin/tokens/{other.id}/disable"' in (await admin.get(f"/admin/tokens/{other.id}")).text


FILTERS = [
    ("?query=p", "?query=pr&state=&order=created", True),
    ("", "?query=p&state=&order=created", True),
    ("?query=p", "?query=p&state=disabled", False),
    ("?query=p&order=used", "?query=p", False),
]
"""The list that is shown, the one that is requested, and whether its address replaces the other's in the history."""


async def test_only_a_filter_is_a_page_to_go_back_to(admin: httpx.AsyncClient, subtests: pytest.Subtests):
    for shown, asked, replaced in FILTERS:
        with subtests.test(shown=shown, asked=asked):
            headers = {"hx-request": "true", "hx-current-url": f"http://edge/admin/tokens{shown}"}
            answer = await admin.get(f"/admin/tokens{asked}", headers=headers)
            assert answer.headers.get("hx-replace-url") == (f"/admin/tokens{asked}" if replaced else None)
            assert is_protected(answer)
            whole = await admin.get(
                f"/admin/tokens{asked}", headers={"hx-current-url": f"http://edge/admin/tokens{shown}"}
            )
            assert "hx-replace-url" not in whole.headers
    nowhere = {"hx-request": "true", "hx-current-url": "http://["}
    assert (await admin.get("/admin/tokens", headers=nowhere)).status_code == 200

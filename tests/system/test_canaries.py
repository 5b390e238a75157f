"""No plain token anywhere: not on NATS, in PostgreSQL, in a log, in a file, in an error."""

import os
import re
import secrets
import signal

import httpx

from tallystick.tokens import format as token_format
from tests.support.polling import until
from tests.support.up import Up


def test_no_plain_token_is_found_anywhere(fresh: Up):
    fresh.settings["access_log"] = "all"  # on standard output
    fresh.start().ready()
    admin_token = fresh.admin_token
    known: list[str] = []
    answers: list[httpx.Response] = []
    ways = ("header", "query", "encoded", "form", "path", "away", "basic", "client_secret")
    strangers = {name: token_format.mint() for name in ways}
    strangers |= {
        "hexadecimal": secrets.token_hex(32),
        "opaque": f"canary.{secrets.token_hex(9)}~of=somebody",
    }
    malformed = "tly_CANARYmalformedCANARY"
    with fresh.client(admin_token) as admin, fresh.client() as client:
        for path in ("/v1/stats", "/nowhere", "/v1/tokens?page=x", "/v1/tokens/x/log"):
            for value in (*strangers.values(), malformed):
                bearer = {"authorization": f"Bearer {value}"}
                answers += [
                    client.get(path, headers=bearer),
                    client.get(path, params={"access_token": value}),
                    client.get(f"{path.partition('?')[0]}?access%5Ftoken={value}"),
                    client.get(path, params={"access_token": value}, headers=bearer),
                    client.get(path, headers={"authorization": f"Bearer {value} {value}"}),
                ]
        answers += [
            admin.get(f"/nowhere/{strangers['path']}"),
            admin.get(f"/v1/tokens/{strangers['path']}"),
            admin.delete(f"/v1/token/{strangers['path']}"),
            admin.post("/v1/tokens", json={"scopes": ["api"], strangers["form"]: 1}),
            admin.post("/v1/tokens", json={"scopes": [strangers["form"]]}),
            admin.post("/v1/tokens", content=strangers["form"].encode()),
            admin.post("/oauth2/introspect", data={"token": strangers["form"]}),
            admin.post("/oauth2/revoke", data={"token": strangers["form"]}),
            *oauth_clients(client, admin_token, strangers),
        ]
        made = admin.post("/v1/tokens", json={"scopes": ["api"]}).json()
        renewed = admin.post(f"/v1/tokens/{made['id']}/rotate", json={"grace": 60}).json()
        known += [admin_token, made["token"], renewed["token"]]
        with fresh.client(renewed["token"]) as holder:
            answers += [holder.get("/v1/self"), holder.get("/metrics"), holder.get("/v1/tokens/x")]
        only_from = {"scopes": ["api"], "restrictions": {"referrers": ["https://elsewhere.example/*"]}}
        bound = admin.post("/v1/tokens", json=only_from).json()["token"]
        page = {"referer": f"https://example.org/?access_token={strangers['header']}"}
        with fresh.client(bound) as holder:
            answers += [holder.get("/v1/self", headers=page), admin.get("/nowhere", headers=page)]
            assert answers[-2].json()["code"] == "referrer_not_allowed"
        with fresh.client() as browser:
            known += through_the_dashboard(browser, admin_token, made["id"], strangers["form"], answers)
        known.append(fresh.command("tokens", "login-link", made["id"]).stdout.strip().partition("?link=")[2])
        by_hand = fresh.command("tokens", "create", "-s", "api").stdout.strip()
        known += [bound, by_hand]
        commands = [
            fresh.command("tokens", "revoke", by_hand),
            fresh.command("tokens", "import", stdin=by_hand),
            fresh.command("tokens", "list", "--json"),
        ]
        answers += [admin.get("/v1/tokens"), admin.get("/metrics")]
        (tokens,) = fresh.pids("serve", "tokens")
        os.kill(tokens, signal.SIGSTOP)
        # What was refused a moment ago is remembered as refused for a second.
        until(lambda: client.get("/v1/stats", params={"access_token": strangers["away"]}).status_code == 503)
        away = [
            client.get("/v1/stats", params={"access_token": strangers["away"]}),
            client.get(f"/v1/stats?access%5Ftoken={strangers['away']}"),
            client.get("/v1/stats", headers={"authorization": f"Bearer {strangers['away']}"}),
        ]
        assert [answer.status_code for answer in away] == [503, 503, 503]
        answers += away
        os.kill(tokens, signal.SIGCONT)
        until(lambda: admin.get("/v1/stats").status_code == 200)
    assert fresh.stop() == 0

    canaries = [value.encode() for value in (*strangers.values(), *known, malformed)]
    places = {str(path): path.read_bytes() for path in fresh.data.rglob("*") if path.is_file()}
    places["output"] = fresh.printed.replace(admin_token, "").encode()
    for command in commands:
        places[f"answer to {command.args[3:5]}"] = (command.stdout + command.stderr).encode()
    for number, answer in enumerate(answers):
        places[f"answer {number}"] = answer.content + repr(answer.headers).encode()
    assert len(places) > 1000
    assert all(len(canary) > 16 for canary in canaries)
    found = {name for name, content in places.items() for canary in canaries if canary in content}
    assert found == set()
    check_the_search(made["id"], places, requests=len(answers))


def check_the_search(token_id: str, places: dict[str, bytes], *, requests: int) -> None:
    """What may be stored and logged is found, so a token would have been."""
    assert any(token_id.encode() in content for content in places.values())
    assert f'"path":"/v1/tokens/{token_id}/rotate"'.encode() in places["output"]
    assert places["output"].count(b'"duration_s":') >= requests


def oauth_clients(client: httpx.Client, admin_token: str, strangers: dict[str, str]) -> list[httpx.Response]:
    """What clients of ``/oauth2/*`` get: the wrong secret, two at once, and one at a path that takes none."""
    basic, secret = ("orders-api", strangers["basic"]), strangers["client_secret"]
    right = {"client_id": "orders-api", "client_secret": admin_token, "token": strangers["form"]}
    return [
        client.post("/oauth2/introspect", auth=basic, data={"token": strangers["form"]}),
        client.post("/oauth2/revoke", auth=basic, data={"token": strangers["form"]}),
        client.post("/oauth2/introspect", data={"token": strangers["form"], "client_secret": secret}),
        client.post("/oauth2/introspect", auth=basic, data={"token": "x", "client_secret": secret}),
        client.post("/oauth2/introspect", data={"token": "x", "client_secret": [secret, secret]}),
        client.post("/oauth2/introspect", data={**right, "scope": secret, "address": secret}),
        client.post("/oauth2/introspect", data=right),
        client.get("/v1/stats", auth=basic),
        client.post("/nowhere", auth=basic, data={"client_secret": secret}),
    ]


def through_the_dashboard(
    browser: httpx.Client, admin_token: str, token_id: str, stranger: str, answers: list[httpx.Response]
) -> list[str]:
    """Adds pages that may show no secret, and answers the session's and what the one page that shows one has shown."""
    answers += [
        browser.post("/admin/sign-in", data={"token": stranger}),
        browser.post("/admin/sign-in", data={"link": stranger}),
    ]
    assert browser.post("/admin/sign-in", data={"token": admin_token}).status_code == 303
    form = browser.get("/admin/tokens/new").text
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    made = browser.post("/admin/tokens/new", data={**hidden, "scope": "api", "expires": "never"}).text
    (secret,) = re.findall(r'id="secret"[^>]*value="(tly_\w+)"', made)
    pages = ("/admin", "/admin/tokens", "/admin/refusals?request_id=req_x", f"/admin/tokens/{token_id}")
    answers += [browser.get(page) for page in pages]
    assert {page.status_code for page in answers[-len(pages) :]} == {200}
    return [*browser.cookies.values(), secret]

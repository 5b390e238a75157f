"""No plain token anywhere: not on NATS, in PostgreSQL, in a log, in a file, in an error."""

import os
import re
import secrets
import signal

import httpx

from tallystick.tokens import format as token_format
from tests.support.polling import until
from tests.support.up import Up


def test_no_plain_token_is_stored_or_logged(fresh: Up):
    fresh.settings["access_log"] = "all"  # on standard output
    fresh.start().ready()
    admin_token = fresh.admin_token
    known_secrets: list[str] = []
    responses: list[httpx.Response] = []
    names = ("header", "query", "encoded", "form", "path", "away", "basic", "client_secret")
    unknown_tokens = {name: token_format.mint() for name in names}
    unknown_tokens |= {
        "hexadecimal": secrets.token_hex(32),
        "opaque": f"canary.{secrets.token_hex(9)}~of=somebody",
    }
    malformed = "tly_CANARYmalformedCANARY"
    with fresh.client(admin_token) as admin, fresh.client() as client:
        for path in ("/v1/stats", "/nowhere", "/v1/tokens?page=x", "/v1/tokens/x/log"):
            for value in (*unknown_tokens.values(), malformed):
                bearer = {"authorization": f"Bearer {value}"}
                responses += [
                    client.get(path, headers=bearer),
                    client.get(path, params={"access_token": value}),
                    client.get(f"{path.partition('?')[0]}?access%5Ftoken={value}"),
                    client.get(path, params={"access_token": value}, headers=bearer),
                    client.get(path, headers={"authorization": f"Bearer {value} {value}"}),
                ]
        responses += [
            admin.get(f"/nowhere/{unknown_tokens['path']}"),
            admin.get(f"/v1/tokens/{unknown_tokens['path']}"),
            admin.delete(f"/v1/token/{unknown_tokens['path']}"),
            admin.post("/v1/tokens", json={"scopes": ["api"], unknown_tokens["form"]: 1}),
            admin.post("/v1/tokens", json={"scopes": [unknown_tokens["form"]]}),
            admin.post("/v1/tokens", content=unknown_tokens["form"].encode()),
            admin.post("/oauth2/introspect", data={"token": unknown_tokens["form"]}),
            admin.post("/oauth2/revoke", data={"token": unknown_tokens["form"]}),
            *responses_to_oauth_clients(client, admin_token, unknown_tokens),
        ]
        token = admin.post("/v1/tokens", json={"scopes": ["api"]}).json()
        successor = admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 60}).json()
        known_secrets += [admin_token, token["token"], successor["token"]]
        with fresh.client(successor["token"]) as holder:
            responses += [holder.get("/v1/self"), holder.get("/metrics"), holder.get("/v1/tokens/x")]
        only_from = {"scopes": ["api"], "restrictions": {"referrers": ["https://elsewhere.example/*"]}}
        restricted = admin.post("/v1/tokens", json=only_from).json()["token"]
        page = {"referer": f"https://example.org/?access_token={unknown_tokens['header']}"}
        with fresh.client(restricted) as holder:
            responses += [holder.get("/v1/self", headers=page), admin.get("/nowhere", headers=page)]
            assert responses[-2].json()["code"] == "referrer_not_allowed"
        with fresh.client() as browser:
            known_secrets += use_dashboard(
                browser, admin_token, token["id"], unknown_tokens["form"], responses
            )
        known_secrets.append(
            fresh.command("tokens", "login-link", token["id"]).stdout.strip().partition("?link=")[2]
        )
        cli_token = fresh.command("tokens", "create", "-s", "api").stdout.strip()
        known_secrets += [restricted, cli_token]
        commands = [
            fresh.command("tokens", "revoke", cli_token),
            fresh.command("tokens", "import", stdin=cli_token),
            fresh.command("tokens", "list", "--json"),
        ]
        responses += [admin.get("/v1/tokens"), admin.get("/metrics")]
        (tokens,) = fresh.pids("serve", "tokens")
        os.kill(tokens, signal.SIGSTOP)
        # A token that was just rejected stays in the negative cache for a second.
        until(
            lambda: (
                client.get("/v1/stats", params={"access_token": unknown_tokens["away"]}).status_code == 503
            )
        )
        unavailable = [
            client.get("/v1/stats", params={"access_token": unknown_tokens["away"]}),
            client.get(f"/v1/stats?access%5Ftoken={unknown_tokens['away']}"),
            client.get("/v1/stats", headers={"authorization": f"Bearer {unknown_tokens['away']}"}),
        ]
        assert [response.status_code for response in unavailable] == [503, 503, 503]
        responses += unavailable
        os.kill(tokens, signal.SIGCONT)
        until(lambda: admin.get("/v1/stats").status_code == 200)
    assert fresh.stop() == 0

    canaries = [value.encode() for value in (*unknown_tokens.values(), *known_secrets, malformed)]
    contents_by_place = {str(path): path.read_bytes() for path in fresh.data.rglob("*") if path.is_file()}
    contents_by_place["output"] = fresh.printed.replace(admin_token, "").encode()
    for command in commands:
        contents_by_place[f"output of {command.args[3:5]}"] = (command.stdout + command.stderr).encode()
    for number, response in enumerate(responses):
        contents_by_place[f"response {number}"] = response.content + repr(response.headers).encode()
    assert len(contents_by_place) > 1000
    assert all(len(canary) > 16 for canary in canaries)
    leaks = {name for name, content in contents_by_place.items() for canary in canaries if canary in content}
    assert leaks == set()
    assert_search_works(token["id"], contents_by_place, requests=len(responses))


def assert_search_works(token_id: str, contents_by_place: dict[str, bytes], *, requests: int) -> None:
    """The search finds values that may be stored and logged, so it would have found a token."""
    assert any(token_id.encode() in content for content in contents_by_place.values())
    assert f'"path":"/v1/tokens/{token_id}/rotate"'.encode() in contents_by_place["output"]
    assert contents_by_place["output"].count(b'"duration_s":') >= requests


def responses_to_oauth_clients(
    client: httpx.Client, admin_token: str, unknown_tokens: dict[str, str]
) -> list[httpx.Response]:
    """Responses to clients of ``/oauth2/*``: with a wrong secret, with two, and with one at a path that accepts none."""
    basic, secret = ("orders-api", unknown_tokens["basic"]), unknown_tokens["client_secret"]
    right = {"client_id": "orders-api", "client_secret": admin_token, "token": unknown_tokens["form"]}
    return [
        client.post("/oauth2/introspect", auth=basic, data={"token": unknown_tokens["form"]}),
        client.post("/oauth2/revoke", auth=basic, data={"token": unknown_tokens["form"]}),
        client.post("/oauth2/introspect", data={"token": unknown_tokens["form"], "client_secret": secret}),
        client.post("/oauth2/introspect", auth=basic, data={"token": "x", "client_secret": secret}),
        client.post("/oauth2/introspect", data={"token": "x", "client_secret": [secret, secret]}),
        client.post("/oauth2/introspect", data={**right, "scope": secret, "address": secret}),
        client.post("/oauth2/introspect", data=right),
        client.get("/v1/stats", auth=basic),
        client.post("/nowhere", auth=basic, data={"client_secret": secret}),
    ]


def use_dashboard(
    browser: httpx.Client,
    admin_token: str,
    token_id: str,
    unknown_token: str,
    responses: list[httpx.Response],
) -> list[str]:
    """Adds the pages that must not show a secret; returns those of the session and of the one page that shows a secret."""
    responses += [
        browser.post("/admin/sign-in", data={"token": unknown_token}),
        browser.post("/admin/sign-in", data={"link": unknown_token}),
    ]
    assert browser.post("/admin/sign-in", data={"token": admin_token}).status_code == 303
    form = browser.get("/admin/tokens/new").text
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    token_page = browser.post("/admin/tokens/new", data={**hidden, "scope": "api", "expires": "never"}).text
    (secret,) = re.findall(r'id="secret"[^>]*value="(tly_\w+)"', token_page)
    pages = ("/admin", "/admin/tokens", "/admin/refusals?request_id=req_x", f"/admin/tokens/{token_id}")
    responses += [browser.get(page) for page in pages]
    assert {page.status_code for page in responses[-len(pages) :]} == {200}
    return [*browser.cookies.values(), secret]

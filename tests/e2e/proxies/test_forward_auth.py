"""Forward-auth with real proxies, each with its configuration from `deploy/proxies`: `just proxies`.

A separate command, since it requires the proxies. At its end it prints a table: each case with each proxy.
"""

import hashlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.proxies.harness import PROGRAMS, Application, Proxy, Reply, run_proxy, send
from tests.support.polling import until
from tests.support.up import Up

IDENTITY = {"x-token-id", "x-token-account", "x-token-scopes"}
NEEDED_BY_THE_CHECK = {
    *("host", "authorization", "referer", "x-forwarded-for", "x-forwarded-uri", "x-original-uri"),
    *("x-tallystick-scope", "connection", "content-length", "user-agent", "accept-encoding"),
    *("accept", "x-envoy-internal", "x-envoy-expected-rq-timeout-ms"),
}
PREFLIGHT = (("Origin", "https://page.example"), ("Access-Control-Request-Method", "GET"))
WEBSOCKET = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
WRONG = "f" * 64
TIMEOUT_S = 2.0
"""How long each configuration waits for the edge."""


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """An edge that trusts a proxy on 127.0.0.1."""
    with tempfile.TemporaryDirectory(prefix="tally-") as path:
        shared = Up(Path(path) / "data", trusted_proxies="127.0.0.1/32").start()
        try:
            yield shared.ready()
        finally:
            shared.stop()


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    with Application() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module", params=PROGRAMS)
def proxy(request, up: Up, application: Application, tmp_path_factory) -> Iterator[Proxy]:
    with run_proxy(request.param, up.port, application, tmp_path_factory.mktemp(request.param)) as proxy:
        yield proxy


def issue(up: Up, *scopes: str, account: str | None = None, **restrictions: Any) -> str:
    body = {"scopes": scopes or ["orders"], "account": account, "restrictions": restrictions or None}
    with up.client(up.admin_token) as client:
        if account is not None:
            client.post("/v1/account", json={"account": account})
        response = client.post("/v1/tokens", json={name: value for name, value in body.items() if value})
    assert response.status_code == 201, response.text
    return str(response.json()["token"])


@pytest.fixture(scope="module")
def token(up: Up) -> str:
    return issue(up, "orders")


@contextmanager
def assert_unreached(application: Application) -> Iterator[None]:
    """Asserts that no request within the block reaches the application."""
    before = application.requests
    yield
    assert application.requests == before


def assert_passed(reply: Reply, *, target: str | None = None, method: str = "GET") -> dict[str, str]:
    """Asserts that the application received the request with exactly one identity; returns its headers, by name."""
    assert reply.status == 200, (reply.status, reply.body)
    echo = reply.json
    assert echo["method"] == method
    assert target is None or echo["target"] == target
    names = [name for name, _ in echo["headers"]]
    assert {name for name in names if name.replace("_", "-").startswith("x-token-")} <= IDENTITY
    assert len([name for name in names if name in IDENTITY]) == len(IDENTITY & set(names))
    assert "authorization" not in names
    headers = dict(echo["headers"])
    assert headers["x-token-id"].startswith("tok_")
    return headers


# Accepted requests


def test_a_request_passes_as_it_was_sent(proxy: Proxy, token: str):
    target = "/a%2Fb/c;d=1?e=%20f&g=&&h#"[:-1]
    reply = proxy.request(target, token, method="POST", body=b"body")
    headers = assert_passed(reply, target=target, method="POST")
    assert headers["x-token-scopes"] == "orders"
    assert headers.get("x-token-account", "") == ""
    assert (reply.json["size"], reply.json["sha256"]) == (4, hashlib.sha256(b"body").hexdigest())


def test_every_method_passes(proxy: Proxy, token: str):
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"):
        assert_passed(proxy.request("/x", token, method=method), method=method)
    assert proxy.request("/x", token, method="HEAD").status == 200


def test_a_spoofed_identity_does_not_arrive(up: Up, proxy: Proxy, token: str):
    spoofed = [
        (spelling, "spoofed")
        for name in ("X-Token-Id", "X-Token-Account", "X-Token-Scopes")
        for spelling in (name, name.upper(), name.replace("-", "_"), name.replace("-T", "_T"), name.lower())
    ]
    reply = proxy.request("/", token, spoofed)
    assert_passed(reply)
    assert "spoofed" not in reply.body.decode()
    with assert_unreached(proxy.application):
        for wrong in (None, WRONG, issue(up, "invoices")):
            assert "spoofed" not in str(proxy.request("/", wrong, spoofed))


def test_a_client_cannot_have_its_identity_removed(proxy: Proxy, token: str):
    """By naming its headers as ones of the connection (RFC 9110, section 7.6.1)."""
    for names in (
        "close, X-Token-Id, X-Token-Account, X-Token-Scopes",
        "x-token-scopes",
        "keep-alive, X-Token-Id",
    ):
        headers = assert_passed(proxy.request("/", token, [("Connection", names)]))
        assert headers["x-token-scopes"] == "orders"


def test_the_response_of_the_application_arrives(proxy: Proxy, token: str):
    for status in (201, 400, 401, 403, 404, 418, 429, 500, 503):
        reply = proxy.request(f"/status/{status}", token)
        assert (reply.status, reply.json["target"]) == (status, f"/status/{status}")


def test_a_request_with_two_tokens_is_rejected(proxy: Proxy, token: str):
    with assert_unreached(proxy.application):
        assert proxy.request("/", token, [("Authorization", f"Bearer {WRONG}")]).status in {400, 401}
        assert proxy.request("/", None, [("Authorization", f"Bearer {WRONG}, Bearer {token}")]).status == 400
    if proxy.name != "nginx":  # version 1.22 reads only the first
        with assert_unreached(proxy.application):
            assert proxy.request("/", token, [("Authorization", f"Bearer {token}")]).status == 400


def test_a_long_request_passes_and_the_check_gets_only_what_it_needs(proxy: Proxy, token: str):
    before = len(proxy.relay.checks())
    headers = [
        ("Cookie", f"c={'c' * 6500}"),
        ("Referer", f"https://page.example/{'r' * 4000}"),
        ("X-Other", "o" * 2000),
    ]
    target = f"/{'u' * 3000}?q={'q' * 3500}"
    assert_passed(proxy.request(target, token, headers), target=target)
    (check,) = proxy.relay.checks()[before:]
    names = {line.partition(b":")[0].decode().lower() for line in check.split(b"\r\n")[1:]}
    if proxy.name == "caddy":  # it removes headers only by name
        assert "cookie" not in names
    else:
        assert names <= NEEDED_BY_THE_CHECK
    assert names >= {"authorization", "referer", "x-forwarded-for"}


def test_a_token_with_many_long_scopes_passes(up: Up, proxy: Proxy):
    scopes = [f"orders:{number:02}{'s' * 115}" for number in range(39)]
    headers = assert_passed(proxy.request("/", issue(up, "orders", *scopes)))
    assert headers["x-token-scopes"].split() == ["orders", *scopes]


def test_a_large_body_is_streamed_to_the_application_and_not_to_the_edge(proxy: Proxy, token: str):
    block, blocks = os.urandom(65536), 128
    before = len(proxy.relay.checks())
    proxy.application.body_began.clear()
    connection = proxy.connection()
    connection.putrequest("POST", "/upload")
    connection.putheader("Authorization", f"Bearer {token}")
    connection.putheader("Content-Length", str(len(block) * blocks))
    connection.endheaders()
    for _ in range(blocks // 2):
        connection.send(block)
    assert proxy.application.body_began.wait(10)
    for _ in range(blocks // 2):
        connection.send(block)
    response = connection.getresponse()
    assert (
        Reply(response.status, {}, response.read()).json["sha256"]
        == hashlib.sha256(block * blocks).hexdigest()
    )
    connection.close()
    (check,) = proxy.relay.checks()[before:]
    assert len(check) < 2000


def test_a_client_that_waits_for_100_gets_a_response(proxy: Proxy, token: str):
    """Some proxies send 100 before the check."""
    reached = proxy.application.requests
    for value, status in ((token, 200), (WRONG, 401)):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            client.sendall(
                f"POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {value}\r\nContent-Length: 4\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            reader = client.makefile("rb")
            # Caddy sends its own and forwards the application's.
            while (line := reader.readline()).startswith(b"HTTP/1.1 100"):
                while reader.readline().strip():
                    pass
                client.sendall(b"body")
            assert int(line.split()[1]) == status
    assert proxy.application.requests == reached + 1


def test_a_websocket_is_opened(proxy: Proxy, token: str):
    for target, credential in (("/socket", token), (f"/socket?access_token={token}", None)):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            fields = [("Host", "x"), *WEBSOCKET]
            fields += [("Authorization", f"Bearer {credential}")] if credential else []
            lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
            client.sendall("\r\n".join([*lines, "", ""]).encode())
            reader = client.makefile("rb")
            assert reader.readline().split()[1] == b"101"
            while reader.readline().strip():
                pass
            arrived = reader.readline().decode()
            assert token not in arrived
            assert "x-token-id" in arrived.lower()
            client.sendall(b"hello\n")
            assert reader.readline() == b"hello\n"
    with assert_unreached(proxy.application):
        assert proxy.request("/socket", WRONG, WEBSOCKET).status == 401
        assert proxy.request("/socket", None, WEBSOCKET).status == 401


def test_no_other_protocol_upgrade_is_accepted(proxy: Proxy, token: str):
    """The requests after it would not be checked."""
    for protocol in ("h2c", "H2C", "websocket, h2c", "h2c, websocket", "TLS/1.0", "HTTP/2.0", "x"):
        for names in ("Upgrade", "Upgrade, HTTP2-Settings"):
            headers = [
                ("Connection", names),
                ("Upgrade", protocol),
                ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ]
            assert proxy.request("/", token, headers).status in {200, 400, 403, 426}, protocol


@pytest.mark.parametrize("name", ["haproxy", "envoy"])
def test_http_2_passes(up: Up, application: Application, tmp_path: Path, token: str, name: str):
    """Without TLS, with prior knowledge. nginx and Caddy offer HTTP/2 with TLS only, in these versions."""
    with run_proxy(name, up.port, application, tmp_path) as proxy:
        for value, status in ((token, "200"), (WRONG, "401")):
            curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
            curl += [
                "--http2-prior-knowledge",
                "-H",
                f"Authorization: Bearer {value}",
                f"http://127.0.0.1:{proxy.port}/x",
            ]
            assert subprocess.run(curl, capture_output=True, text=True, check=True).stdout == f"2 {status}"


# Rejected requests


@contextmanager
def suspend_tokens_service(up: Up) -> Iterator[None]:
    """Suspends the tokens service, so that it does not reply."""
    pids = up.pids("serve", "tokens")
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


ONCE = {"maxRequests": 1, "timeWindow": 86400}
REJECTIONS: dict[str, tuple[int, Callable[[Up], str | None]]] = {
    "no token": (401, lambda _: None),
    "a wrong token": (401, lambda _: WRONG),
    "an ambiguous token": (400, lambda _: "a b"),
    "another scope": (403, lambda up: issue(up, "invoices")),
    "another account": (403, lambda up: issue(up, "orders", account="alice")),
    "another address": (403, lambda up: issue(up, "orders", addresses=["10.0.0.0/8"])),
    "another page": (403, lambda up: issue(up, "orders", referrers=["https://page.example/*"])),
    "over the limit": (429, lambda up: issue(up, "orders", rateLimit=ONCE)),
    "undecided": (503, lambda up: issue(up, "orders")),
}


@pytest.mark.parametrize("case", REJECTIONS)
def test_a_rejection_arrives_as_the_edge_wrote_it(up: Up, proxy: Proxy, case: str):
    status, make = REJECTIONS[case]
    token = make(up)
    if case == "over the limit":
        limits = proxy.request("/", token).headers
        assert proxy.name == "caddy" or limits["ratelimit"].startswith('"token";r=0;')
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    with (
        assert_unreached(proxy.application),
        suspend_tokens_service(up) if case == "undecided" else nullcontext(),
    ):
        reply = proxy.request("/", token)
        direct = httpx.get(f"{up.http}/auth?scope=orders", headers=headers, trust_env=False)
    assert (reply.status, direct.status_code) == (status, status), (reply, direct.text)
    assert reply.json == direct.json()
    for name in ("content-type", "www-authenticate", "ratelimit-policy"):
        assert reply.headers.get(name) == direct.headers.get(name), name
    for name in ("retry-after", "ratelimit"):
        assert (name in reply.headers) == (name in direct.headers)
    if proxy.name != "envoy" or status != 503:  # Envoy forwards nothing of a 503
        assert re.fullmatch(r"req_\w+", reply.headers["x-request-id"])
        assert reply.headers["cache-control"] == "no-store"
    assert "x-token-problem" not in reply.headers


def test_a_connection_can_be_reused_after_a_rejection(proxy: Proxy, token: str):
    connection = proxy.connection()
    assert send(connection, "/", WRONG, method="HEAD").status == 401
    assert_passed(send(connection, "/", token))
    assert send(connection, "/", WRONG, method="POST", body=b"body").status == 401
    assert_passed(send(connection, "/", token))
    connection.close()


def test_a_request_that_is_too_long_for_the_edge_is_reported(proxy: Proxy, token: str):
    long = "a" * 7000
    with assert_unreached(proxy.application):
        if proxy.name == "envoy":
            reply = proxy.request(f"/{long}{long}", token)
            assert (reply.status, reply.json["code"]) == (414, "uri_too_long")
        target = f"/?x={long}&access_token={token}"
        reply = proxy.request(
            target, long, [("Referer", f"https://x/{long}")] * (1 + (proxy.name == "envoy"))
        )
        assert (reply.status, reply.json["code"]) == (431, "header_fields_too_large")


def test_a_preflight_request_requires_a_token(proxy: Proxy):
    with assert_unreached(proxy.application):
        assert proxy.request("/", None, PREFLIGHT, method="OPTIONS").status == 401


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_preflight_request_passes_with_the_cors_lines(
    up: Up, application: Application, tmp_path: Path, name: str
):
    with run_proxy(name, up.port, application, tmp_path, cors=True) as proxy:
        spoofed = [("X-Token-Id", "spoofed"), ("X_Token_Id", "spoofed"), ("X-Token-Scopes", "*")]
        reply = proxy.request("/a?b=1", WRONG, [*PREFLIGHT, *spoofed], method="OPTIONS")
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://page.example")
        names = {header.replace("_", "-") for header, _ in reply.json["headers"]}
        assert not names & {*IDENTITY, "authorization"}
        with assert_unreached(application):
            assert proxy.request("/", None, PREFLIGHT[:1], method="OPTIONS").status == 401
            assert proxy.request("/", None, PREFLIGHT[1:], method="OPTIONS").status == 401
            assert proxy.request("/", None, PREFLIGHT).status == 401
            assert proxy.request("/", None, PREFLIGHT, method="POST").status == 401


# Attacks by a client


def test_a_token_in_the_query_is_used_only_for_the_check(proxy: Proxy, token: str):
    for sent, arrived in (
        (f"/a?access_token={token}", "/a"),
        (f"/a?access_token={token}&b=1", "/a?b=1"),
        (f"/a?b=%2F1&access_token={token}&c=2", "/a?b=%2F1&c=2"),
        (f"/a%2Fb/?b&access_token={token}", "/a%2Fb/?b"),
        (f"/a?my_access_token=1&access_token={token}", "/a?my_access_token=1"),
    ):
        reply = proxy.request(sent)
        assert_passed(reply, target=arrived)
        assert token not in reply.body.decode()
    with assert_unreached(proxy.application):
        assert proxy.request(f"/a?access_token={WRONG}").status == 401
        assert proxy.request("/a?access_token=").status == 400
        assert proxy.request(f"/a?access_token={token}&access_token={token}").status == 400
        assert proxy.request(f"/access_token={token}").status == 401
        assert proxy.request(f"/?x=access_token={token}").status == 401
    for name in ("access%5Ftoken", "%61ccess_token"):
        reply = proxy.request(f"/a?{name}={token}")
        assert reply.status in {200, 401}
        assert token not in reply.body.decode()
        reply = proxy.request(f"/a?access_token={token}&{name}={token}")
        assert reply.status == 400


def test_proxy_headers_from_a_client_are_ignored(up: Up, proxy: Proxy, token: str):
    other = issue(up, "invoices")
    with assert_unreached(proxy.application):
        for value in (None, other):
            for name in ("X-Forwarded-Uri", "X-Original-URI", "X-Tallystick-Scope", "x-tallystick-scope"):
                for content in (f"/?access_token={token}", "invoices"):
                    reply = proxy.request("/", value, [(name, content)])
                    assert reply.status == (401 if value is None else 403), (name, content)


def test_the_target_of_a_request_does_not_change_the_decision(up: Up, proxy: Proxy, token: str):
    other = issue(up, "invoices")
    with assert_unreached(proxy.application):
        for target in (
            "/?scope=invoices",
            "/a?scope=invoices&account=x",
            "?scope=invoices",
            "http://127.0.0.1?scope=invoices",
            "//auth?scope=invoices",
            "/auth?scope=invoices",
            "/../auth?scope=invoices",
            "/..%2fauth?scope=invoices",
            "/../health/live",
            "/..%2f..%2fhealth/live",
            "/%2e%2e/%2e%2e/health/live",
            "/..;/health/live",
            "/#/../health/live",
            "*?scope=invoices",
            "/tallystick",
            "/tallystick?scope=invoices",
        ):
            for value in (other, WRONG, None):
                assert proxy.request(target, value).status in {400, 401, 403, 404}, target
    assert_passed(proxy.request("/x?scope=nothing&account=nobody", token))


def test_methods_of_the_proxy_itself_are_rejected_without_a_token(proxy: Proxy):
    with assert_unreached(proxy.application):
        for method, target in (("TRACE", "/"), ("CONNECT", "127.0.0.1:1"), ("CONNECT", "/")):
            assert proxy.request(target, WRONG, method=method).status in {400, 401, 403, 404, 405}


def test_the_client_s_address_is_that_of_its_connection(up: Up, proxy: Proxy):
    value = issue(up, "orders", addresses=["127.0.0.2/32", "10.0.0.0/8"])
    assert_passed(proxy.request("/", value, source="127.0.0.2"))
    with assert_unreached(proxy.application):
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
            for address in ("127.0.0.2", "10.0.0.1", "for=10.0.0.1"):
                reply = proxy.request("/", value, [(name, address)])
                assert (reply.status, reply.json["code"]) == (403, "address_not_allowed")
                assert reply.json["address"] == "127.0.0.1"


def test_the_referrer_is_checked(up: Up, proxy: Proxy):
    value = issue(up, "orders", referrers=["https://page.example/*"])
    assert_passed(proxy.request("/", value, [("Referer", "https://page.example/a")]))
    with assert_unreached(proxy.application):
        assert proxy.request("/", value, [("Referer", "https://evil.example/a")]).status == 403
        assert proxy.request("/", value).status == 403


# Failures


def assert_unavailable(reply: Reply) -> None:
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["code"] == "unavailable"
    assert "www-authenticate" not in reply.headers


def test_without_an_edge_every_request_is_rejected(proxy: Proxy, token: str):
    proxy.relay.stop()
    try:
        with assert_unreached(proxy.application):
            for value in (token, WRONG, None):
                for method in ("GET", "POST"):
                    assert_unavailable(proxy.request("/", value, method=method))
    finally:
        proxy.relay.start()
    until(lambda: proxy.request("/", token).status == 200)


def test_while_the_edge_is_silent_every_request_is_rejected(proxy: Proxy, token: str):
    proxy.relay.drop()
    proxy.relay.silent = True
    try:
        with assert_unreached(proxy.application):
            start = time.monotonic()
            assert_unavailable(proxy.request("/", token))
            assert TIMEOUT_S / 2 < time.monotonic() - start < TIMEOUT_S * 3
    finally:
        proxy.relay.silent = False
        proxy.relay.drop()
    until(lambda: proxy.request("/", token).status == 200)


def test_a_token_is_required_even_without_the_application(up: Up, tmp_path: Path, token: str, proxy: Proxy):
    with Application() as unreachable:
        pass
    with run_proxy(proxy.name, up.port, unreachable, tmp_path) as other:
        assert other.request("/", token).status in {502, 503}
        assert other.request("/", WRONG).status == 401


def test_connections_to_the_edge_are_reused(proxy: Proxy, token: str):
    before = len(proxy.relay.connections)
    for _ in range(20):
        assert_passed(proxy.request("/", token))
    assert len(proxy.relay.connections) - before <= 3
    proxy.relay.drop()  # as an edge does with idle connections
    assert_passed(proxy.request("/", token))

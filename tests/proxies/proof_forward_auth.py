"""Forward-auth with real proxies: `.venv/bin/pytest tests/proxies/proof_forward_auth.py`.

A command of its own, since it wants Debian's nginx, caddy and haproxy (`apt-get install nginx-light caddy haproxy`).
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.conftest import until
from tests.ports import free_port
from tests.system.conftest import ROOT, Up, up  # noqa: F401

CONFIGURATIONS = ROOT / "deploy" / "proxies"
COMMANDS = {
    "nginx.conf": ["nginx", "-g", "daemon off; pid {folder}/pid; error_log stderr;", "-p", "{folder}", "-c"],
    "Caddyfile": ["caddy", "run", "--adapter", "caddyfile", "--config"],
    "haproxy.cfg": ["haproxy", "-db", "-f"],
}


class Application(BaseHTTPRequestHandler):
    """Answers every request with what it got."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        echo = {"method": self.command, "path": self.path, "headers": headers, "body": body.decode()}
        payload = json.dumps(echo).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(params=COMMANDS)
def proxy(request, up: Up, application: int, tmp_path: Path) -> Iterator[str]:  # noqa: F811
    """The base URL of a proxy that runs with our own configuration, but for the ports."""
    port = free_port()

    def with_ports(name: str) -> Path:
        text = (CONFIGURATIONS / name).read_text()
        text = (
            text.replace(":3000", f":{up.port}")
            .replace(":8000", f":{application}")
            .replace(":8080", f":{port}")
        )
        path = tmp_path / name
        path.write_text(text.replace("deploy/proxies/haproxy.lua", f"{tmp_path}/haproxy.lua"))
        return path

    with_ports("haproxy.lua")
    command = [part.format(folder=tmp_path) for part in COMMANDS[request.param]]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen([*command, str(with_ports(request.param))], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(url) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "output").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def issued(up: Up, *options: str) -> dict[str, str]:  # noqa: F811
    value = up.command("tokens", "issue", *options).stdout.strip()
    return {"authorization": f"Bearer {value}"}


def test_who_may_pass_passes_with_method_path_and_body(up: Up, proxy: str):  # noqa: F811
    headers = issued(up, "-s", "orders")
    spoofed = {"X-Token-Id": "tok_spoofed", "X-Token-Account": "spoofed", "x-token-scopes": "*"}
    answer = httpx.post(f"{proxy}/a/b?c=d", headers=headers | spoofed, content=b"body", trust_env=False)
    assert answer.status_code == 200, answer.text
    echo = answer.json()
    assert (echo["method"], echo["path"], echo["body"]) == ("POST", "/a/b?c=d", "body")
    got = [(name, value) for name, value in echo["headers"] if name.startswith("x-token-")]
    assert dict(got)["x-token-id"].startswith("tok_0")
    assert dict(got)["x-token-scopes"] == "orders"
    assert dict(got).get("x-token-account", "") == ""
    assert len(got) == len(dict(got))
    assert "spoofed" not in answer.text
    assert headers["authorization"] not in answer.text


@pytest.mark.parametrize(
    ("options", "status"),
    [(None, 401), ((), 401), (("-s", "invoices"), 403), (("-s", "orders", "--address", "10.0.0.0/8"), 403)],
)
def test_a_refusal_keeps_its_status_and_challenge(up: Up, proxy: str, options, status: int):  # noqa: F811
    headers = {} if options is None else {"authorization": f"Bearer {'f' * 64}"}
    if options:
        headers = issued(up, *options)
    answer = httpx.get(proxy, headers=headers | {"X-Token-Id": "tok_spoofed"}, trust_env=False)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="tallystick"')
    assert "spoofed" not in answer.text


def test_a_client_that_cannot_set_headers_sends_its_token_in_the_query(up: Up, proxy: str):  # noqa: F811
    value = issued(up, "-s", "orders")["authorization"].removeprefix("Bearer ")
    assert httpx.get(f"{proxy}/a?access_token={value}", trust_env=False).status_code == 200
    assert httpx.get(f"{proxy}/a?access_token={'f' * 64}", trust_env=False).status_code == 401
    other = {"X-Forwarded-Uri": f"/?access_token={'f' * 64}", "X-Original-URI": f"/?access_token={'f' * 64}"}
    for query, header in (("", value), (f"?access_token={value}", "f" * 64)):
        headers = other | {"authorization": f"Bearer {header}"}
        status = 200 if header == value else 401
        assert httpx.get(f"{proxy}/a{query}", headers=headers, trust_env=False).status_code == status


def test_a_used_up_limit_is_429(up: Up, proxy: str):  # noqa: F811
    headers = issued(up, "-s", "orders", "--rate-limit", "2/86400")
    statuses = [httpx.get(proxy, headers=headers, trust_env=False).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]

"""The environment of a proxy under test: the application behind it, the relay between it and the edge, and a client."""

import hashlib
import json
import shutil
import socket
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.paths import ROOT
from tests.support.polling import until
from tests.support.ports import free_port

CONFIGURATIONS = ROOT / "deploy" / "proxies"

WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Program(NamedTuple):
    """How a proxy is started.

    Args:
        configuration: the name of its file.
        command: the command; the path of the configuration is added.
        package: what to install if it is missing.
    """

    configuration: str
    command: tuple[str, ...]
    package: str


PROGRAMS = {
    "nginx": Program(
        "nginx.conf",
        ("nginx", "-g", "daemon off; pid {folder}/pid; error_log stderr;", "-p", "{folder}", "-c"),
        "Debian's nginx-light",
    ),
    "caddy": Program("Caddyfile", ("caddy", "run", "--adapter", "caddyfile", "--config"), "Debian's caddy"),
    "haproxy": Program("haproxy.cfg", ("haproxy", "-db", "-f"), "Debian's haproxy"),
    "envoy": Program(
        "envoy.yaml",
        ("envoy", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c"),
        "tests/e2e/proxies/requirements.txt",
    ),
}


class Application(ThreadingHTTPServer):
    """Echoes every request, with the status that its path names, and echoes the data that follows an upgrade."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = 0
        self.body_began = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Application

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._respond
        raise AttributeError(name)

    def _respond(self) -> None:
        self.server.requests += 1
        if "upgrade" in self.headers:
            return self._echo()
        digest, size = hashlib.sha256(), 0
        for block in self._body():
            digest.update(block)
            size += len(block)
            self.server.body_began.set()
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        payload = json.dumps(
            {
                "method": self.command,
                "target": self.path,
                "headers": headers,
                "size": size,
                "sha256": digest.hexdigest(),
            }
        ).encode()
        status = self.path.removeprefix("/status/")
        self.send_response(int(status) if status.isdecimal() else 200)
        self.send_header("access-control-allow-origin", "https://page.example")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        return None

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        remaining = int(self.headers.get("content-length", 0))
        while remaining and (block := self.rfile.read1(min(remaining, 65536))):
            remaining -= len(block)
            yield block

    def _echo(self) -> None:
        self.close_connection = True
        key = f"{self.headers['sec-websocket-key']}{WEBSOCKET_GUID}".encode()
        accept = b64encode(sha1(key, usedforsecurity=False).digest())
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
            + self.headers["upgrade"].encode()
            + b"\r\nSec-WebSocket-Accept: "
            + accept
            + b"\r\n\r\n"
        )
        self.wfile.write(json.dumps([self.path, dict(self.headers.items())]).encode() + b"\n")
        while block := self.connection.recv(4096):
            self.wfile.write(block)

    def log_message(self, *_: object) -> None:
        pass


class Relay:
    """Between a proxy and the edge: records what the proxy sends, and can be unreachable or silent."""

    def __init__(self, edge_port: int) -> None:
        self.port = free_port()
        self.silent = False
        self.connections: list[bytearray] = []
        """What the proxy sent, by connection."""
        self._edge_port = edge_port
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Stops listening, so that connections are refused."""
        if self._listener is not None:
            # Closing alone does not wake up the accepting thread, so the port would still be served.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """Closes every connection, as an edge does with idle ones."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def checks(self) -> list[bytes]:
        """The heads of the requests to the edge, and whatever else was sent."""
        return [head for sent in self.connections for head in bytes(sent).split(b"\r\n\r\n") if head]

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                edge = socket.create_connection(("127.0.0.1", self._edge_port))
                self._open += [client, edge]
                self.connections.append(sent := bytearray())
                threading.Thread(target=self._copy, args=(client, edge, sent), daemon=True).start()
                threading.Thread(target=self._copy, args=(edge, client, None), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, sent: bytearray | None) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                if sent is not None:
                    sent += block
                if not self.silent:
                    target.sendall(block)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Proxy:
    """A running proxy with the configuration from `CONFIGURATIONS`, except for the ports.

    Args:
        name: its name in `PROGRAMS`.
        port: the port on which it listens.
        relay: its connection to the edge.
        application: the application behind it.
    """

    def __init__(self, name: str, port: int, relay: Relay, application: Application) -> None:
        self.name = name
        self.port = port
        self.relay = relay
        self.application = application

    def connection(self, source: str = "127.0.0.1") -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=15, source_address=(source, 0))

    def request(
        self,
        target: str = "/",
        token: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        *,
        method: str = "GET",
        body: bytes = b"",
        source: str = "127.0.0.1",
    ) -> Reply:
        """Sends one request with its target and headers unchanged."""
        connection = self.connection(source)
        try:
            return send(connection, target, token, headers, method=method, body=body)
        finally:
            connection.close()


def send(
    connection: HTTPConnection,
    target: str,
    token: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    *,
    method: str = "GET",
    body: bytes = b"",
) -> Reply:
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if token is not None:
        connection.putheader("Authorization", f"Bearer {token}")
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    if body:
        connection.send(body)
    response = connection.getresponse()
    fields = {name.lower(): value for name, value in response.getheaders()}
    once = [name.lower() for name, _ in response.getheaders() if name.lower() != "server"]
    assert len(once) == len(set(once)), response.getheaders()
    return Reply(response.status, fields, response.read())


@contextmanager
def run_proxy(
    name: str, edge_port: int, application: Application, folder: Path, *, cors: bool = False
) -> Iterator[Proxy]:
    """A new proxy; with `cors`, its lines for pre-flight requests are uncommented."""
    program = PROGRAMS[name]
    if not shutil.which(program.command[0]):
        raise RuntimeError(f"{program.command[0]} is missing: install {program.package}")
    relay, port = Relay(edge_port), free_port()

    def write(file: str) -> Path:
        text = (CONFIGURATIONS / file).read_text()
        for old, new in ((3000, relay.port), (8000, application.server_port), (8080, port)):
            text = text.replace(f":{old}", f":{new}").replace(f"port_value: {old}", f"port_value: {new}")
        text = text.replace("deploy/proxies/haproxy.lua", f"{folder}/haproxy.lua")
        path = folder / file
        path.write_text(text.replace("#cors ", "") if cors else text)
        return path

    write("haproxy.lua")
    command = [part.format(folder=folder) for part in program.command]
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([*command, str(write(program.configuration))], stdout=file, stderr=file)
    try:
        until(lambda: _listens(port) or process.poll() is not None, 20)
        assert process.poll() is None, output.read_text()
        yield Proxy(name, port, relay, application)
    finally:
        process.terminate()
        process.wait(10)
        relay.stop()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False

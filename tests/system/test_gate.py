"""Bad input over a raw socket: each request gets the documented response, never a 5xx, a hang or a traceback."""

import resource
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.raw_http import GET, JSON, NEW, POST, request, send, status
from tests.support.up import Up


@pytest.mark.parametrize(
    ("line", "headers", "body", "expected"),
    [
        # The credential
        (GET, (), "", 200),
        (GET, ("Authorization: bearer TOKEN\r\n",), "", 200),
        (GET, ("Authorization: BEARER   TOKEN  \r\n",), "", 200),
        (GET, ("Authorization: Bearer\r\n",), "", 400),
        (GET, ("Authorization: Bearer \r\n",), "", 400),
        (GET, ("Authorization: Bearer\tTOKEN\r\n",), "", 400),
        (GET, ("Authorization: Bearer TOKEN TOKEN\r\n",), "", 400),
        (GET, ("Authorization: Bearer TOKEN, Bearer TOKEN\r\n",), "", 400),
        (GET, ("Authorization: Bearer TOKEN,Bearer TOKEN\r\n",), "", 400),
        (GET, ("Authorization: Bearer TOKEN,\r\n",), "", 401),
        (GET, ("Authorization: Bearer TOKEN\r\n", "Authorization: Bearer TOKEN\r\n"), "", 400),
        (GET, ("Authorization: Bearer TOKEN\r\n", "Authorization: Basic eA==\r\n"), "", 400),
        (GET, ("Authorization: Basic TOKEN\r\n",), "", 401),
        (GET, ("Authorization: Token TOKEN\r\n",), "", 401),
        (GET, ("Authorization: BearerTOKEN\r\n",), "", 401),
        (GET, ("Authorization: TOKEN\r\n",), "", 401),
        (GET, ("Authorization: \r\n",), "", 401),
        (GET, ("Authorization: Bearer x\r\n",), "", 401),
        (GET, ("Authorization: Bearer \xff\xfe\r\n",), "", 401),
        (GET, (f"Authorization: Bearer {'a' * 63}\r\n",), "", 401),
        (GET, (f"Authorization: Bearer {'a' * 64}\r\n",), "", 401),
        (GET, (f"Authorization: Bearer {'a' * 65}\r\n",), "", 401),
        (GET, (f"Authorization: Bearer {'a' * 5000}\r\n",), "", 401),
        (GET, ("Authorization: x\r\n", "Cookie: access_token=TOKEN\r\n"), "", 401),
        (f"{GET}?access_token=TOKEN", ("Authorization: Basic eA==\r\n",), "", 200),
        (f"{GET}?access%5ftoken=TOKEN", ("Authorization: Basic eA==\r\n",), "", 200),
        (f"{GET}?access_token=TOKEN", (), "", 400),
        (f"{GET}?access_token=TOKEN&access_token=TOKEN", ("Authorization: x\r\n",), "", 400),
        (f"{GET}?access_token=", ("Authorization: x\r\n",), "", 400),
        (f"{GET}?access_token", ("Authorization: x\r\n",), "", 400),
        (f"{GET}?ACCESS_TOKEN=TOKEN", ("Authorization: x\r\n",), "", 401),
        (f"{GET}?access_token[]=TOKEN", ("Authorization: x\r\n",), "", 401),
        (f"{GET}?access_token=%ff", ("Authorization: x\r\n",), "", 401),
        (f"{GET}?access_token=%zz", ("Authorization: x\r\n",), "", 401),
        (f"{GET}?access_token=%EF%BC%91", ("Authorization: x\r\n",), "", 401),
        # Methods and paths
        ("HEAD /v1/self", (), "", 200),
        ("OPTIONS /v1/self", ("Authorization: x\r\n",), "", 204),
        ("TRACE /v1/self", (), "", 405),
        ("CONNECT x:1", (), "", 405),
        ("PUT /v1/self", (), "", 405),
        ("BREW /v1/self", (), "", 405),
        ("GET //v1/self", ("Authorization: x\r\n",), "", 401),
        ("GET /v1/../metrics", ("Authorization: x\r\n",), "", 401),
        ("GET /v1/%2e%2e/metrics", ("Authorization: x\r\n",), "", 401),
        ("GET /v1%2fself", ("Authorization: x\r\n",), "", 401),
        ("GET /nowhere", ("Authorization: x\r\n",), "", 401),
        ("GET /nowhere", (), "", 404),
        ("GET /v1/tokens/%00", (), "", 404),
        ("GET /v1/tokens/%ff", (), "", 404),
        ("GET /v1/account/%2e%2e", (), "", 404),
        # HTTP framing and headers
        (GET, ("Host: y\r\n",), "", 400),
        (GET, ("a : b\r\n",), "", 400),
        (GET, ("a: b\r\n c\r\n",), "", 400),
        (GET, ("a: \0\r\n",), "", 400),
        (f"{GET}?{'a' * 9000}", (), "", 414),
        (f"{GET}?{'a' * 100_000}", (), "", 414),
        (GET, tuple(f"a{n}: b\r\n" for n in range(110)), "", 431),
        (GET, (f"a: {'b' * 20_000}\r\n",), "", 431),
        (GET, (f"a: {'b' * 2_000_000}\r\n",), "", 431),
        (POST, (JSON, "Content-Length: 18\r\n", "Content-Length: 3\r\n"), NEW, 400),
        (POST, (JSON, "Content-Length: +3\r\n"), NEW, 400),
        (POST, (JSON, "Content-Length: -1\r\n"), NEW, 400),
        (POST, (JSON, "Content-Length: 0x3\r\n"), NEW, 400),
        (POST, (JSON, "Transfer-Encoding: chunked\r\n"), f"12\r\n{NEW}\r\n0\r\n\r\n", 201),
        (POST, (JSON, "Transfer-Encoding: chunked\r\n"), "zz\r\n\r\n", 400),
        (POST, (JSON, "Transfer-Encoding: chunked\r\n"), "-1\r\n\r\n", 400),
        (POST, (JSON, "Transfer-Encoding: chunked\r\n"), f"{'f' * 18}\r\n\r\n", 400),
        (POST, (JSON, "Content-Length: 999999\r\n"), "x" * 70_000, 413),
        (POST, (JSON, "Content-Length: 2\r\n", "Content-Encoding: gzip\r\n"), "{}", 415),
        (POST, ("Content-Type: text/plain\r\nContent-Length: 18\r\n",), NEW, 415),
        (POST, ("Content-Length: 18\r\n",), NEW, 415),
        (POST, (JSON, "Content-Length: 18\r\n"), NEW, 201),
    ],
)
def test_each_request_gets_the_documented_response(
    up: Up, line: str, headers: tuple[str, ...], body: str, expected: int
):
    start = time.monotonic()
    actual, received, _ = send(up, request(up, line, *headers, body=body))
    assert actual == expected, received[:400]
    assert time.monotonic() - start < 1.2
    assert up.admin_token.encode() not in received
    assert b"Traceback" not in received


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/self\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + b"x" * 190,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 100,
        b"GET /v1/\0self HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/self HTTP/9.9\r\nHost: x\r\n\r\n",
    ],
)
def test_a_connection_that_is_not_http_is_rejected_and_closed(up: Up, raw: bytes):
    actual, _, closed = send(up, raw)
    assert actual in {400, None}
    assert closed


def test_a_missing_host_is_rejected(up: Up):
    assert send(up, request(up, GET, host=""))[0] == 400
    assert send(up, request(up, GET, host="Host: \r\n"))[0] == 400


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /health/live", 200),
        ("HEAD /health/live", 200),
        ("GET /health/ready", 200),
        ("OPTIONS /health/ready", 204),
        ("OPTIONS /", 204),
        ("GET /v1/self", 400),
        ("GET /", 400),
    ],
)
def test_a_load_balancer_checks_health_without_a_host(up: Up, line: str, expected: int):
    """As HAProxy's `option httpchk` does."""
    actual, received, closed = send(up, f"{line} HTTP/1.0\r\n\r\n".encode())
    assert (actual, closed) == (expected, True), received
    assert send(up, f"{line} HTTP/1.1\r\n\r\n".encode())[0] == 400
    assert send(up, f"{line} HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".encode())[0] == 400


def test_a_request_with_two_lengths_is_the_last_of_its_connection(up: Up):
    """Read by its chunks alone, as RFC 9112 section 6.3 allows: nothing can be smuggled in behind it."""
    chunks = f"12\r\n{NEW}\r\n0\r\n\r\n"
    hidden = request(up, GET).decode("latin-1")
    for length in (3, len(chunks), len(chunks + hidden)):
        lengths = f"Connection: keep-alive\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n"
        actual, received, closed = send(up, request(up, POST, JSON, lengths, body=chunks + hidden))
        assert actual == 201
        assert received.count(b"HTTP/1.1 ") == 1
        assert closed


def test_incomplete_requests_and_unread_responses_are_closed_in_time(up: Up):
    """All at once, since each waits for its timeout."""
    unread = socket.create_connection(("127.0.0.1", up.port), timeout=30)
    request_count = 200
    unread.sendall(b"GET /docs/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * request_count)
    half_header = socket.create_connection(("127.0.0.1", up.port), timeout=11)
    half_body = socket.create_connection(("127.0.0.1", up.port), timeout=16)
    half_header.sendall(b"GET /v1/self HTTP/1.1\r\nHost: x\r\n")
    half_body.sendall(request(up, POST, JSON, "Content-Length: 50\r\n", body="{"))
    with half_header, half_body:
        assert half_header.recv(100) == b""
        assert status(half_body.recv(4096)) == 408
    with unread:
        # Without a timeout, the rest would be sent as soon as the client reads.
        until(lambda: not is_connected(up.port, unread.getsockname()[1]), 30)
        received = b""
        with suppress(OSError):
            while part := unread.recv(1 << 20):
                received += part
        assert 0 < received.count(b"HTTP/1.1 200") < request_count


def is_connected(port: int, client: int) -> bool:
    """Whether the server still has its connection with a client's port."""
    addresses = f":{port:04X} 0100007F:{client:04X} 01"
    return any(addresses in line for line in Path("/proc/net/tcp").read_text().splitlines())


def test_five_thousand_idle_connections_block_no_other_client(up: Up):
    """Connections without any request, and kept-alive ones."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 6000 if hard == resource.RLIM_INFINITY else min(6000, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    idle = []
    try:
        for number in range(limit - 1000):
            idle.append(socket.create_connection(("127.0.0.1", up.port), timeout=2))
            if number % 2:
                idle[-1].sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert send(up, request(up, GET))[0] == 200
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_none_of_the_input_was_logged(up: Up):
    assert "Traceback" not in up.printed

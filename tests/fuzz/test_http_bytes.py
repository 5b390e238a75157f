"""A request with a few changed bytes gets a response or a closed connection, and never a server error."""

import socket
from collections.abc import Callable

from hypothesis import given, strategies as st

from tests.support.raw_http import JSON, NEW, POST, request, status
from tests.support.up import Up

PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\xff", b":", b"%", b"%00", b"%2e%2e/", b"?", b"&", b"#"),
    *(
        b"Authorization: Bearer x\r\n",
        b"Host: y\r\n",
        b"Content-Length: 1\r\n",
        b"access_token=x",
        b"HTTP/9.9",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: keep-alive\r\n",
        b"{",
        b'"',
    ),
]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 4), st.one_of(st.sampled_from(PIECES), st.binary(max_size=4))),
    min_size=1,
    max_size=4,
)


def test_a_request_with_changed_bytes_gets_no_server_error(up: Up, fuzz: Callable[..., None]):
    originals = [
        request(up, "GET /v1/tokens?page=0&query=a"),
        request(up, "GET /v1/self?access_token=TOKEN", "Authorization: Basic eA==\r\n"),
        request(up, POST, JSON, f"Content-Length: {len(NEW)}\r\n", body=NEW),
        request(up, POST, JSON, "Transfer-Encoding: chunked\r\n", body=f"12\r\n{NEW}\r\n0\r\n\r\n"),
        request(up, "GET /auth?scope=api", "X-Original-URI: /?access_token=TOKEN\r\n"),
        request(up, "OPTIONS /v1/account/alice"),
    ]

    @given(original=st.sampled_from(originals), changes=edits)
    def check(original: bytes, changes: list[tuple[float, int, bytes]]) -> None:
        sent = original
        for position, dropped, piece in changes:
            at = int(position * len(sent))
            sent = sent[:at] + piece + sent[at + dropped :]
        with socket.create_connection(("127.0.0.1", up.port), timeout=1.5) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while part := connection.recv(65536):
                    received += part
            except ConnectionResetError:
                pass  # closed before it read the whole request
        assert (status(received) or 400) < 500, sent
        assert up.admin_token.encode() not in received

    fuzz(check, examples=300)
    assert "Traceback" not in up.printed

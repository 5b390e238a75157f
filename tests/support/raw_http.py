"""HTTP over a raw socket."""

import socket

from tests.support.up import Up

JSON = "Content-Type: application/json\r\n"
GET = "GET /v1/self"
POST = "POST /v1/tokens"
NEW = '{"scopes":["api"]}'


def send(up: Up, request: bytes, timeout_s: float = 2) -> tuple[int | None, bytes, bool]:
    """Sends raw bytes and answers the status, everything received, and whether the server closed."""
    with socket.create_connection(("127.0.0.1", up.port), timeout=timeout_s) as connection:
        received = b""
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                received += part
                if b"\r\n\r\n" in received:
                    connection.settimeout(0.2)
        except TimeoutError:
            return status(received), received, False
        except ConnectionError:
            pass
        return status(received), received, True


def status(received: bytes) -> int | None:
    return int(received.split()[1]) if received.startswith(b"HTTP/1.") else None


def request(up: Up, line: str, *headers: str, body: str = "", host: str = "Host: x\r\n") -> bytes:
    token = f"Authorization: Bearer {up.admin_token}\r\n"
    fields = "".join(headers).replace("TOKEN", up.admin_token)
    if "Authorization" not in fields:
        fields += token
    if "Connection" not in fields:
        fields += "Connection: close\r\n"
    return f"{line.replace('TOKEN', up.admin_token)} HTTP/1.1\r\n{host}{fields}\r\n{body}".encode("latin-1")

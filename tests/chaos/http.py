"""A small and fast HTTP/1.1 client for load: one connection, one request at a time."""

import asyncio
from typing import NamedTuple


class Response(NamedTuple):
    """``status`` is 0 if there was no response: connection refused, cut off, or timed out."""

    status: int
    headers: bytes = b""
    body: bytes = b""


class Connection:
    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self,
        method: str,
        target: str,
        token: str,
        body: bytes | None = None,
        *,
        timeout_s: float = 2,
        key: str | None = None,
    ) -> Response:
        head = f"{method} {target} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n"
        if key is not None:
            head += f"Idempotency-Key: {key}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(head.encode() + b"\r\n" + (body or b""))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.close()
            return Response(0)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> Response:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        headers = await reader.readuntil(b"\r\n\r\n")
        length = headers.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]
        body = await reader.readexactly(int(length)) if length else b""
        return Response(int(headers[9:12]), headers, body)

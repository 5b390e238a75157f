"""The outermost ASGI application: bounds the request in size and time, takes the credential off it before
anything else reads it, and adds to answers what every answer has.
"""

import asyncio
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Send

from services.edge.credentials import take
from services.edge.errors import Refused, problem
from shared.ids import new_id

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_TARGET_BYTES = 8 * 1024
CLOSE = {"connection": "close"}
BODY_TIMEOUT_S = 10.0
"""How long a client may take to send its body."""


class Front:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if refused := _unacceptable(scope):
            await _send(refused, send)
            return
        credential, headers, query = take(scope["headers"], scope["query_string"])
        scope["headers"] = headers
        scope["query_string"] = query
        state = scope.setdefault("state", {})
        state["credential"] = credential
        state["request_id"] = new_id("req_")
        head = scope["method"] == "HEAD"
        if head:
            scope["method"] = "GET"
        receive = _in_time(receive)
        send = _completed(send, state, head=head, in_query=credential.in_query)
        again: Any = {**scope, "path": "/", "raw_path": b"/", "state": state}
        unrouted = _Unrouted(send, state)
        await self._app(scope, receive, unrouted)
        if unrouted.found_none:
            # Which paths there are is told to those with a token only: the route of the unknown asks for one.
            await self._app(again, receive, send)


class _Unrouted:
    """Withholds the 404 of a path that leads to no route, and so to nobody who asked for a token."""

    def __init__(self, send: Send, state: dict[str, Any]) -> None:
        self._send = send
        self._state = state
        self.found_none = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.found_none = message["status"] == 404 and "token" not in self._state
        if not self.found_none:
            await self._send(message)


def _unacceptable(scope: Any) -> Refused | None:
    headers = scope["headers"]
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES
    ):
        return Refused("header_fields_too_large")
    target = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if target > MAX_TARGET_BYTES:
        return Refused("uri_too_long")
    names = [name for name, _ in headers]
    # granian shows a missing Host as an empty one.
    if names.count(b"host") != 1 or (b"host", b"") in headers:
        return Refused("bad_request", "one Host header is needed", headers=CLOSE)
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        return Refused("bad_request", "chunked is the only transfer coding", headers=CLOSE)
    return None


def _in_time(receive: Receive) -> Receive:
    """A body that does not come is given up: the server itself would wait for ever."""
    deadline: float | None = None

    async def receiving() -> Any:
        nonlocal deadline
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + BODY_TIMEOUT_S
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - loop.time()))
        except TimeoutError:
            raise Refused("request_timeout", headers=CLOSE) from None
        # Before the body's end this is a client that left or one whose chunks cannot be read.
        if message["type"] == "http.disconnect":
            raise Refused("bad_request", "the body ended before its end", headers=CLOSE)
        return message

    return receiving


def _completed(send: Send, state: dict[str, Any], *, head: bool, in_query: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"x-request-id", state["request_id"].encode())]
            headers += state.get("rate_limit", ())
            if in_query and message["status"] < 300:
                # A token in a URL stays in histories and caches; the answer at least must not (RFC 6750, 5.3).
                headers = [
                    *((name, value) for name, value in headers if name != b"cache-control"),
                    (b"cache-control", b"private, no-store"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            message["headers"] = headers
        elif head and message["type"] == "http.response.body":
            message["body"] = b""
        await send(message)

    return sending


async def _send(refused: Refused, send: Send) -> None:
    status, headers, body = problem(refused)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})

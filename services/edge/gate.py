"""What every request passes: first as ASGI, before anything reads it; then as Litestar's guard, when the route
and with it the required scope is known.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Send

from services.edge.checker import Checker
from services.edge.credentials import Credential, take
from services.edge.errors import Refused, problem
from shared.contracts import Token
from shared.scopes import covers

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_TARGET_BYTES = 8 * 1024

PUBLIC = "public"
"""The required scope of a route that needs no token."""
ANY = "any"
"""The required scope of a route that needs a token and no scope."""


class Front:
    """The outermost ASGI application: bounds the request, takes the credential off it, serves HEAD as GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if refused := _oversized(scope):
            await _send(refused, send)
            return
        credential, headers, query = take(scope["headers"], scope["query_string"])
        scope["headers"] = headers
        scope["query_string"] = query
        scope.setdefault("state", {})["credential"] = credential
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
            send = _without_body(send)
        if credential.in_query:
            send = _uncached(send)
        await self._app(scope, receive, send)


async def authorize(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar's guard for every route.

    Raises:
        Refused: the first of syntax, token, scope and account that does not fit.
    """
    if connection.scope["method"] == "OPTIONS":  # type: ignore[typeddict-item]  # websockets are off
        return
    required: str = handler.opt["scope"]
    if required == PUBLIC:
        return
    checker: Checker = connection.app.state.checker
    credential: Credential = connection.scope["state"]["credential"]
    token = await checker.check(credential)
    if required != ANY:
        if not covers(token.scopes, required):
            raise Refused("insufficient_scope", scope=required)
        if token.account is not None and connection.path_params.get("account") != token.account:
            raise Refused("account_mismatch")
    connection.scope["state"]["token"] = token


def token_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Token:
    """The token that let this request in."""
    token: Token = connection.scope["state"]["token"]
    return token


def _oversized(scope: Any) -> Refused | None:
    headers = scope["headers"]
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES
    ):
        return Refused("header_fields_too_large")
    target = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if target > MAX_TARGET_BYTES:
        return Refused("uri_too_long")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts != 1 and scope["http_version"] == "1.1":
        return Refused("bad_request", "one Host header is needed")
    return None


async def _send(refused: Refused, send: Send) -> None:
    status, headers, body = problem(refused)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _without_body(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending


def _uncached(send: Send) -> Send:
    """A token in a URL stays in histories and caches; the answer at least must not (RFC 6750, section 5.3)."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *((name, value) for name, value in message["headers"] if name != b"cache-control"),
                (b"cache-control", b"private, no-store"),
                (b"referrer-policy", b"no-referrer"),
            ]
        await send(message)

    return sending

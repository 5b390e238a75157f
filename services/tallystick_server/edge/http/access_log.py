"""The access log: a JSON object for each request, or for each rejected one. Off unless it is configured.

It never contains a token. Query strings and the path and query of referrers are omitted, and path segments that may be a
token are hidden.
"""

import re
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from litestar.types import ASGIApp, Message, Receive, Send

from tallystick.errors import AuthError
from tallystick.tokens.format import PREFIX
from tallystick_server.edge.authentication.context import Accepted, Decision, RequestContext
from tallystick_server.edge.http.line_writer import LineWriter
from tallystick_server.edge.http.request_counter import METHODS, OTHER, UNROUTED

MAX_REJECTIONS_PER_S = 100
"""Applies if only rejections are logged, so that clients which guess tokens do not fill the disk."""
SHORTEST_TOKEN = 16
"""The minimum length of an imported token."""
HIDDEN = "*"
"""Replaces a path segment that may contain a token, and all that follows."""

_PUBLIC_ID = re.compile(rb"tok_[0-9a-z]{26}")
_HOST = re.compile(r"[a-z0-9.:_-]{1,253}", re.ASCII)


class Record(NamedTuple):
    """A line of the access log.

    Args:
        time: when the request arrived, in seconds since the epoch.
        request: the request's id, as in ``X-Request-Id``.
        token: the public id of the token, if it exists or existed.
        account: the account that the token is bound to.
        address: the client's address.
        referrer: the origin of the referrer.
        method: the method; ``other`` for an unknown one.
        route: the template of the route.
        path: the path, without segments that may be a token.
        status: the status of the response; None without a response.
        duration_s: the time until the response was sent, in seconds.
        bytes: the size of the response's body.
        reason: why the request was rejected, in more detail than in the response.
    """

    time: float
    request: str | None
    token: str | None
    account: str | None
    address: str | None
    referrer: str | None
    method: str
    route: str
    path: str
    status: int | None
    duration_s: float
    bytes: int
    reason: str | None


class AccessLog:
    """The outermost layer of the application, which every response passes.

    Args:
        app: the application.
        writer: writes the lines.
        rejected_only: whether only requests with an error response are logged.
    """

    def __init__(self, app: ASGIApp, writer: LineWriter, *, rejected_only: bool) -> None:
        self._app = app
        self._writer = writer
        self._rejected_only = rejected_only
        self._second, self._in_second = 0, 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            with self._writer.running():
                await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        arrived, started, method = time.time(), time.perf_counter(), scope["method"]
        status: int | None = None
        size = 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message["body"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            if self._is_logged(status, int(arrived)):
                context: RequestContext = scope["state"]["context"]
                decision: Decision | None = scope["state"].get("decision")
                token = decision.token if isinstance(decision, Accepted) else None
                error = decision if isinstance(decision, AuthError) else None
                route = scope.get("path_template", UNROUTED)
                self._writer.put(
                    Record(
                        time=arrived,
                        request=context.request_id,
                        token=token.id if token else error.token_id if error else None,
                        account=token.account if token else None,
                        address=context.address,
                        referrer=_origin(context.referrer),
                        method=method if method in METHODS else OTHER,
                        route=route,
                        path=masked_path(scope["raw_path"], route),
                        status=status,
                        duration_s=round(time.perf_counter() - started, 6),
                        bytes=size,
                        reason=error.log_reason if error else scope["state"].get("code"),
                    )
                )

    def _is_logged(self, status: int | None, second: int) -> bool:
        if not self._rejected_only:
            return True
        if status is not None and status < 400:
            return False
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > MAX_REJECTIONS_PER_S:
            self._writer.dropped += 1
            return False
        return True


def masked_path(raw_path: bytes, route: str) -> str:
    """A path with `HIDDEN` in place of what may be a token, which has `SHORTEST_TOKEN` characters or more.

    Segments that match a literal segment of the route's template are shown, and public ids. Other segments are shown if
    they are too short for a token together with the slashes around them, which a token may contain too.

    Args:
        raw_path: the path as it was sent, percent-encoded.
        route: the template, such as ``/v1/tokens/{token_id}/log``; or `UNROUTED`.
    """
    segments = raw_path.split(b"/")[1:]
    templates = route.split("/")[1:] if route != UNROUTED else []
    masked: list[str] = []
    length = 1  # since the last segment that is no part of a token
    for number, segment in enumerate(segments):
        text = quote(segment, safe="%!$&'()*+,;=:@~")
        is_beyond = number >= len(templates)
        length += len(text) + 1
        if (not is_beyond and text == templates[number]) or _PUBLIC_ID.fullmatch(segment):
            length = 1
        elif length >= SHORTEST_TOKEN or segment.startswith(PREFIX.encode()) or (is_beyond and templates):
            masked.append(HIDDEN)
            break
        masked.append(text)
    return "/" + "/".join(masked)


def _origin(referrer: str | None) -> str | None:
    """The scheme, host and port of a referrer. Its path, query and user may contain a token."""
    try:
        parts = urlsplit(referrer or "")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host or not _HOST.fullmatch(host):
        return None
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"

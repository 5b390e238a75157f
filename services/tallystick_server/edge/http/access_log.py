"""The access log: a JSON object for each request, or for each rejected one. Off unless it is configured.

It never holds a token. A query string and the path and query of a referrer are left out, and of a path only what cannot be
a token is shown, in whatever form one was sent.
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
"""Applies where only rejections are logged, so that guessing tokens does not fill the disk."""
SHORTEST_TOKEN = 16
"""Characters of the shortest value that may be imported as a token."""
HIDDEN = "*"
"""Stands for a part of a path that may be a token, or hold one."""

_PUBLIC_ID = re.compile(rb"tok_[0-9a-z]{26}")
_HOST = re.compile(r"[a-z0-9.:_-]{1,253}", re.ASCII)


class Record(NamedTuple):
    """One request, as it is written.

    Args:
        time: when it came, in seconds since the epoch.
        request: its id, as in ``X-Request-Id``.
        token: the public id of its token, if that exists or existed.
        account: the account that the token is bound to.
        address: the client's address.
        referrer: the origin of the page that sent it.
        method: its method; ``other`` for one that does not exist.
        route: the template of its route.
        path: its path, without what may be a token.
        status: the status of its answer; None if it got none.
        duration_s: until the answer was sent, in seconds.
        bytes: how many the answer's body has.
        reason: why it was rejected; more exactly than the client was told.
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
    """Wraps the whole application, so that every answer passes it.

    Args:
        app: the application.
        writer: where the lines go.
        rejected_only: only requests with an error as their answer are logged.
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
        came, began, method = time.time(), time.perf_counter(), scope["method"]
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
            if self._is_logged(status, int(came)):
                context: RequestContext = scope["state"]["context"]
                decision: Decision | None = scope["state"].get("decision")
                token = decision.token if isinstance(decision, Accepted) else None
                error = decision if isinstance(decision, AuthError) else None
                route = scope.get("path_template", UNROUTED)
                self._writer.put(
                    Record(
                        time=came,
                        request=context.request_id,
                        token=token.id if token else error.token_id if error else None,
                        account=token.account if token else None,
                        address=context.address,
                        referrer=_origin(context.referrer),
                        method=method if method in METHODS else OTHER,
                        route=route,
                        path=shown_path(scope["raw_path"], route),
                        status=status,
                        duration_s=round(time.perf_counter() - began, 6),
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


def shown_path(raw_path: bytes, route: str) -> str:
    """A path without what may be a token, which has `SHORTEST_TOKEN` characters or more.

    What matches a literal segment of the route's template is shown; and so is what stands for a parameter, if it is a
    public id or too short for a token. Where no route is known, leading segments are shown that are too short together.

    Args:
        raw_path: as it was sent, percent-encoded.
        route: the template, such as ``/v1/tokens/{token_id}/log``; or `UNROUTED`.
    """
    segments = raw_path.split(b"/")[1:]
    templates = route.split("/")[1:] if route != UNROUTED else []
    shown: list[str] = []
    length = 0
    for number, segment in enumerate(segments):
        text = quote(segment, safe="%!$&'()*+,;=:@~")
        length += len(text) + 1
        if number < len(templates):
            is_shown = text == templates[number] or _is_no_token(segment)
        else:
            is_shown = not templates and length < SHORTEST_TOKEN and _is_no_token(segment)
        if not is_shown:
            shown.append(HIDDEN)
            break
        shown.append(text)
    return "/" + "/".join(shown)


def _is_no_token(segment: bytes) -> bool:
    short = len(segment) < SHORTEST_TOKEN and not segment.startswith(PREFIX.encode())
    return short or _PUBLIC_ID.fullmatch(segment) is not None


def _origin(referrer: str | None) -> str | None:
    """The scheme, host and port of a referrer: its path, its query or its user may hold a token."""
    try:
        parts = urlsplit(referrer or "")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host or not _HOST.fullmatch(host):
        return None
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"

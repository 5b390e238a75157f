"""Allows pages of other origins to call the API from a browser (CORS, as the Fetch standard defines it).

CORS is enabled only if origins are configured, and never for the dashboard and forward-auth. Cookies are not allowed: a
page authenticates with a token in a header.
"""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    # Not at runtime: every command loads the edge's settings, and the framework is slow to import.
    from litestar.types import ASGIApp, Message, Receive, Send

ANY_ORIGIN = "*"
MAX_AGE_S = 600
METHODS = b"GET, HEAD, POST, PATCH, DELETE"
REQUEST_HEADERS = b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match"
EXPOSED_HEADERS = b", ".join(
    (
        b"ETag",
        b"Location",
        b"RateLimit",
        b"RateLimit-Policy",
        b"Retry-After",
        b"WWW-Authenticate",
        b"X-RateLimit-Limit",
        b"X-RateLimit-Remaining",
        b"X-RateLimit-Reset",
        b"X-Request-Id",
    )
)

_NOT_SHARED = re.compile(r"/+(?:admin|auth)(?:/|$)")

Fields = tuple[tuple[bytes, bytes], ...]

_VARY: Fields = ((b"vary", b"Origin"),)
_ALLOW_ANY: Fields = ((b"access-control-allow-origin", b"*"),)
_SHARED: Fields = ((b"access-control-expose-headers", EXPOSED_HEADERS),)
_PREFLIGHT: Fields = (
    (b"access-control-allow-methods", METHODS),
    (b"access-control-allow-headers", REQUEST_HEADERS),
    (b"access-control-max-age", b"%d" % MAX_AGE_S),
)


def read_origins(text: str) -> frozenset[str]:
    """The origins in a comma-separated list, or `ANY_ORIGIN` alone.

    Raises:
        ValueError: an entry is not an origin as browsers send it, such as ``https://app.example.com``. ``null`` is
            rejected, since any page can have that origin.
    """
    origins = frozenset(part.strip() for part in text.split(",") if part.strip())
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise ValueError("* must be the only entry")
    for origin in origins - {ANY_ORIGIN}:
        parts = urlsplit(origin)
        default_port = {"http": 80, "https": 443}.get(parts.scheme)
        if (
            default_port is None
            or not parts.hostname
            or parts.port == default_port  # browsers leave it out
            or origin != f"{parts.scheme}://{parts.netloc}"
            or parts.netloc != parts.netloc.lower()
            or re.search(r"[^a-z0-9.:\[\]_-]", parts.netloc)
        ):
            raise ValueError("not an origin")
    return origins


class Cors:
    """Adds the CORS headers to every response, including errors and responses to pre-flight requests.

    A response to another origin has no CORS headers, so the browser hides it from the page.
    """

    def __init__(self, app: "ASGIApp", origins: frozenset[str]) -> None:
        self._app = app
        self._any = ANY_ORIGIN in origins
        self._allowed = {origin.encode() for origin in origins}

    async def __call__(self, scope: Any, receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and not _NOT_SHARED.match(scope["path"]):
            send = _with_fields(send, self._fields(scope))
        await self._app(scope, receive, send)

    def _fields(self, scope: Any) -> Fields:
        headers = dict(scope["headers"])
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        fields = _PREFLIGHT if is_preflight else _SHARED
        if self._any:
            return (*_ALLOW_ANY, *fields)
        # A cache must not reuse a response for another origin.
        origin = headers.get(b"origin", b"")
        if origin not in self._allowed:
            return _VARY
        return (*_VARY, (b"access-control-allow-origin", origin), *fields)


def _with_fields(send: "Send", fields: Fields) -> "Send":
    async def sending(message: "Message") -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *fields]
        await send(message)

    return sending

"""The JSON response. Litestar's own response class spends a quarter of a small request's time on building and copying
headers that the edge does not need; see `bench/checks.py`.
"""

from typing import Any

import msgspec
from litestar import Response
from litestar.types import ASGIApp, HTTPResponseStartEvent, Receive, Scope, Send


class JsonResponse(Response[Any]):
    """The response class of handlers that return data. A handler that sets headers or cookies, or responds with another
    media type, returns a `litestar.Response` instead.
    """

    def __init__(self, content: Any, *, status_code: int, **_: Any) -> None:
        self.content = content
        self.status_code = status_code

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]  # the only method that Litestar calls
        body = msgspec.json.encode(self.content)
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": self.status_code or 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"cache-control", b"no-store"),
                (b"content-length", str(len(body)).encode()),
            ],
        }

        async def respond(_: Scope, __: Receive, send: Send) -> None:
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": False})

        return respond

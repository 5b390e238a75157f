"""What a handler returned, as JSON. Litestar's own response spends a quarter of a small request's time on building
and copying headers that our answers do not have; see `bench/checks.py`.
"""

from typing import Any

import msgspec
from litestar import Response
from litestar.types import ASGIApp, HTTPResponseStartEvent, Receive, Scope, Send


class JsonResponse(Response[Any]):
    """The response class of every handler that returns data. One that sets headers or cookies, or answers anything
    but JSON, returns a `litestar.Response` of its own.
    """

    def __init__(self, content: Any, *, status_code: int, **_: Any) -> None:
        self.content = content
        self.status_code = status_code

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override]  # all that is called
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

        async def answer(_: Scope, __: Receive, send: Send) -> None:
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": False})

        return answer

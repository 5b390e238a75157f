"""What the edge is measured against, each on the same server with the same settings: the same route without a
check, an application without a framework, and the obvious way to write a check.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import nats
from litestar import Litestar, Request, get
from litestar.types import ASGIApp, Receive, Scope, Send
from nats.aio.msg import Msg

from services.edge.app import litestar
from services.edge.cache import Cache
from services.edge.front import Front
from services.edge.gate import Gate
from services.edge.settings import Settings
from shared.settings import load


@get("/small", opt={"scope": "api"})
async def small() -> dict[str, str]:
    return {"status": "up"}


def edge() -> ASGIApp:
    """Ours, with one more route."""
    settings = load(Settings, os.environ)
    gate = Gate(Cache(settings.cached_tokens, settings.cached_tokens), settings.trusted_networks())
    app = litestar(settings, gate)
    app.register(small)
    return Front(app, gate)


def bare_litestar() -> Litestar:
    """The same route, open to everyone."""
    return Litestar([small], openapi_config=None, logging_config=None)


def bare_asgi() -> ASGIApp:
    """An answer of the same size as forward-auth's, from no framework at all."""
    headers = [
        (b"x-token-id", b"tok_" + b"0" * 26),
        (b"x-token-account", b""),
        (b"x-token-scopes", b"api"),
        (b"cache-control", b"no-store"),
        (b"x-request-id", b"req_" + b"0" * 26),
        (b"content-length", b"0"),
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})  # type: ignore[misc,arg-type]
                if message["type"] == "lifespan.shutdown":
                    return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def asking() -> Litestar:
    """The obvious check: each request asks over NATS; see `respond`."""

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        app.state.client = await nats.connect(os.environ["BENCH_NATS_URL"])
        yield
        await app.state.client.close()

    @get("/small")
    async def check(request: Request[Any, Any, Any]) -> dict[str, str]:
        token = request.headers["authorization"].removeprefix("Bearer ")
        await request.app.state.client.request("bench.check", token.encode(), timeout=2)
        return {"status": "up"}

    return Litestar([check], lifespan=[connected], openapi_config=None, logging_config=None)


async def respond() -> None:
    """The other side of `asking`: one select for each request."""
    pool = await asyncpg.create_pool(os.environ["BENCH_DATABASE_URL"], min_size=8, max_size=8)
    client = await nats.connect(os.environ["BENCH_NATS_URL"])

    async def answer(message: Msg) -> None:
        row = await pool.fetchrow("select id from token where digest = $1", message.data[:32])
        await message.respond(str(row).encode())

    async def tasks(message: Msg) -> None:
        import asyncio

        asyncio.ensure_future(answer(message))

    await client.subscribe("bench.check", cb=tasks)

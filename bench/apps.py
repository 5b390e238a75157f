"""What the edge is measured against, each on the same server with the same settings: the same route without a
check, an application without a framework, and the obvious ways to write a check.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import nats
import uvloop
from litestar import Litestar, Request, get
from litestar.exceptions import NotAuthorizedException
from litestar.types import ASGIApp, Receive, Send
from nats.aio.msg import Msg

from tallystick_server.edge.app import authenticated, routes
from tallystick_server.edge.authentication.forward_auth import headers
from tallystick_server.edge.authorization.requirements import Scope
from tallystick_server.edge.http.errors import FORWARD_AUTH_PATH, ProblemError, error_response, raw_response
from tallystick_server.edge.settings import Settings
from tallystick_server.runtime.settings import load
from tests.support.examples import TOKEN

SELECT = "select id from tokens.token where digest = $1 and revoked is null"


@get("/small", requires=Scope("api"))
async def small() -> dict[str, str]:
    return {"status": "up"}


def edge() -> ASGIApp:
    """Ours, with one more route."""
    settings = load(Settings, os.environ)
    return authenticated(settings, routes(settings, small))


def bare_litestar() -> Litestar:
    """The same route, open to everyone."""
    return Litestar([get("/small")(small.fn)], openapi_config=None, logging_config=None)


def bare_asgi() -> ASGIApp:
    """The same answers as the edge's, byte for byte, from no framework and without a check."""
    request_id = {"x-request-id": "req_" + "0" * 34}
    answers = {
        "/auth": raw_response(200, {**headers(TOKEN), **request_id}),
        "/401": error_response(ProblemError("invalid_token", headers=request_id), "/v1/self"),
        "/403": error_response(
            ProblemError("insufficient_scope", scope="other", headers=request_id), FORWARD_AUTH_PATH
        ),
    }

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        answer = answers[scope["path"]]
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    return app


async def _lifespan(receive: Receive, send: Any) -> None:
    kind = ""
    while kind != "lifespan.shutdown":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})


def asking() -> Litestar:
    """The obvious check over NATS: each request asks `respond`."""

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        app.state.client = await nats.connect(os.environ["BENCH_NATS_URL"], inbox_prefix="_INBOX.edge")
        yield
        await app.state.client.close()

    @get("/small")
    async def check(request: Request[Any, Any, Any]) -> dict[str, str]:
        reply = await request.app.state.client.request("tallystick.v1.tokens.bench", _digest(request))
        if not reply.data:
            raise NotAuthorizedException
        return {"status": "up"}

    return Litestar([check], lifespan=[connected], openapi_config=None, logging_config=None)


def selecting() -> Litestar:
    """The obvious check without NATS: each request asks PostgreSQL."""

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        async with asyncpg.create_pool(os.environ["BENCH_DATABASE_URL"], min_size=8, max_size=8) as pool:
            app.state.pool = pool
            yield

    @get("/small")
    async def check(request: Request[Any, Any, Any]) -> dict[str, str]:
        if not await request.app.state.pool.fetchval(SELECT, _digest(request)):
            raise NotAuthorizedException
        return {"status": "up"}

    return Litestar([check], lifespan=[connected], openapi_config=None, logging_config=None)


def _digest(request: Request[Any, Any, Any]) -> bytes:
    return hashlib.sha256(request.headers["authorization"].removeprefix("Bearer ").encode()).digest()


async def respond() -> None:
    """The other side of `ask`: one select for each message."""
    tasks = set()
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE_URL"], min_size=8, max_size=8) as pool:
        client = await nats.connect(os.environ["BENCH_RESPONDER_URL"])

        async def answer(message: Msg) -> None:
            await message.respond(str(await pool.fetchval(SELECT, message.data) or "").encode())

        async def take(message: Msg) -> None:
            task = asyncio.create_task(answer(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await client.subscribe("tallystick.v1.tokens.bench", cb=take)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(respond())

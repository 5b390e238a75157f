"""The edge as an ASGI application: connects to NATS when it starts, and answers 503 until that is there."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar
from litestar.types import ASGIApp

from services.edge import errors, gate
from services.edge.cache import Cache
from services.edge.checker import Checker
from services.edge.coherence import Coherence
from services.edge.front import Front
from services.edge.quotas import Quotas
from services.edge.readiness import Readiness
from services.edge.routes import accounts, operations, standards, tokens
from services.edge.settings import Settings
from services.edge.usage import Usage
from shared import bus, events, rpc
from shared.lifecycle import Stop, background

MAX_BODY_BYTES = 64 * 1024


def create_app(settings: Settings) -> ASGIApp:
    """The whole edge: Litestar behind the gate's front."""
    return Front(_litestar(settings))


def _litestar(settings: Settings) -> Litestar:
    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stop = _StopThisWorker()
            client = await stack.enter_async_context(bus.connect(settings.nats_url, "edge", stop))
            producer = await stack.enter_async_context(events.producer(client, "edge"))
            await stack.enter_async_context(producer.thread("edge"))
            usage = Usage(client)
            stack.push_async_callback(usage.flush)
            await stack.enter_async_context(background(usage.report(), stop))
            app.state.usage = usage
            app.state.trusted_proxies = settings.trusted_networks()
            app.state.client = client
            tokens = rpc.Hedged(client)
            cache = Cache(settings.cached_tokens, settings.cached_tokens)
            app.state.checker = Checker(tokens, cache)
            app.state.quotas = Quotas(tokens)
            await stack.enter_async_context(Coherence(client, cache).kept())
            app.state.readiness = Readiness(client)
            yield

    app = Litestar(
        [*tokens.HANDLERS, *accounts.HANDLERS, *standards.HANDLERS, *operations.HANDLERS],
        guards=[gate.authorize],
        lifespan=[connected],
        exception_handlers={Exception: errors.answer},
        openapi_config=None,
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            # Litestar's own answer to OPTIONS holds no data and needs no token.
            if handler.http_methods != {"OPTIONS"} and "scope" not in handler.opt:
                raise RuntimeError(f"{route.path} names no scope")
            if body := handler.parsed_fn_signature.parameters.get("data"):
                handler.opt["body"] = body.annotation
    return app


class _StopThisWorker(Stop):
    """A worker whose NATS connection is closed for good ends, and is started anew by whoever started it."""

    def __call__(self, *, exit_code: int = 0) -> None:
        super().__call__(exit_code=exit_code)
        os.kill(os.getpid(), signal.SIGTERM)

"""The edge as an ASGI application. It connects to NATS when it starts, and responds with 503 until it is connected."""

import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from litestar import HttpMethod, Litestar, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from tallystick import connection as bus, producer as events
from tallystick.coherence.transport import NatsTransport
from tallystick.metrics import catalogue
from tallystick.producer import Producer
from tallystick.verifier import Verifier
from tallystick_server.edge.api import (
    accounts,
    emailengine,
    oauth,
    prometheus as prometheus_route,
    reference,
    tokens,
)
from tallystick_server.edge.api.health import Readiness
from tallystick_server.edge.api.openapi import document
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.authentication.middleware import AuthenticationMiddleware
from tallystick_server.edge.authorization.guard import authorize
from tallystick_server.edge.authorization.requirements import PUBLIC
from tallystick_server.edge.authorization.routes import declare_rules, public_paths
from tallystick_server.edge.dashboard.assets import load_assets
from tallystick_server.edge.dashboard.pages import TEMPLATES
from tallystick_server.edge.dashboard.routes import DASHBOARD
from tallystick_server.edge.dashboard.sessions import Attempts, CookieNames
from tallystick_server.edge.http import errors
from tallystick_server.edge.http.access_log import AccessLog
from tallystick_server.edge.http.cors import Cors
from tallystick_server.edge.http.line_writer import LineWriter
from tallystick_server.edge.http.proxies import TrustedProxies
from tallystick_server.edge.http.request_counter import RequestCounter
from tallystick_server.edge.http.responses import JsonResponse
from tallystick_server.edge.settings import Settings
from tallystick_server.runtime.lifecycle import Shutdown, background

MAX_BODY_BYTES = 64 * 1024
_TYPE = re.compile(r":\w+(?=})")  # of a path parameter


def create_app(settings: Settings) -> ASGIApp:
    """The whole edge: the routes, the authentication middleware, and around it CORS and the access log if configured."""
    app: ASGIApp = authenticated(settings, routes(settings))
    if origins := settings.allowed_origins():
        app = Cors(app, origins)
    if settings.access_log != "off":
        writer = LineWriter(settings.access_log_file())
        app = AccessLog(app, writer, rejected_only=settings.access_log == "rejected")
    return app


def authenticated(settings: Settings, app: Litestar) -> AuthenticationMiddleware:
    """The routes behind the authentication middleware."""
    verifier, proxies = Verifier(settings.cache_max_tokens), TrustedProxies(settings.trusted_networks())
    counter = RequestCounter(verifier.recorder)
    app.state.verifier, app.state.proxies, app.state.counter = verifier, proxies, counter
    return AuthenticationMiddleware(app, verifier, proxies, public_paths(app), counter)


def routes(settings: Settings, *extra: HTTPRouteHandler) -> Litestar:
    """The edge's routes and extra ones, to be served behind the authentication middleware."""

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stop = _StopThisWorker()
            client = await stack.enter_async_context(
                bus.connect(settings.nats_url, "edge", stop.unavailable, authority=settings.nats_ca)
            )
            producer = await stack.enter_async_context(events.producer(client, "edge"))
            await stack.enter_async_context(producer.thread("edge", settings.thread))
            verifier: Verifier = app.state.verifier
            _report(producer, verifier, app.state.counter)
            transport = NatsTransport(client)
            await stack.enter_async_context(verifier.run(transport))
            await stack.enter_async_context(background(verifier.usage.report(transport), stop))
            app.state.client = client
            app.state.readiness = Readiness(client)
            yield

    handlers = [
        *tokens.HANDLERS,
        *emailengine.HANDLERS,
        *accounts.HANDLERS,
        *oauth.HANDLERS,
        *prometheus_route.HANDLERS,
        *(reference.HANDLERS if settings.docs else ()),
        *(DASHBOARD if settings.dashboard else ()),
        *extra,
    ]
    app = Litestar(
        [_options(handlers), *handlers],
        before_request=authorize,
        response_class=JsonResponse,
        lifespan=[connected],
        exception_handlers={Exception: errors.handle_exception},
        template_config=TEMPLATES,
        openapi_config=None,  # replaced by a more detailed one, see `tallystick_server.edge.api.openapi`
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )
    declare_rules(app, before_request=authorize)
    app.state.attempts = Attempts()
    app.state.cookie_names = CookieNames()
    app.state.docs = reference.load_docs(msgspec.json.encode(document(app)))
    app.state.assets = load_assets()
    return app


def _report(producer: Producer, verifier: Verifier, counter: RequestCounter) -> None:
    """Registers the edge's gauges, and reports its counters with the producer's reports."""

    def count_decisions() -> None:
        usage = verifier.usage
        recorder.count(catalogue.USES_DROPPED, usage.dropped)
        usage.dropped = 0
        for result, count in usage.take_results().items():
            recorder.count(catalogue.TOKEN_CHECKS, count, result=result)
        for reason, count in usage.take_ended().items():
            recorder.count(catalogue.REVOKED_TOKEN_USES, count, reason=reason)

    producer.recorder = recorder = verifier.recorder
    recorder.gauge(catalogue.EDGES, lambda: 1)
    recorder.gauge(catalogue.LEASES, lambda: verifier.cache.has_lease(verifier.clock()))
    recorder.gauge(catalogue.CACHED_TOKENS, lambda: len(verifier.cache))
    producer.before_report += [lambda: counter.report(producer), count_decisions]


def _options(handlers: Sequence[HTTPRouteHandler]) -> HTTPRouteHandler:
    """A route that responds to OPTIONS on every path without a handler for it. It needs no token and returns no data.

    Litestar's own response lists the methods of only one handler, even if a path has several.
    """
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            allowed = methods.setdefault(_TYPE.sub("", path), {"OPTIONS"})
            allowed |= handler.http_methods
            allowed |= {"HEAD"} if "GET" in allowed else set()
    with_options = {
        path for handler in handlers if "OPTIONS" in handler.http_methods for path in handler.paths
    }

    @route(
        sorted({path for handler in handlers for path in handler.paths} - with_options),
        http_method=HttpMethod.OPTIONS,
        requires=PUBLIC,
        status_code=204,
        include_in_schema=False,
    )
    async def options(request: HttpRequest) -> Response[None]:
        allowed = methods[request.scope["path_template"]]
        return Response(None, status_code=204, headers={"allow": ", ".join(sorted(allowed))})

    return options


class _StopThisWorker(Shutdown):
    """Stops a worker whose NATS connection is permanently closed. The supervisor starts a new one."""

    def __call__(self, *, exit_code: int = 0) -> None:
        super().__call__(exit_code=exit_code)
        os.kill(os.getpid(), signal.SIGTERM)

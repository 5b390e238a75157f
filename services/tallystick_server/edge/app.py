"""The edge as an ASGI application: connects to NATS when it starts, and answers 503 until that is there."""

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
from tallystick.coherence.cache import Cache
from tallystick.coherence.invalidation import Coherence
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
from tallystick_server.edge.authentication.middleware import TOKEN_NEEDED, Front
from tallystick_server.edge.authorization.guard import PUBLIC, Gate, HttpRequest, authorize
from tallystick_server.edge.dashboard.assets import load_assets
from tallystick_server.edge.dashboard.pages import TEMPLATES
from tallystick_server.edge.dashboard.routes import DASHBOARD
from tallystick_server.edge.dashboard.sessions import Attempts, CookieNames
from tallystick_server.edge.http import errors
from tallystick_server.edge.http.access_log import AccessLog
from tallystick_server.edge.http.cors import Cors
from tallystick_server.edge.http.line_writer import LineWriter
from tallystick_server.edge.http.parameters import query_of
from tallystick_server.edge.http.responses import JsonResponse
from tallystick_server.edge.settings import Settings
from tallystick_server.runtime.lifecycle import Stop, background

MAX_BODY_BYTES = 64 * 1024
_TYPE = re.compile(r":\w+(?=})")  # of a path parameter


def create_app(settings: Settings) -> ASGIApp:
    """The whole edge: Litestar behind the gate's front, and around that what is configured."""
    gate = Gate(Cache(settings.cached_tokens, settings.cached_tokens), settings.trusted_networks())
    app: ASGIApp = Front(litestar(settings, gate), gate)
    if origins := settings.allowed_origins():
        app = Cors(app, origins)
    if settings.access_log != "off":
        writer = LineWriter(settings.access_log_file())
        app = AccessLog(app, gate, writer, rejected_only=settings.access_log == "rejected")
    return app


def litestar(settings: Settings, gate: Gate) -> Litestar:
    """The edge's routes, to be served behind the gate's front."""

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stop = _StopThisWorker()
            client = await stack.enter_async_context(
                bus.connect(settings.nats_url, "edge", stop.unavailable, authority=settings.nats_authority)
            )
            producer = await stack.enter_async_context(events.producer(client, "edge"))
            await stack.enter_async_context(producer.thread("edge", settings.thread))
            gate.connect(client)
            gate.measured_by(producer)
            stack.push_async_callback(gate.usage.flush, client)
            await stack.enter_async_context(background(gate.usage.report(client), stop))
            await stack.enter_async_context(gate.quotas.recalled_by(client))
            await stack.enter_async_context(Coherence(client, gate.cache).kept())
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
    ]
    app = Litestar(
        [_options(handlers), *handlers],
        before_request=authorize,
        response_class=JsonResponse,
        lifespan=[connected],
        exception_handlers={Exception: errors.answer},
        template_config=TEMPLATES,
        openapi_config=None,  # ours says more: see `tallystick_server.edge.api`
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )
    for each in app.routes:
        for handler in getattr(each, "route_handlers", ()):
            if "scope" not in handler.opt:
                raise RuntimeError(f"{each.path} names no scope")
            if (
                handler.opt["scope"] == PUBLIC
                and "OPTIONS" not in handler.http_methods
                and each.path.startswith(TOKEN_NEEDED)
            ):
                raise RuntimeError(f"{each.path} is public where nothing is")
            if [layer for layer in handler.ownership_layers if layer.before_request] != [app]:
                raise RuntimeError(f"{each.path} would go round the gate")
            handler.opt["query"] = query_of(handler, is_public=handler.opt["scope"] == PUBLIC)
            if handler.opt.get("account_in") == "query" and "account" not in handler.opt["query"].declared:
                raise RuntimeError(
                    f"{each.path} takes its account from a query parameter that it does not declare"
                )
            if body := handler.parsed_fn_signature.parameters.get("data"):
                handler.opt["body"] = body.annotation
                handler.opt["body_required"] = not body.has_default
                if (
                    not body.has_default
                    and "POST" in handler.http_methods
                    and _needs_nothing(body.annotation)
                ):
                    raise RuntimeError(f"{each.path} needs no field of its body, so its body needs a default")
            handler.opt["reads_body"] = bool(handler.opt.keys() & {"body", "form", "by"})
    app.state.attempts = Attempts()
    app.state.cookie_names = CookieNames()
    app.state.docs = reference.load_docs(msgspec.json.encode(document(app)))
    app.state.assets = load_assets()
    return app


def _needs_nothing(kind: type[msgspec.Struct]) -> bool:
    return not any(field.required for field in msgspec.structs.fields(kind))


def _options(handlers: Sequence[HTTPRouteHandler]) -> HTTPRouteHandler:
    """Answers OPTIONS on every path that does not do so itself, with no data and to anyone.

    Litestar's own answer names the methods of one handler only where a path has several.
    """
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            offered = methods.setdefault(_TYPE.sub("", path), {"OPTIONS"})
            offered |= handler.http_methods
            offered |= {"HEAD"} if "GET" in offered else set()
    answered = {path for each in handlers if "OPTIONS" in each.http_methods for path in each.paths}

    @route(
        sorted({path for each in handlers for path in each.paths} - answered),
        http_method=HttpMethod.OPTIONS,
        opt={"scope": PUBLIC},
        status_code=204,
        include_in_schema=False,
    )
    async def options(request: HttpRequest) -> Response[None]:
        offered = methods[request.scope["path_template"]]
        return Response(None, status_code=204, headers={"allow": ", ".join(sorted(offered))})

    return options


class _StopThisWorker(Stop):
    """A worker whose NATS connection is closed for good ends, and is started anew by whoever started it."""

    def __call__(self, *, exit_code: int = 0) -> None:
        super().__call__(exit_code=exit_code)
        os.kill(os.getpid(), signal.SIGTERM)

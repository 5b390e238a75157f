"""Statistics, metrics and health checks; and the response to unknown paths."""

import asyncio
import platform
from typing import Annotated, Any, Literal

from litestar import HttpMethod, Response, get, route
from litestar.params import QueryParameter
from msgspec import Struct
from nats.aio.client import Client

from tallystick import VERSION
from tallystick.contracts.metrics import (
    EXPOSITION,
    MAX_STATS_SECONDS,
    METRICS_STATS,
    TOKENS_STATS,
    AskExposition,
    AskMetricsStats,
    AskTokensStats,
)
from tallystick_server.edge.api.upstream import ask
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.authorization.requirements import PUBLIC, AnyToken, Scope
from tallystick_server.edge.http.errors import ProblemError
from tallystick_server.edge.http.negotiation import coding_weight, media_type_weight

LICENSE = "Apache-2.0"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT_FORMAT = "text/plain; version=0.0.4"  # Litestar adds the charset


class Health(Struct):
    status: Literal["up"] = "up"


class Stats(Struct):
    """Versions of the components, and counters.

    Args:
        accounts: the number of accounts.
        connections: the number of accounts by their latest reported state. EmailEngine's states are always present.
        counters: the number of events in the given period, by kind.
    """

    version: str
    license: str
    accounts: int
    python: str
    nats: str
    postgres: str
    connections: dict[str, int]
    counters: dict[str, int]


@get("/v1/stats", requires=Scope("api:stats:read"))
async def stats(
    request: HttpRequest,
    seconds: Annotated[
        int,
        QueryParameter(
            ge=0, le=MAX_STATS_SECONDS, description="length of the period that the counters cover, in seconds"
        ),
    ] = 3600,
) -> Stats:
    """Get versions and counters of recent events."""
    tokens, metrics = await asyncio.gather(
        ask(request, TOKENS_STATS, AskTokensStats()),
        ask(request, METRICS_STATS, AskMetricsStats(seconds=seconds)),
    )
    client: Client = request.app.state.client
    return Stats(
        version=VERSION,
        license=LICENSE,
        accounts=tokens.accounts,
        python=platform.python_version(),
        nats=_nats_version(client),
        postgres=tokens.postgres,
        connections=metrics.connections,
        counters=metrics.counters,
    )


def _nats_version(client: Client) -> str:
    version = client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}"


@get(
    "/metrics",
    requires=Scope("metrics"),
    media_types=(TEXT_FORMAT, OPENMETRICS),
    # Scrapers send parameters of other exporters too, such as `name[]`, which filters their metrics.
    other_parameters="ignored",
    media_type=TEXT_FORMAT,
)
async def metrics(request: HttpRequest) -> Response[bytes]:
    """Get the metrics in Prometheus' text format 0.0.4, or in OpenMetrics if the client accepts only that."""
    accept = ",".join(request.headers.getall("accept", []))
    # Prometheus prefers OpenMetrics and accepts both. In OpenMetrics a counter's samples end in `_total`, so it would
    # store `thread_starts`, `api_call` and `events` without their type.
    openmetrics = media_type_weight(accept, TEXT_FORMAT) == 0 < media_type_weight(accept, OPENMETRICS)
    exposition = await ask(request, EXPOSITION, AskExposition(openmetrics=openmetrics))
    headers = {"vary": "accept, accept-encoding", "cache-control": "no-store"}
    compressed = coding_weight(",".join(request.headers.getall("accept-encoding", [])), "gzip") > 0
    if compressed:
        headers["content-encoding"] = "gzip"
    return Response(
        exposition.gzip if compressed else exposition.text.encode(),
        media_type=OPENMETRICS if openmetrics else TEXT_FORMAT,
        headers=headers,
    )


@get("/health/live", requires=PUBLIC)
async def live() -> Response[Health]:
    """Check whether this process is alive."""
    return _up()


@get("/health/ready", requires=PUBLIC, codes=["unavailable"])
async def ready(request: HttpRequest) -> Response[Health]:
    """Check whether this edge can authenticate tokens."""
    await request.app.state.readiness.check()
    return _up()


def _up() -> Response[Health]:
    # A cache in front must not respond for an edge that is down.
    return Response(Health(), headers={"cache-control": "no-store"})


@route(
    "/",
    http_method=[HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE],
    requires=AnyToken(),
    include_in_schema=False,
)
async def unknown() -> None:
    """Responds with 404. The middleware routes requests here that need no token and whose path does not exist: OPTIONS,
    and methods that no route offers.
    """
    raise ProblemError("not_found")


HANDLERS: list[Any] = [stats, metrics, live, ready, unknown]

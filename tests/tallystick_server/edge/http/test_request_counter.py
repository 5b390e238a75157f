"""Every response is counted once, by method, status and route template."""

import time
from itertools import product

import msgspec
from hypothesis import given, settings, strategies as st
from litestar.exceptions import NotFoundException
from litestar.exceptions.http_exceptions import MethodNotAllowedException
from litestar.types import Method
from litestar.utils import normalize_path

from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.producer import MAX_DATA_BYTES, Producer
from tallystick.tokens import format as token_format
from tallystick_server.edge.app import routes
from tallystick_server.edge.http import request_counter as module
from tallystick_server.edge.http.request_counter import UNROUTED, RequestCounter, Routes
from tallystick_server.edge.settings import Settings
from tests.support.services import issue

APP = routes(Settings(nats_url="nats://nowhere"))
ROUTES = Routes(APP.routes)


async def test_each_response_is_counted_once(edge, operator, tokens_service):
    value, _ = await issue(operator, "api")
    valid, invalid = {"authorization": f"Bearer {value}"}, {"authorization": f"Bearer {token_format.mint()}"}
    for _ in range(2):
        await edge.get("/v1/tokens?page=0", headers=valid)
    await edge.head("/v1/self", headers=valid)
    await edge.get("/v1/tokens/tok_x", headers=valid)
    await edge.get("/auth?scope=api", headers=valid)
    await edge.get("/auth?scope=metrics", headers=valid)
    await edge.get("/v1/self")
    await edge.get("/v1/self", headers=invalid)
    await edge.get("/v1/tokens/a/b/c", headers=invalid)
    await edge.get("/metrics", headers=valid)
    assert edge._transport.app._counter._counts == {
        ("GET", 200, "/v1/tokens"): 2,
        ("HEAD", 200, "/v1/self"): 1,
        ("GET", 404, "/v1/tokens/{token_id}"): 1,
        ("GET", 200, "/auth"): 1,
        ("GET", 403, "/auth"): 1,
        ("GET", 401, "unrouted"): 1,
        ("GET", 401, "/v1/self"): 2,
        ("GET", 403, "/metrics"): 1,
    }


async def test_unknown_methods_displace_no_counted_request(edge):
    for number in range(module.MAX_KINDS + 50):
        await edge.request(f"M{number}", "/v1/self")
    await edge.get("/v1/self")
    counts = edge._transport.app._counter._counts
    assert counts["GET", 401, "/v1/self"] == 1
    assert sum(count for (method, *_), count in counts.items() if method == "other") == module.MAX_KINDS + 50
    assert {method for method, *_ in counts} == {"GET", "other"}


async def test_routes_beyond_the_table_s_size_are_counted_as_other(service_client):
    calls, producer = RequestCounter(MetricsRecorder()), Producer(service_client, "edge")
    for number in range(module.MAX_KINDS + 500):
        for method in ("GET", "POST"):
            calls.count_response(method, 200, f"/{number:0200}")
    calls.report(producer)
    reported = [call for event in producer._buffer for call in event.data["calls"]]
    assert sum(call["count"] for call in reported) == 2 * (module.MAX_KINDS + 500)
    assert {call["route"] for call in reported} > {"other"}
    sizes = [len(msgspec.json.encode(event.data)) for event in producer._buffer]
    assert max(sizes) <= MAX_DATA_BYTES
    assert all(size > MAX_DATA_BYTES - 400 for size in sizes[:-1])


TOKENS = {
    "missing": {},
    "malformed": {"authorization": "Bearer nonsense"},
    "cut off": {"authorization": f"Bearer {token_format.mint()[:-1]}"},
    "ambiguous": {"authorization": "Bearer a, Bearer b"},
    "unknown": {"authorization": f"Bearer {token_format.mint()}"},
}


PATHS = {
    "/v1/stats": "/v1/stats",
    "/v1/stats/": "/v1/stats",
    "/v1/account/alice": "/v1/account/{account}",
    "/v1/tokens/tok_1/log?page=0": "/v1/tokens/{token_id}/log",
    "/metrics": "/metrics",
    "/auth?scope=api": "/auth",
    "/auth/the/client/s?path": "/auth",
    "/oauth2/introspect": "/oauth2/introspect",
    "/v1/nothing/here": UNROUTED,
    "/nothing": UNROUTED,
    "/docs/nothing": UNROUTED,
}


async def test_a_rejected_token_is_counted_once_on_its_route(edge, tokens_service):
    calls, usage = edge._transport.app._counter, edge._transport.app._verifier.usage
    for (name, headers), (path, route) in product(TOKENS.items(), PATHS.items()):
        calls._counts.clear()
        usage.take_results()
        response = await edge.get(path, headers=headers)
        assert response.status_code == (400 if name == "ambiguous" else 401)
        assert calls._counts == {("GET", response.status_code, route): 1}, (name, path)
        assert usage.take_results() == {response.json()["code"]: 1}, (name, path)


async def test_a_request_enters_the_framework_once_and_only_with_a_valid_token(
    edge, operator, tokens_service
):
    value, _ = await issue(operator, "api")
    middleware = edge._transport.app
    framework, entered_paths = middleware._app, []

    async def recording(scope, receive, send) -> None:
        entered_paths.append(scope["path"])
        await framework(scope, receive, send)

    middleware._app = recording
    valid = {"authorization": f"Bearer {value}"}
    for path in PATHS:
        if path.startswith("/auth"):
            continue  # decided from the cache
        entered_paths.clear()
        for headers in TOKENS.values():
            await edge.get(path, headers=headers)
        assert entered_paths == []
        for _ in range(2):  # looked up, then cached
            await edge.get(path, headers=valid)
        assert len(entered_paths) == 2, path
    for method, path in product(["OPTIONS", "TRACE"], ["/v1/stats", "/nothing"]):
        for headers in ({}, valid, TOKENS["unknown"]):
            entered_paths.clear()
            response = await edge.request(method, path, headers=headers)
            assert (response.status_code, len(entered_paths)) == (204 if method == "OPTIONS" else 405, 1)


def routed(path: str) -> str:
    """The template of the route that Litestar finds for any method."""
    methods: list[Method] = ["GET", "POST", "DELETE"]
    for method in methods:
        try:
            return str(APP.asgi_router.handle_routing(path=normalize_path(path), method=method)[-1])
        except MethodNotAllowedException:
            continue
        except NotFoundException:
            break
    return UNROUTED


SEGMENTS = sorted(
    {part for route in APP.routes for part in route.path_format.split("/")} | {"x", "%2f", "..", "{x}"}
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.sampled_from(SEGMENTS), max_size=7).map(lambda parts: "/" + "/".join(parts)))
def test_the_route_table_finds_the_same_route_as_litestar(path: str):
    assert ROUTES.template(path) == routed(path)


def test_finding_the_route_of_a_long_path_is_fast():
    longest = ["/v1/tokens" + "/a" * 4096, "/" * 8000]
    start = time.process_time()
    for number in range(1000):
        for path in longest:
            assert ROUTES.template(f"{path}{number}") == UNROUTED
    assert time.process_time() - start < 0.5


HANDLED_BY = {
    "/health/ready": "health",
    "/health/live": "health",
    "/metrics": "metrics",
    "/docs": "docs",
    "/docs/openapi.json": "docs",
    "/admin": "dashboard",
    "/admin/tokens": "dashboard",
    "/no/such/page": "unrouted",
    "/": "unrouted",
    "/v1/stats": None,
    "/auth?scope=api": None,
}


async def test_only_requests_to_the_api_are_api_calls(edge, tokens_service, service_client):
    calls = edge._transport.app._counter
    for path, handler in HANDLED_BY.items():
        status = (await edge.get(path)).status_code
        producer = Producer(service_client, "edge")
        calls.report(producer)
        api_calls = [call for event in producer._buffer for call in event.data["calls"]]
        http_requests = [
            (counted.labels, counted.value)
            for counted in calls._recorder.take().counters
            if counted.name == catalogue.HTTP_REQUESTS.name
        ]
        if handler is None:
            route = path.partition("?")[0]
            assert api_calls == [{"method": "get", "statusCode": status, "route": route, "count": 1}]
            assert not http_requests, path
        else:
            assert not api_calls, path
            assert http_requests == [({"handler": handler, "method": "get", "code": str(status)}, 1)], path


def test_every_route_is_an_api_route_or_has_a_separate_counter():
    """A new route counts as API unless `HANDLERS` lists its first segment."""
    first_segments = {route.path_format.split("/")[1] for route in APP.routes}
    assert first_segments - module.HANDLERS.keys() == {"v1", "auth", "oauth2"}

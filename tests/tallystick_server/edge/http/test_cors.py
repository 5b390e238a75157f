"""CORS: pages of allowed origins can call the API from a browser. The dashboard is shared with no origin."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tallystick.contracts.records import RateLimit, Restrictions
from tallystick_server.edge.app import create_app
from tallystick_server.edge.http.cors import read_origins
from tallystick_server.edge.settings import Settings
from tallystick_server.runtime.settings import SettingsError
from tests.support.servers import Nats
from tests.support.services import issue, lifespan

OURS, OTHER = "https://app.example.com", "https://evil.example"
EXPOSED = {
    "ETag",
    "WWW-Authenticate",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
    "Location",
}


@asynccontextmanager
async def edge_with_cors(nats_server: Nats, origins: str) -> AsyncIterator[httpx.AsyncClient]:
    app: Any = create_app(Settings(nats_url=nats_server.edge, cors_origins=origins))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        yield client


@pytest.fixture
async def shared_edge(nats_server: Nats, event_stream: None) -> AsyncIterator[httpx.AsyncClient]:
    async with edge_with_cors(nats_server, f"{OURS}, http://localhost:5173") as client:
        yield client


def cors(response: httpx.Response) -> dict[str, str]:
    """The CORS headers of a response."""
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


async def preflight(
    client: httpx.AsyncClient, path: str, origin: str, method: str = "PATCH"
) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type,if-match,idempotency-key",
    }
    return await client.options(path, headers=headers)


PATHS = (
    "/v1/tokens",
    "/v1/tokens/tok_x",
    "/v1/self/rotate",
    "/oauth2/introspect",
    "/metrics",
    "/nowhere",
    "/docs",
)


async def test_a_preflight_needs_no_token(shared_edge, subtests: pytest.Subtests):
    for path in PATHS:
        with subtests.test(path=path):
            response = await preflight(shared_edge, path, OURS)
            assert (response.status_code, response.content) == (204, b"")
            assert response.headers["access-control-allow-origin"] == OURS
            allowed = {
                name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")
            }
            assert {"authorization", "content-type", "idempotency-key", "if-match"} <= allowed
            assert {"GET", "POST", "PATCH", "DELETE"} <= set(
                response.headers["access-control-allow-methods"].split(", ")
            )
            assert int(response.headers["access-control-max-age"]) > 0
            assert "Origin" in response.headers.get_list("vary")
            assert "access-control-allow-credentials" not in response.headers


OTHER_ORIGINS = [
    OTHER,
    "null",
    "",
    "*",
    "http://app.example.com",
    f"{OURS}:443",
    f"{OURS}.evil.example",
    f"{OURS}/",
    OURS.upper(),
]


async def test_another_origin_gets_no_cors_headers(shared_edge, subtests: pytest.Subtests):
    for origin in OTHER_ORIGINS:
        with subtests.test(origin=origin):
            for response in (
                await preflight(shared_edge, "/v1/tokens", origin),
                await shared_edge.get("/v1/self", headers={"origin": origin}),
                await shared_edge.get("/v1/self"),
            ):
                assert cors(response) == {}
                assert response.headers["vary"] == "Origin"


async def test_every_response_has_the_allowed_origin_and_the_exposed_headers(
    shared_edge, operator, tokens_service
):
    value, _ = await issue(operator, "api")
    limit = Restrictions(rate_limit=RateLimit(max_requests=1, time_window=86_400))
    limited, _ = await issue(operator, "api", restrictions=limit)
    statuses = []
    for bearer, path in (
        (value, "/v1/self"),
        (None, "/v1/self"),
        ("x", "/v1/self"),
        ("x y", "/v1/self"),
        (value, "/metrics"),
        (value, "/nowhere"),
        (limited, "/v1/self"),
        (limited, "/v1/self"),
        (value, f"/v1/self?{'a' * 9000}"),
        (None, "/health/live"),
    ):
        headers = {"origin": OURS} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
        response = await shared_edge.get(path, headers=headers)
        statuses.append(response.status_code)
        assert response.headers["access-control-allow-origin"] == OURS
        assert set(response.headers["access-control-expose-headers"].split(", ")) >= EXPOSED
        assert "Origin" in response.headers.get_list("vary")
    assert statuses == [200, 401, 401, 400, 403, 404, 200, 429, 414, 200]


async def test_a_503_has_cors_headers(shared_edge):
    headers = {"origin": OURS, "authorization": f"Bearer {'ab' * 32}"}
    response = await shared_edge.get("/v1/self", headers=headers)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (503, OURS)
    assert "Retry-After" in response.headers["access-control-expose-headers"]


UNSHARED = (
    "/admin",
    "/admin/",
    "/admin/sign-in",
    "http://edge//admin",
    "/admin/assets/style.css",
    "/auth",
)


@pytest.mark.parametrize("origins", [OURS, "*"])
async def test_the_dashboard_and_forward_auth_are_not_shared(
    nats_server, event_stream, origins: str, subtests: pytest.Subtests
):
    async with edge_with_cors(nats_server, origins) as client:
        for path in UNSHARED:
            with subtests.test(path=path):
                page = await client.get(path, headers={"origin": OURS})
                for response in (await preflight(client, path, OURS), page):
                    assert cors(response) == {}


async def test_a_wildcard_origin_never_allows_credentials(nats_server, event_stream):
    async with edge_with_cors(nats_server, "*") as client:
        for origin in (OTHER, "null"):
            for response in (
                await preflight(client, "/v1/self", origin),
                await client.get("/v1/self", headers={"origin": origin}),
            ):
                assert response.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in response.headers


async def test_without_the_setting_responses_have_no_cors_headers(edge):
    for response in (
        await preflight(edge, "/v1/self", OURS),
        await edge.get("/v1/self", headers={"origin": OURS}),
    ):
        assert cors(response) == {}
        assert "vary" not in response.headers


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "*, https://a.example",
        "a.example",
        "https://a.example/",
        "https://a.example/path",
        "https://a.example?x",
        "https://user@a.example",
        "https://A.example",
        "https://a.example:443",
        "http://a.example:80",
        "https://a.example:99999",
        "https://*.a.example",
        "https://",
        "ftp://a.example",
        "https://a.example;https://b.example",
        "https://[::1",
    ],
)
def test_an_invalid_origin_is_an_invalid_setting(text: str):
    with pytest.raises(SettingsError, match="TALLYSTICK_CORS_ORIGINS") as error:
        Settings(nats_url="nats://x", cors_origins=text).allowed_origins()
    assert text not in str(error.value).removesuffix("such as https://app.example.com, or * alone")


def test_origins_are_parsed():
    assert read_origins("") == frozenset()
    assert read_origins(" * ") == {"*"}
    origins = {"https://a.example", "http://localhost:5173", "https://[::1]:8443", "http://10.0.0.1"}
    assert read_origins(", ".join(sorted(origins))) == origins

"""Client input does not accumulate in an edge's memory."""

import functools
import gc
import importlib
import pkgutil
import sys
from typing import Any

import pytest
from litestar import _parsers

import shared
import tallystick_server.edge
from tallystick_server.edge.authentication.forward_auth import MAX_CACHED_CHECKS
from tallystick_server.edge.http.request_counter import METHODS
from tests.support.coherence import leased, make_cold
from tests.support.dashboard import ready, sign_in, sign_in_at_last
from tests.support.services import issue

MODULES = [
    importlib.import_module(module.name)
    for package in (tallystick_server.edge, shared)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
FORM = {"content-type": "application/x-www-form-urlencoded"}
PLAIN = (str, bytes, int, float, tuple, list, dict, set)


@pytest.fixture
async def verifier(edge, tokens_service) -> Any:
    await ready(edge)
    return edge._transport.app._verifier


def size(*roots: Any) -> int:
    """The bytes reachable from some objects, counting only our types and plain data."""
    objects: dict[int, Any] = {}
    pending = list(roots)
    while pending:
        item = pending.pop()
        ours = type(item).__module__.startswith(("tallystick_server.edge", "tallystick.", "collections"))
        if id(item) not in objects and (ours or isinstance(item, PLAIN)):
            objects[id(item)] = item
            pending += gc.get_referents(item)
    return sum(map(sys.getsizeof, objects.values()))


def test_every_lru_cache_has_a_bound():
    caches = {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, functools._lru_cache_wrapper)
    }
    assert caches
    assert [name for name, cache in caches.items() if cache.cache_parameters()["maxsize"] is None] == []


NEW_QUERIES = [
    "scope=s{}",
    "scope=s{}&account=a{}",
    "account=a{}&scope=s{}",
    "scope=s%3a{}",
    "scope=s{}&x{}=x",
]


async def test_new_queries_of_a_proxy_do_not_increase_memory(
    edge, operator, verifier, subtests: pytest.Subtests
):
    value, _ = await issue(operator, "*")
    await leased([edge], operator)
    headers = {"authorization": f"Bearer {value}"}
    for query in NEW_QUERIES:
        with subtests.test(query=query):
            make_cold(edge, value)
            sizes = []
            for batch in range(3):
                for number in range(1000 + 100 * batch, 1100 + 100 * batch):
                    response = await edge.get(f"/auth?{query.format(number, number)}", headers=headers)
                    assert response.status_code == (400 if "&x" in query else 200), response.text
                sizes.append(size(verifier.cache))
            assert sizes[0] == sizes[1] == sizes[2]
            assert len(verifier.cache._entries) <= 1
            for entry in verifier.cache._entries.values():
                assert entry.admitted == set()
                assert len(entry.check_results) <= MAX_CACHED_CHECKS


async def test_the_scope_of_a_route_is_cached_with_the_token(edge, operator, verifier):
    value, _ = await issue(operator, "api")
    await leased([edge], operator)
    for _ in range(3):
        response = await edge.get("/v1/tokens", headers={"authorization": f"Bearer {value}"})
        assert response.status_code == 200
    (entry,) = verifier.cache._entries.values()
    assert entry.admitted == {"api:tokens:read"}


async def test_the_framework_caches_no_query_form_or_cookie_of_a_client(edge, operator, verifier):
    value, _ = await issue(operator, "*")
    await sign_in_at_last(edge, value)
    headers = {"authorization": f"Bearer {value}"}
    caches = (_parsers.parse_query_string, _parsers.parse_url_encoded_form_data, _parsers.parse_cookie_string)
    before = [cache.cache_info().misses for cache in caches]
    for number in range(50):
        await edge.get(f"/auth?account=a&scope=orders&n={number}&{number}", headers=headers)
        await edge.post("/oauth2/introspect", content=f"token=t{number}", headers=headers | FORM)
        await sign_in(edge, f"t{number}", **{"sec-fetch-site": "cross-site"})
        await edge.get("/admin", headers={"cookie": f"tallystick-x=s{number}; a{number}=b"})
    ((name, session),) = edge.cookies.items()
    for number in range(3):
        page = await edge.get("/admin/refusals", headers={"cookie": f"{name}={session}; a{number}=b"})
        assert page.status_code == 200
    new_misses = [cache.cache_info().misses - misses for cache, misses in zip(caches, before, strict=True)]
    assert new_misses[0] <= 1  # a query that the route declares, the same each time
    assert new_misses[1:] == [0, 0]


async def test_unknown_methods_are_counted_as_other(edge, verifier):
    for number in range(50):
        await edge.request(f"BREW{number}", "/v1/self")
    assert {method for method, _, _ in edge._transport.app._counter._counts} <= METHODS | {"other"}
    assert len(edge._transport.app._counter._counts) < 10

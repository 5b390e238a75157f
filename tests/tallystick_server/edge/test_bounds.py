"""What clients send does not accumulate in an edge."""

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
    """Bytes that are reachable from some objects, as far as these are ours or plain data."""
    seen: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        each = waiting.pop()
        ours = type(each).__module__.startswith(("tallystick_server.edge", "tallystick.", "collections"))
        if id(each) not in seen and (ours or isinstance(each, PLAIN)):
            seen[id(each)] = each
            waiting += gc.get_referents(each)
    return sum(map(sys.getsizeof, seen.values()))


def test_every_lru_cache_has_a_bound():
    caches = {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, functools._lru_cache_wrapper)
    }
    assert caches
    assert [name for name, each in caches.items() if each.cache_parameters()["maxsize"] is None] == []


NEW_QUESTIONS = [
    "scope=s{}",
    "scope=s{}&account=a{}",
    "account=a{}&scope=s{}",
    "scope=s%3a{}",
    "scope=s{}&x{}=x",
]


async def test_ever_new_questions_of_a_proxy_take_no_more_memory(
    edge, operator, verifier, subtests: pytest.Subtests
):
    value, _ = await issue(operator, "*")
    await leased([edge], operator)
    headers = {"authorization": f"Bearer {value}"}
    for query in NEW_QUESTIONS:
        with subtests.test(query=query):
            make_cold(edge, value)
            sizes = []
            for batch in range(3):
                for number in range(1000 + 100 * batch, 1100 + 100 * batch):
                    answer = await edge.get(f"/auth?{query.format(number, number)}", headers=headers)
                    assert answer.status_code == (400 if "&x" in query else 200), answer.text
                sizes.append(size(verifier.cache))
            assert sizes[0] == sizes[1] == sizes[2]
            assert len(verifier.cache._entries) <= 1
            for entry in verifier.cache._entries.values():
                assert entry.admitted == set()
                assert len(entry.check_results) <= MAX_CACHED_CHECKS


async def test_routes_with_a_scope_of_their_own_are_remembered_with_a_token(edge, operator, verifier):
    value, _ = await issue(operator, "api")
    await leased([edge], operator)
    for _ in range(3):
        answer = await edge.get("/v1/tokens", headers={"authorization": f"Bearer {value}"})
        assert answer.status_code == 200
    (entry,) = verifier.cache._entries.values()
    assert entry.admitted == {"api:tokens:read"}


async def test_the_framework_keeps_no_query_form_or_cookie_of_a_client(edge, operator, verifier):
    value, _ = await issue(operator, "*")
    await sign_in_at_last(edge, value)
    headers = {"authorization": f"Bearer {value}"}
    caches = (_parsers.parse_query_string, _parsers.parse_url_encoded_form_data, _parsers.parse_cookie_string)
    before = [each.cache_info().misses for each in caches]
    for number in range(50):
        await edge.get(f"/auth?account=a&scope=orders&n={number}&{number}", headers=headers)
        await edge.post("/oauth2/introspect", content=f"token=t{number}", headers=headers | FORM)
        await sign_in(edge, f"t{number}", **{"sec-fetch-site": "cross-site"})
        await edge.get("/admin", headers={"cookie": f"tallystick-x=s{number}; a{number}=b"})
    ((name, session),) = edge.cookies.items()
    for number in range(3):
        page = await edge.get("/admin/refusals", headers={"cookie": f"{name}={session}; a{number}=b"})
        assert page.status_code == 200
    grown = [each.cache_info().misses - misses for each, misses in zip(caches, before, strict=True)]
    assert grown[0] <= 1  # what the route declares, which was the same each time
    assert grown[1:] == [0, 0]


async def test_invented_methods_leave_room_for_real_ones(edge, verifier):
    for number in range(50):
        await edge.request(f"BREW{number}", "/v1/self")
    assert {method for method, _, _ in edge._transport.app._counter._counts} <= METHODS | {"other"}
    assert len(edge._transport.app._counter._counts) < 10

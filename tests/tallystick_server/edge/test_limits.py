"""Rate limits over two edges and two replicas of the tokens service, on real servers: exactly the limit is admitted, also
across edits and rotations, and every issued quota is spent, returned or counted as lost.
"""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tallystick import connection as bus
from tallystick.coherence.clock import boot_time
from tallystick.coherence.held_quota import HeldQuota
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor
from tallystick.contracts.propagation import SETTLE, Settle
from tallystick.contracts.quotas import (
    RECALLED,
    RETURN_QUOTA,
    TAKE_QUOTA,
    Quota,
    ReturnedQuota,
    ReturnQuota,
    TakeQuota,
)
from tallystick.contracts.records import RateLimit, Restrictions
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app as tokens_app
from tallystick_server.tokens.settings import Settings as TokensSettings
from tests.support.api import bearer
from tests.support.examples import TOKEN
from tests.support.polling import until_async
from tests.support.services import issue, lifespan, patient, running

DAY_S = 86_400
ACTOR = Actor(name="test")
UNUSUAL_S = 0.4
"""Much longer than a take with a recall."""


def rate_limit(requests: int, window_s: int = DAY_S) -> Restrictions:
    return Restrictions(rate_limit=RateLimit(max_requests=requests, time_window=window_s))


@asynccontextmanager
async def start_edge(url: str):
    app: Any = create_app(EdgeSettings(nats_url=url))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        yield client


@pytest.fixture
async def edges(nats_server, database, operator, tokens_service):
    """Two edges, and a second replica of the tokens service."""
    settings = TokensSettings(nats_url=nats_server.tokens, database_url=database.tokens, startup_timeout_s=10)
    stop = Shutdown()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            running(tokens_app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats())
        )
        edges = [await stack.enter_async_context(start_edge(nats_server.edge)) for _ in range(2)]
        value, _ = await issue(operator)
        for edge in edges:
            await has_lease(edge)
            edge.headers["authorization"] = f"Bearer {value}"
        yield edges


async def has_lease(edge: httpx.AsyncClient) -> None:
    await until_async(lambda: verifier_of(edge).cache.has_lease(boot_time()))


def verifier_of(edge):
    return edge._transport.app._verifier


async def check(edge: httpx.AsyncClient, value: str) -> int:
    """Returns the status of the decision. Retries a 503: the edge cannot decide yet, as on a busy machine."""
    async with asyncio.timeout(30):
        while True:
            response = await edge.get("/auth", params={"scope": "api"}, headers=bearer(value))
            if response.status_code != 503:
                return response.status_code
            await asyncio.sleep(0.05)


async def flood(edges, *values: str, requests: int = 320, tasks: int = 8) -> Counter[int]:
    """Counts the statuses of requests from several tasks, spread over the edges and tokens."""
    numbers = iter(range(requests))
    statuses: Counter[int] = Counter()

    async def client(offset: int) -> None:
        for number in numbers:
            statuses[await check(edges[(offset + number) % len(edges)], values[number % len(values)])] += 1

    await asyncio.gather(*map(client, range(tasks)))
    return statuses


async def take(client, token: str, holder: str, number: int = 1, **fields) -> Quota:
    request = TakeQuota(id=token, holder=holder, take=number, **fields)
    quota = await call(client, patient(TAKE_QUOTA), request)
    assert isinstance(quota, Quota), quota
    return quota


async def return_quota(client, quota: Quota, holder: str, unspent: int, number: int = 1, **fields) -> int:
    assert quota.family is not None
    assert quota.starts is not None
    request = {
        "family": quota.family,
        "holder": holder,
        "take": number,
        "window": quota.window,
        "starts": quota.starts,
        "unspent": unspent,
        **fields,
    }
    reply = await call(client, patient(RETURN_QUOTA), ReturnQuota(**request))
    assert isinstance(reply, ReturnedQuota), reply
    return reply.counted


@pytest.fixture
async def client(nats_server):
    """A connection with an edge's permissions."""
    async with bus.connect(nats_server.edge, "edge", wait_s=10) as client:
        yield client


async def remaining(client, token: str) -> int:
    """The remaining requests of a window, as seen by an edge that takes a quota and returns it."""
    holder = new_id("holder_")
    quota = await take(client, token, holder)
    if quota.granted:
        assert await return_quota(client, quota, holder, quota.granted) == quota.granted
    return quota.granted + quota.remaining


def measure(edges) -> list[MetricsRecorder]:
    """Replaces the recorders of the edges, so that no report consumes their counts."""
    recorders = [MetricsRecorder() for _ in edges]
    for edge, recorder in zip(edges, recorders, strict=True):
        verifier_of(edge).limiter._recorder = recorder
    return recorders


def quota_counts(recorders: list[MetricsRecorder]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for recorder in recorders:
        for counter in recorder.take().counters:
            counts[counter.name.removeprefix("tallystick_quota_").removesuffix("_total")] += counter.value
    return counts


async def test_a_small_limit_is_admitted_exactly_over_two_edges(edges, operator):
    for _ in range(6):
        value, _ = await issue(operator, "api", restrictions=rate_limit(50))
        assert await flood(edges, value) == {200: 50, 429: 270}


async def test_quota_unspent_at_one_edge_is_available_to_another(edges, operator):
    value, _ = await issue(operator, "api", restrictions=rate_limit(1000))
    first = await flood(edges[:1], value, requests=400)
    assert first == {200: 400}
    assert (await flood(edges[1:], value, requests=700))[200] == 600
    assert await check(edges[0], value) == 429


async def test_an_edited_limit_is_admitted_exactly(edges, operator, subtests: pytest.Subtests):
    for first, limit in ((30, 60), (30, 35), (30, 20)):
        with subtests.test(first=first, limit=limit):
            value, token = await issue(operator, "api", restrictions=rate_limit(50))
            assert await flood(edges, value, requests=first) == {200: first}
            await edit(edges[0], token.id, limit)
            assert (await flood(edges, value, requests=100))[200] == max(0, limit - first)


async def test_quota_issued_before_two_edits_is_not_spent(edges, operator):
    value, token = await issue(operator, "api", restrictions=rate_limit(100))
    for edge in edges:
        assert (await flood([edge], value, requests=20))[200] == 20
    await edit(edges[0], token.id, 150)
    assert (await flood(edges[:1], value, requests=120))[200] >= 100
    admitted = 40 + 120
    await edit(edges[0], token.id, 100)
    assert await flood(edges, value, requests=admitted) == {429: admitted}


async def test_a_raised_limit_admits_after_a_rejection(edges, operator):
    value, token = await issue(operator, "api", restrictions=rate_limit(10))
    assert (await flood(edges, value, requests=40))[200] == 10
    await edit(edges[0], token.id, 25)
    assert (await flood(edges, value, requests=40))[200] == 15


async def test_windows_of_different_lengths_are_counted_separately(edges, operator):
    value, token = await issue(operator, "api", restrictions=rate_limit(20))
    assert (await flood(edges, value, requests=10))[200] == 10
    await edit(edges[0], token.id, 15, DAY_S * 2)
    assert (await flood(edges, value, requests=40))[200] == 15
    await edit(edges[0], token.id, 20)
    assert (await flood(edges, value, requests=40))[200] == 10


async def test_a_rotated_token_and_its_successor_admit_exactly_their_limit(edges, operator):
    value, token = await issue(operator, "api", restrictions=rate_limit(50))
    assert await flood(edges, value, requests=30) == {200: 30}
    response = await edges[0].post(f"/v1/tokens/{token.id}/rotate", json={"grace": 60})
    assert response.status_code == 201, response.text
    statuses = await flood(edges, value, response.json()["token"], requests=100)
    assert statuses == {200: 20, 429: 80}


async def test_every_issued_request_is_spent_returned_or_lost(edges, operator):
    recorders = measure(edges)
    value, token = await issue(operator, "api", restrictions=rate_limit(500))
    admitted = (await flood(edges, value, requests=100))[200]
    await edit(edges[0], token.id, 400)
    admitted += (await flood(edges, value, requests=100))[200]
    rotated = (await edges[0].post(f"/v1/tokens/{token.id}/rotate", json={"grace": 60})).json()
    admitted += (await flood(edges, value, rotated["token"], requests=400))[200]
    assert admitted == 400
    for edge in edges:
        await verifier_of(edge).limiter.close()
    counts = quota_counts(recorders)
    assert counts["handed_out"] == admitted + counts["returned"] + counts["lost"]
    assert counts["lost"] == 0
    assert counts["returned"] > 0


async def test_unspent_quota_of_a_past_window_counts_as_lost(edges, operator):
    recorders = measure(edges)
    value, _ = await issue(operator, "api", restrictions=rate_limit(1000, 1))
    admitted = (await flood(edges, value, requests=200))[200]
    await asyncio.sleep(1.1)
    for edge in edges:
        verifier_of(edge).limiter.expire(boot_time())
    counts = quota_counts(recorders)
    assert counts["handed_out"] == admitted + counts["returned"] + counts["lost"]


async def test_an_edge_that_stops_returns_its_quota(edges, operator, nats_server, client):
    value, token = await issue(operator, "api", restrictions=rate_limit(1000))
    async with start_edge(nats_server.edge) as stopping:
        await has_lease(stopping)
        assert await flood([stopping], value, requests=100) == {200: 100}
        assert verifier_of(stopping).limiter._held[token.id].left > 0
    assert await remaining(client, token.id) == 900


async def test_a_repeated_take_gets_the_same_quota_from_any_replica(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(100))
    holder = new_id("holder_")
    quotas = await asyncio.gather(*(take(client, token.id, holder, wanted=10) for _ in range(40)))
    assert {quota.granted for quota in quotas} == {10}
    assert await remaining(client, token.id) == 90
    rejected = [await take(client, token.id, holder, 2, waiting=90) for _ in range(2)]
    assert [quota.granted for quota in rejected] == [90, 90]
    assert (await take(client, token.id, holder, 1)).granted == 0  # a delayed duplicate
    assert await remaining(client, token.id) == 0


async def test_a_rejected_take_stays_rejected_when_repeated(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(1))
    holder, other = new_id("holder_"), new_id("holder_")
    quota = await take(client, token.id, holder)
    assert (await take(client, token.id, other)).granted == 0
    assert await return_quota(client, quota, holder, 1) == 1
    assert (await take(client, token.id, other)).granted == 0
    assert (await take(client, token.id, other, 2)).granted == 1


def test_a_take_without_a_reply_is_repeated_under_its_number():
    held = HeldQuota(TOKEN, 0)
    first = held.start_take(1)
    assert held.start_take(2) == first
    quota = Quota(granted=2, limit=9, remaining=7, window=60, resets_in=60, family="f", starts=0)
    assert held.complete_take(quota, 2, 2, None) is None
    assert held.start_take(3).take == first.take + 1


async def test_quota_is_returned_once(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(100))
    holder = new_id("holder_")
    quota = await take(client, token.id, holder, wanted=10)
    assert await asyncio.gather(*(return_quota(client, quota, holder, 4) for _ in range(20))) == [4] * 20
    assert await remaining(client, token.id) == 94
    later = await take(client, token.id, holder, 2, unspent=4)
    assert (later.returned, later.remaining) == (4, 94 - later.granted)
    assert await return_quota(client, quota, holder, 4) == 4  # the same reply as before
    assert await remaining(client, token.id) == 94 - later.granted


async def test_a_take_returns_the_rest_of_the_previous_take(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(100))
    holder = new_id("holder_")
    await take(client, token.id, holder, wanted=10)
    quotas = await asyncio.gather(*(take(client, token.id, holder, 2, unspent=7) for _ in range(20)))
    assert {(quota.returned, quota.granted) for quota in quotas} == {(7, 1)}
    assert await remaining(client, token.id) == 96


async def test_no_more_is_returned_than_was_issued(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(100))
    _, other = await issue(operator, "api", restrictions=rate_limit(100))
    holder = new_id("holder_")
    quota = await take(client, token.id, holder, waiting=100)
    other_quota = await take(client, other.id, new_id("holder_"), waiting=50)
    assert await return_quota(client, quota, new_id("holder_"), 5) == 0
    assert await return_quota(client, other_quota, holder, 5) == 0
    assert await return_quota(client, quota, holder, 5, 2) == 0
    assert await return_quota(client, quota, holder, 5, window=60) == 0
    assert await return_quota(client, quota, holder, 5, starts=(quota.starts or 0) - DAY_S) == 0
    assert await remaining(client, token.id) == 0
    assert await remaining(client, other.id) == 50
    later = await take(client, token.id, holder, 5, unspent=100)  # the takes between are unknown
    assert (later.granted, later.returned) == (0, 0)
    another = new_id("holder_")
    await take(client, other.id, another, waiting=10)
    assert (await take(client, other.id, another, 2, unspent=1_000_000)).returned == 10
    assert await remaining(client, other.id) == 49


async def test_quota_of_a_past_window_does_not_count_in_the_next(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(10, 1))
    holder = new_id("holder_")
    quota = await take(client, token.id, holder, waiting=10)
    await asyncio.sleep(quota.resets_in + 0.05)
    current = await take(client, token.id, new_id("holder_"), waiting=4)
    assert await return_quota(client, quota, holder, 10) == 0
    assert current.granted == 4
    assert await remaining(client, token.id) <= 6
    assert (await take(client, token.id, holder, 2, unspent=10)).returned == 0


async def test_a_recall_waits_only_once_for_a_dead_edge(edges, operator, client):
    value, token = await issue(operator, "api", restrictions=rate_limit(10))
    assert (await take(client, token.id, new_id("holder_"), waiting=4)).granted == 4
    assert (await flood(edges, value, requests=6))[200] == 6
    start = time.monotonic()
    assert await check(edges[0], value) == 429
    wait_s = time.monotonic() - start
    assert 0.05 <= wait_s < UNUSUAL_S
    assert (await take(client, token.id, new_id("holder_"))).granted == 0
    assert time.monotonic() - start < wait_s + 0.05


async def test_after_a_recall_quota_is_issued_only_for_waiting_requests(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(100))
    holder, other = new_id("holder_"), new_id("holder_")
    quota = await take(client, token.id, holder, waiting=100)
    assert (await take(client, token.id, other)).granted == 0
    assert await return_quota(client, quota, holder, 50) == 50
    assert (await take(client, token.id, other, 2, wanted=20, waiting=3)).granted == 3


async def test_one_recall_is_published_for_each_window(edges, operator, client, nats_server):
    value, _ = await issue(operator, "api", restrictions=rate_limit(20))
    notices = []

    async def watch(message) -> None:
        notices.append(message.data)

    async with bus.connect(nats_server.watcher, "watcher", wait_s=10) as watcher:
        await watcher.subscribe(RECALLED, cb=watch)
        await bus.subscribed(watcher)
        assert (await flood(edges, value, requests=100))[200] == 20
        await bus.subscribed(watcher)
    assert len(notices) <= 1


async def test_a_verifying_service_gets_the_unspent_quota_of_edges(edges, operator, service_client):
    value, _ = await issue(operator, "api", restrictions=rate_limit(200))
    assert (await flood(edges, value, requests=100))[200] == 100
    request = VerifyToken(digest=token_format.digest(value) or "", scope="api")
    codes: Counter[str] = Counter()
    for _ in range(102):
        verdict = await call(service_client, VERIFY, request)
        codes[verdict.code] += 1
    assert codes == {"active": 100, "rate_limited": 2}


async def test_an_edge_of_an_earlier_version_takes_quota_without_a_holder(edges, operator, client):
    value, token = await issue(operator, "api", restrictions=rate_limit(10))
    for _ in range(4):
        quota = await call(client, TAKE_QUOTA, TakeQuota(id=token.id))
        assert isinstance(quota, Quota)
        assert quota.granted == 1
    assert (await flood(edges, value, requests=20))[200] == 6


async def edit(edge: httpx.AsyncClient, token: str, limit: int, window_s: int = DAY_S) -> None:
    restrictions = {"rateLimit": {"maxRequests": limit, "timeWindow": window_s}}
    response = await edge.patch(f"/v1/tokens/{token}", json={"restrictions": restrictions})
    assert response.status_code == 200, response.text


async def test_quotas_shrink_near_the_limit(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=rate_limit(100))
    # A replica reads the leases when it settles a change; with so many requests, each replica gets some.
    for _ in range(20):
        await call(operator, SETTLE.by_operator, Settle())
    holder = new_id("holder_")
    granted = [(await take(client, token.id, holder, number, wanted=50)).granted for number in range(1, 80)]
    assert granted[:2] == [25, 18], "half of one edge's share"
    assert granted == sorted(granted, reverse=True)
    assert sum(granted) == 100
    assert 1 in granted

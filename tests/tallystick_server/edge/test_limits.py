"""Rate limits over two edges and two replicas of the tokens service, on real servers: exactly the limit is admitted, over
edits and rotations too, and what was handed out is spent, given back or counted as lost.
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
"""Far longer than a take with a recall."""


def limited(requests: int, window_s: int = DAY_S) -> Restrictions:
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
    """Two edges; beside the one replica of the tokens service there is another."""
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


async def ask(edge: httpx.AsyncClient, value: str) -> int:
    """The status that decides; 503 means that the edge cannot decide now, as on a busy machine."""
    async with asyncio.timeout(30):
        while True:
            answer = await edge.get("/auth", params={"scope": "api"}, headers=bearer(value))
            if answer.status_code != 503:
                return answer.status_code
            await asyncio.sleep(0.05)


async def flood(edges, *values: str, requests: int = 320, tasks: int = 8) -> Counter[int]:
    """Statuses of requests from several tasks, spread over the edges and tokens."""
    numbers = iter(range(requests))
    statuses: Counter[int] = Counter()

    async def client(place: int) -> None:
        for number in numbers:
            statuses[await ask(edges[(place + number) % len(edges)], values[number % len(values)])] += 1

    await asyncio.gather(*map(client, range(tasks)))
    return statuses


async def take(client, token: str, holder: str, number: int = 1, **fields) -> Quota:
    request = TakeQuota(id=token, holder=holder, take=number, **fields)
    quota = await call(client, patient(TAKE_QUOTA), request)
    assert isinstance(quota, Quota), quota
    return quota


async def give_back(client, quota: Quota, holder: str, unspent: int, number: int = 1, **fields) -> int:
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


async def left_of(client, token: str) -> int:
    """What is left of a window, told by an edge that takes one and gives it back."""
    holder = new_id("holder_")
    quota = await take(client, token, holder)
    if quota.granted:
        assert await give_back(client, quota, holder, quota.granted) == quota.granted
    return quota.granted + quota.remaining


def measure(edges) -> list[MetricsRecorder]:
    """Has the edges count their quotas where no report takes the counts away."""
    recorder = [MetricsRecorder() for _ in edges]
    for edge, own in zip(edges, recorder, strict=True):
        verifier_of(edge).limiter._recorder = own
    return recorder


def counted(recorder: list[MetricsRecorder]) -> Counter[str]:
    counters: Counter[str] = Counter()
    for own in recorder:
        for each in own.take().counters:
            counters[each.name.removeprefix("tallystick_quota_").removesuffix("_total")] += each.value
    return counters


async def test_a_small_limit_is_admitted_exactly_over_two_edges(edges, operator):
    for _ in range(6):
        value, _ = await issue(operator, "api", restrictions=limited(50))
        assert await flood(edges, value) == {200: 50, 429: 270}


async def test_a_burst_at_one_edge_leaves_nothing_unspent_for_the_other(edges, operator):
    value, _ = await issue(operator, "api", restrictions=limited(1000))
    first = await flood(edges[:1], value, requests=400)
    assert first == {200: 400}
    assert (await flood(edges[1:], value, requests=700))[200] == 600
    assert await ask(edges[0], value) == 429


async def test_an_edited_limit_is_admitted_exactly(edges, operator, subtests: pytest.Subtests):
    for first, limit in ((30, 60), (30, 35), (30, 20)):
        with subtests.test(first=first, limit=limit):
            value, token = await issue(operator, "api", restrictions=limited(50))
            assert await flood(edges, value, requests=first) == {200: first}
            await edit(edges[0], token.id, limit)
            assert (await flood(edges, value, requests=100))[200] == max(0, limit - first)


async def test_no_quota_from_before_two_edits_is_spent(edges, operator):
    value, token = await issue(operator, "api", restrictions=limited(100))
    for edge in edges:
        assert (await flood([edge], value, requests=20))[200] == 20
    await edit(edges[0], token.id, 150)
    assert (await flood(edges[:1], value, requests=120))[200] >= 100
    admitted = 40 + 120
    await edit(edges[0], token.id, 100)
    assert await flood(edges, value, requests=admitted) == {429: admitted}


async def test_a_raised_limit_admits_after_a_rejection(edges, operator):
    value, token = await issue(operator, "api", restrictions=limited(10))
    assert (await flood(edges, value, requests=40))[200] == 10
    await edit(edges[0], token.id, 25)
    assert (await flood(edges, value, requests=40))[200] == 15


async def test_a_window_of_another_length_counts_apart(edges, operator):
    value, token = await issue(operator, "api", restrictions=limited(20))
    assert (await flood(edges, value, requests=10))[200] == 10
    await edit(edges[0], token.id, 15, DAY_S * 2)
    assert (await flood(edges, value, requests=40))[200] == 15
    await edit(edges[0], token.id, 20)
    assert (await flood(edges, value, requests=40))[200] == 10


async def test_a_rotated_token_and_its_successor_admit_exactly_their_limit(edges, operator):
    value, token = await issue(operator, "api", restrictions=limited(50))
    assert await flood(edges, value, requests=30) == {200: 30}
    answer = await edges[0].post(f"/v1/tokens/{token.id}/rotate", json={"grace": 60})
    assert answer.status_code == 201, answer.text
    statuses = await flood(edges, value, answer.json()["token"], requests=100)
    assert statuses == {200: 20, 429: 80}


async def test_every_request_handed_out_is_spent_given_back_or_lost(edges, operator):
    recorder = measure(edges)
    value, token = await issue(operator, "api", restrictions=limited(500))
    admitted = (await flood(edges, value, requests=100))[200]
    await edit(edges[0], token.id, 400)
    admitted += (await flood(edges, value, requests=100))[200]
    rotated = (await edges[0].post(f"/v1/tokens/{token.id}/rotate", json={"grace": 60})).json()
    admitted += (await flood(edges, value, rotated["token"], requests=400))[200]
    assert admitted == 400
    for edge in edges:
        await verifier_of(edge).limiter.close()
    counts = counted(recorder)
    assert counts["handed_out"] == admitted + counts["returned"] + counts["lost"]
    assert counts["lost"] == 0
    assert counts["returned"] > 0


async def test_what_a_window_ends_with_counts_as_lost(edges, operator):
    recorder = measure(edges)
    value, _ = await issue(operator, "api", restrictions=limited(1000, 1))
    admitted = (await flood(edges, value, requests=200))[200]
    await asyncio.sleep(1.1)
    for edge in edges:
        verifier_of(edge).limiter.expire(boot_time())
    counts = counted(recorder)
    assert counts["handed_out"] == admitted + counts["returned"] + counts["lost"]


async def test_an_edge_that_stops_gives_back_what_it_holds(edges, operator, nats_server, client):
    value, token = await issue(operator, "api", restrictions=limited(1000))
    async with start_edge(nats_server.edge) as stopping:
        await has_lease(stopping)
        assert await flood([stopping], value, requests=100) == {200: 100}
        assert verifier_of(stopping).limiter._held[token.id].left > 0
    assert await left_of(client, token.id) == 900


async def test_a_repeated_take_gets_the_same_quota_at_any_replica(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(100))
    holder = new_id("holder_")
    quotas = await asyncio.gather(*(take(client, token.id, holder, wanted=10) for _ in range(40)))
    assert {quota.granted for quota in quotas} == {10}
    assert await left_of(client, token.id) == 90
    rejected = [await take(client, token.id, holder, 2, waiting=90) for _ in range(2)]
    assert [quota.granted for quota in rejected] == [90, 90]
    assert (await take(client, token.id, holder, 1)).granted == 0  # a late copy
    assert await left_of(client, token.id) == 0


async def test_a_rejected_take_that_is_repeated_stays_rejected(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(1))
    holder, other = new_id("holder_"), new_id("holder_")
    quota = await take(client, token.id, holder)
    assert (await take(client, token.id, other)).granted == 0
    assert await give_back(client, quota, holder, 1) == 1
    assert (await take(client, token.id, other)).granted == 0
    assert (await take(client, token.id, other, 2)).granted == 1


def test_a_take_without_an_answer_is_repeated_under_its_number():
    held = HeldQuota(TOKEN, 0)
    first = held.start_take(1)
    assert held.start_take(2) == first
    quota = Quota(granted=2, limit=9, remaining=7, window=60, resets_in=60, family="f", starts=0)
    assert held.complete_take(quota, 2, 2, None) is None
    assert held.start_take(3).take == first.take + 1


async def test_quota_is_given_back_once(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(100))
    holder = new_id("holder_")
    quota = await take(client, token.id, holder, wanted=10)
    assert await asyncio.gather(*(give_back(client, quota, holder, 4) for _ in range(20))) == [4] * 20
    assert await left_of(client, token.id) == 94
    later = await take(client, token.id, holder, 2, unspent=4)
    assert (later.returned, later.remaining) == (4, 94 - later.granted)
    assert await give_back(client, quota, holder, 4) == 4  # as answered before
    assert await left_of(client, token.id) == 94 - later.granted


async def test_a_take_gives_back_what_is_left_of_the_one_before(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(100))
    holder = new_id("holder_")
    await take(client, token.id, holder, wanted=10)
    quotas = await asyncio.gather(*(take(client, token.id, holder, 2, unspent=7) for _ in range(20)))
    assert {(quota.returned, quota.granted) for quota in quotas} == {(7, 1)}
    assert await left_of(client, token.id) == 96


async def test_no_more_is_given_back_than_was_handed_out(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(100))
    _, other = await issue(operator, "api", restrictions=limited(100))
    holder = new_id("holder_")
    quota = await take(client, token.id, holder, waiting=100)
    theirs = await take(client, other.id, new_id("holder_"), waiting=50)
    assert await give_back(client, quota, new_id("holder_"), 5) == 0
    assert await give_back(client, theirs, holder, 5) == 0
    assert await give_back(client, quota, holder, 5, 2) == 0
    assert await give_back(client, quota, holder, 5, window=60) == 0
    assert await give_back(client, quota, holder, 5, starts=(quota.starts or 0) - DAY_S) == 0
    assert await left_of(client, token.id) == 0
    assert await left_of(client, other.id) == 50
    later = await take(client, token.id, holder, 5, unspent=100)  # the takes between are unknown
    assert (later.granted, later.returned) == (0, 0)
    another = new_id("holder_")
    await take(client, other.id, another, waiting=10)
    assert (await take(client, other.id, another, 2, unspent=1_000_000)).returned == 10
    assert await left_of(client, other.id) == 49


async def test_what_a_former_window_left_does_not_count_in_the_next(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(10, 1))
    holder = new_id("holder_")
    quota = await take(client, token.id, holder, waiting=10)
    await asyncio.sleep(quota.resets_in + 0.05)
    before = await take(client, token.id, new_id("holder_"), waiting=4)
    assert await give_back(client, quota, holder, 10) == 0
    assert before.granted == 4
    assert await left_of(client, token.id) <= 6
    assert (await take(client, token.id, holder, 2, unspent=10)).returned == 0


async def test_a_recall_waits_once_for_an_edge_that_died(edges, operator, client):
    value, token = await issue(operator, "api", restrictions=limited(10))
    assert (await take(client, token.id, new_id("holder_"), waiting=4)).granted == 4
    assert (await flood(edges, value, requests=6))[200] == 6
    started = time.monotonic()
    assert await ask(edges[0], value) == 429
    waited = time.monotonic() - started
    assert 0.05 <= waited < UNUSUAL_S
    assert (await take(client, token.id, new_id("holder_"))).granted == 0
    assert time.monotonic() - started < waited + 0.05


async def test_after_a_recall_only_what_waits_is_handed_out(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(100))
    holder, other = new_id("holder_"), new_id("holder_")
    quota = await take(client, token.id, holder, waiting=100)
    assert (await take(client, token.id, other)).granted == 0
    assert await give_back(client, quota, holder, 50) == 50
    assert (await take(client, token.id, other, 2, wanted=20, waiting=3)).granted == 3


async def test_one_recall_is_published_for_each_window(edges, operator, client, nats_server):
    value, _ = await issue(operator, "api", restrictions=limited(20))
    notices = []

    async def hear(message) -> None:
        notices.append(message.data)

    async with bus.connect(nats_server.watcher, "watcher", wait_s=10) as watcher:
        await watcher.subscribe(RECALLED, cb=hear)
        await bus.subscribed(watcher)
        assert (await flood(edges, value, requests=100))[200] == 20
        await bus.subscribed(watcher)
    assert len(notices) <= 1


async def test_a_service_that_verifies_gets_what_edges_hold_unspent(edges, operator, service_client):
    value, _ = await issue(operator, "api", restrictions=limited(200))
    assert (await flood(edges, value, requests=100))[200] == 100
    request = VerifyToken(digest=token_format.digest(value) or "", scope="api")
    codes: Counter[str] = Counter()
    for _ in range(102):
        verdict = await call(service_client, VERIFY, request)
        codes[verdict.code] += 1
    assert codes == {"active": 100, "rate_limited": 2}


async def test_an_edge_of_an_earlier_version_takes_without_a_holder(edges, operator, client):
    value, token = await issue(operator, "api", restrictions=limited(10))
    for _ in range(4):
        quota = await call(client, TAKE_QUOTA, TakeQuota(id=token.id))
        assert isinstance(quota, Quota)
        assert quota.granted == 1
    assert (await flood(edges, value, requests=20))[200] == 6


async def edit(edge: httpx.AsyncClient, token: str, limit: int, window_s: int = DAY_S) -> None:
    restrictions = {"rateLimit": {"maxRequests": limit, "timeWindow": window_s}}
    answer = await edge.patch(f"/v1/tokens/{token}", json={"restrictions": restrictions})
    assert answer.status_code == 200, answer.text


async def test_quotas_shrink_as_the_limit_comes_near(edges, operator, client):
    _, token = await issue(operator, "api", restrictions=limited(100))
    # A replica looks at the leases when it is asked to settle a change; of so many requests each replica gets some.
    for _ in range(20):
        await call(operator, SETTLE.by_operator, Settle())
    holder = new_id("holder_")
    granted = [(await take(client, token.id, holder, number, wanted=50)).granted for number in range(1, 80)]
    assert granted[:2] == [25, 18], "half of one edge's share"
    assert granted == sorted(granted, reverse=True)
    assert sum(granted) == 100
    assert 1 in granted

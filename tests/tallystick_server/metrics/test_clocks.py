"""Setting a clock forward or back stops no counting, ends no live thread or owner, and keeps no dead one alive.

PostgreSQL's, the stream's and the machines' clocks cannot be set here. The stored times are moved instead: in any
comparison, a row two hours ahead is the same as a clock that was set back by two hours.
"""

import asyncio
import time
from datetime import UTC, datetime

import asyncpg
import pytest

from tallystick.contracts.metrics import METRICS_STATS, AskMetricsStats, MetricsStats
from tallystick.rpc.call import call
from tallystick_server.metrics import consumer
from tallystick_server.metrics.counters import Thread
from tallystick_server.metrics.handlers import LATE_S
from tallystick_server.metrics.silence import Heartbeats, Lease, Watch
from tallystick_server.metrics.store import reports
from tallystick_server.runtime import postgres
from tests.support.counting import counted, counters, send, service

SHIFTS = pytest.mark.parametrize("shift", ["2 hours", "-2 hours"], ids=["set back", "set forward"])
"""How the stored times are moved: the clock seems to be set the other way."""


@pytest.fixture
async def connection(database):
    connection = await asyncpg.connect(database.owner)
    await connection.execute("set search_path to metrics")
    yield connection
    await connection.close()


def test_an_owner_is_replaced_when_its_heartbeats_stop_whatever_their_times():
    watch, lease = Watch(4), Lease(1, "a", resigned=False, halt_reason=None)
    # Times that rise, fall and jump are all heartbeats.
    for number, heartbeat in enumerate(["a", "c", "b", "z", "a"]):
        assert not watch.is_over(lease._replace(seen=heartbeat), number * 3.9)
    assert not watch.is_over(lease, 4 * 3.9 + 3.9)
    assert watch.is_over(lease, 4 * 3.9 + 4.1)
    assert not watch.is_over(lease._replace(epoch=2), 100), "a new owner has taken over"
    assert Watch(4).is_over(lease._replace(resigned=True), 0)


def test_a_thread_is_silent_if_it_has_sent_no_heartbeat_for_long_enough():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    alive, ended = Thread("worker", at, None), Thread("worker", at, at)
    heartbeats = Heartbeats(["old"], 100)
    heartbeats.record({"new": alive, "gone": alive}, 120)
    heartbeats.record({"gone": ended, "never seen": ended}, 121)
    assert heartbeats.silent(130, 30) == set()
    assert heartbeats.silent(131, 30) == {"old"}
    assert heartbeats.silent(200, 30) == {"old", "new"}
    heartbeats.forget(["old"])
    assert heartbeats.silent(200, 30) == {"new"}


@SHIFTS
async def test_a_dead_owner_is_replaced_within_seconds(
    *, shift: str, connection, database, nats_server, stream, operator, event_stream, monkeypatch
):
    monkeypatch.setattr(consumer, "LEASE_S", 2.0)
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1})
    # The state that a killed owner leaves if the clock is set afterwards.
    await connection.execute("update stream_position set seen = now() + $1::text::interval", shift)
    started = time.monotonic()
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 2, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 2})
    assert time.monotonic() - started > consumer.LEASE_S, "the owner may be alive"


@SHIFTS
async def test_a_living_owner_is_not_replaced(
    *, shift: str, connection, database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator), service(database, nats_server, operator):
        await counted(operator, {"thread_starts_total": 2})
        epoch = await connection.fetchval("select epoch from stream_position")
        for n in range(1, 5):
            await connection.execute("update stream_position set seen = seen + $1::text::interval", shift)
            await send(stream, "account.added", n, account="x")
            await counted(operator, {"tallystick_accounts_added_total": n})
            await next_heartbeat(connection)
        assert await connection.fetchval("select epoch from stream_position") == epoch


async def next_heartbeat(connection) -> None:
    """Returns after the owner's next heartbeat."""
    before = await connection.fetchval("select seen from stream_position")
    async with asyncio.timeout(30):
        while await connection.fetchval("select seen from stream_position") == before:
            await asyncio.sleep(0.02)


@SHIFTS
async def test_threads_are_lost_by_silence_and_not_by_a_clock(
    *, shift: str, connection, database, nats_server, stream, operator, event_stream, monkeypatch
):
    monkeypatch.setattr("tallystick.producer.HEARTBEAT_S", 0.2)
    monkeypatch.setattr(consumer, "SILENCE_S", 3.0)
    async with service(database, nats_server, operator):
        await send(stream, "thread.started", 1, thread="t1", type="worker")
        await send(stream, "thread.started", 2, thread="t2", type="worker")
        await counted(operator, {"threadsworkeryes": 2})
        # The last heartbeat of all of them is now hours away by the clock.
        await connection.execute("update thread set seen = seen + $1::text::interval", shift)
        n = 3
        async with asyncio.timeout(20):
            while (await counters(operator))["tallystick_threads_lost_total"] < 1:
                await send(stream, "thread.heartbeat", n, threads=[{"thread": "t2", "type": "worker"}])
                n += 1
                await asyncio.sleep(0.1)
        # The service's own thread and t2, which continue, are not lost.
        await counted(operator, {"tallystick_threads_lost_total": 1, "thread_stops_total": 1})
        ended = await connection.fetch("select * from thread where ended is not null")
        assert [row["thread"] for row in ended] == ["t1"]
        # It was only slow: it reports again, and stops regularly.
        await send(stream, "thread.heartbeat", n, threads=[{"thread": "t1", "type": "worker"}])
        await send(stream, "thread.stopped", n + 1, thread="t1")
        await send(stream, "thread.stopped", n + 2, thread="t2")
        await counted(operator, {"thread_starts_total": 4, "thread_stops_total": 3})


@SHIFTS
async def test_recent_minutes_are_counted_back_from_the_last_event(
    *, shift: str, connection, database, nats_server, stream, operator, event_stream
):
    """PostgreSQL's clock does not matter: all times that the stream stored are moved against it."""
    async with service(database, nats_server, operator):
        await send(stream, "thread.started", 1, thread="t1", type="worker")
        await send(stream, "mail.sent", 1, source="mailer")
        await counted(operator, {"threadsworkeryes": 1, "events_totalmail.sent": 1})
    await connection.execute("update stream_position set stored = stored + $1::text::interval", shift)
    for column, table in (("seen", "thread"), ("started", "thread"), ("minute", "recent_count")):
        await connection.execute(f"update {table} set {column} = {column} + $1::text::interval", shift)  # noqa: S608
    async with postgres.pool(database.metrics, schema="metrics", wait_s=5) as pool:
        threads, late = await reports.threads(pool, LATE_S)
        assert (threads["yes"], threads["no"], late) == ({"worker": 1, "metrics": 1}, {}, 0)
        assert (await reports.recent(pool, 60))["events:mail.sent"] == 1
        assert sum((await reports.history(pool, "events:mail", 3))["events:mail.sent"]) == 1


async def test_rows_in_the_future_after_a_clock_was_set_back_are_not_recent(
    connection, metrics_service, stream, operator
):
    await send(stream, "thread.started", 1, thread="t1", type="worker")
    await send(stream, "mail.sent", 1, source="mailer")
    await send(
        stream, "metrics.reported", 1, "edge.1", gauges=[{"name": "tallystick_cached_tokens", "value": 7}]
    )
    await counted(operator, {"threadsworkeryes": 1, "tallystick_cached_tokens": 7})
    for table, column in (("thread", "started"), ("recent_count", "minute"), ("gauge", "at")):
        await connection.execute(f"update {table} set {column} = {column} + interval '2 hours'")  # noqa: S608
    values = await counters(operator)
    assert "threadsworkeryes" not in values
    assert "tallystick_cached_tokens" not in values, "its process may have stopped long ago"
    stats = await call(operator, METRICS_STATS, AskMetricsStats(seconds=60))
    assert isinstance(stats, MetricsStats)
    assert "events:mail.sent" not in stats.counters

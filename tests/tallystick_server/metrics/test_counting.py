"""Each event is counted once, whatever happens to its delivery."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest
from hypothesis import given, strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tallystick.contracts.events import EVENTS_STREAM, STREAM_CONSUMER
from tallystick.contracts.metrics import (
    EXPOSITION,
    METRICS_STATS,
    AskExposition,
    AskMetricsStats,
    Exposition,
    MetricsStats,
    Sample,
)
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tallystick_server.metrics.counters import State, Tally, apply, mark_lost
from tallystick_server.metrics.events import Decoded, Message, NotAnEvent, decode
from tallystick_server.metrics.exposition import text
from tallystick_server.metrics.series import NO_LABELS
from tallystick_server.metrics.store import counts, positions
from tallystick_server.runtime import postgres
from tests.support.counting import counted, counters, send, service, until_counted


async def test_duplicates_of_any_age_are_counted_once_and_gaps_are_reported(
    metrics_service, stream, operator
):
    for n in (1, 2, 2, 1, 5, 3, 5, 6):
        await send(stream, "account.added", n, account=f"a{n}")
    await counted(
        operator,
        {
            "tallystick_accounts_added_total": 4,  # 1, 2, 5, 6
            "tallystick_event_duplicates_total": 4,
            "tallystick_event_gaps_total": 2,
            "tallystick_accountsinit": 4,
        },
    )


async def test_events_without_numbers_are_counted_once_each(metrics_service, service_client, operator):
    for _ in range(3):
        await service_client.jetstream().publish(
            "tallystick.events.service.account.state", b'{"data":{"account":"x","state":"connected"}}'
        )
    await counted(operator, {"events_totalaccount.state": 3})


async def test_events_of_the_previous_version_are_counted(metrics_service, stream, operator):
    """Their subjects do not name a publisher. Those that the stream still holds must survive an upgrade."""
    await stream.publish("tallystick.events.account.deleted", b'{"data":{"account":"x"}}')
    await counted(operator, {"tallystick_accounts_deleted_total": 1})


async def test_invalid_events_are_dead_letters_and_never_block(metrics_service, stream, operator, database):
    payloads = [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"[" * 5000,
        b'{"n":-1}',
        b'{"data":{"account":5}}',
        b'{"source":"x"}',
    ]
    for payload in payloads:
        await stream.publish("tallystick.events.tokens.account.added", payload)
    subjects = ("NOUN.verb", "no\0un.verb", "nöun.verb", f"{'x' * 1900}.verb")
    for subject in subjects:
        await stream.publish(f"tallystick.events.tokens.{subject}", b"{}")
    await send(stream, "account.added", account="fine")
    dead = len(payloads) + len(subjects)
    await counted(operator, {"tallystick_accounts_added_total": 1, "tallystick_dead_letters_total": dead})
    connection = await asyncpg.connect(database.owner)
    assert await connection.fetchval("select count(*) from metrics.dead_letter") == dead
    await connection.close()


async def test_a_service_that_restarts_repeatedly_counts_exactly(
    database, nats_server, stream, operator, event_stream
):
    async def produce() -> None:
        for n in range(1, 401):
            await send(stream, "account.added", n, account="same")

    producing = asyncio.create_task(produce())
    for _ in range(4):
        async with service(database, nats_server, operator):
            before = (await counters(operator))["tallystick_accounts_added_total"]
            async with asyncio.timeout(30):
                while (await counters(operator))["tallystick_accounts_added_total"] < min(before + 20, 400):
                    await asyncio.sleep(0.001)
    await producing
    async with service(database, nats_server, operator):
        await counted(
            operator,
            {"tallystick_accounts_added_total": 400, "tallystick_event_gaps_total": 0},
        )


async def test_a_message_redelivered_after_its_commit_is_not_counted_again(
    database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator):
        await send(stream, "account.added", account="bare")
        await counted(operator, {"tallystick_accounts_added_total": 1})
    # As if the service had crashed between commit and acknowledgement: the consumer loses all acknowledgements.
    await stream.delete_consumer(EVENTS_STREAM, STREAM_CONSUMER)
    async with service(database, nats_server, operator):
        await send(stream, "account.deleted", account="bare")
        await counted(
            operator, {"tallystick_accounts_added_total": 1, "tallystick_accounts_deleted_total": 1}
        )


async def test_the_number_of_stored_dead_letters_is_limited(
    metrics_service, stream, operator, database, monkeypatch
):
    monkeypatch.setattr(counts, "RETAINED_DEAD_LETTERS", 5)
    for number in range(30):
        await stream.publish("tallystick.events.tokens.account.added", b"%d" % number)
    await counted(operator, {"tallystick_dead_letters_total": 30})
    connection = await asyncpg.connect(database.owner)
    dead_letters = await connection.fetch("select payload from metrics.dead_letter order by seq")
    assert [row["payload"] for row in dead_letters] == [b"%d" % number for number in range(25, 30)]
    await connection.close()


async def test_a_standby_takes_over_when_the_owner_stops(
    database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator) as first:
        await counted(operator, {"thread_starts_total": 1})
        async with service(database, nats_server, operator):
            await counted(operator, {"thread_starts_total": 2})
            first()
            await send(stream, "account.added", 1, account="later")
            await counted(
                operator,
                {"tallystick_accounts_added_total": 1, "thread_starts_total": 2, "thread_stops_total": 1},
            )


def message(seq: int, kind: str, n: int, **data) -> Message:
    event = {"source": "s", "boot": "b", "n": n, "type": kind, "data": data}
    stored = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seq)
    return Message(seq, f"tallystick.events.{kind}", msgspec.json.encode(event), stored)


def stopped(n: int, **data) -> Message:
    return message(n, "thread.stopped", n, thread="t", **data)


STARTED = {"thread": "t", "type": "w"}


@pytest.mark.parametrize(
    "events",
    [
        # A thread is reported by its starter and by itself, or reports are repeated after a restart.
        [
            message(1, "thread.started", 1, **STARTED),
            message(2, "thread.started", 2, **STARTED),
            stopped(3),
            stopped(4),
        ],
        # The report of its stop overtakes its last heartbeat.
        [
            message(1, "thread.started", 1, **STARTED),
            stopped(2, unexpected=True),
            message(3, "thread.heartbeat", 3, threads=[STARTED]),
            stopped(4, unexpected=True),
        ],
        # Its first heartbeat overtakes the report of its start, and the report of its stop overtakes both.
        [
            message(1, "thread.heartbeat", 1, threads=[STARTED]),
            message(2, "thread.started", 2, **STARTED),
            stopped(3),
            message(4, "thread.started", 4, **STARTED),
            message(5, "thread.heartbeat", 5, threads=[STARTED]),
        ],
        [
            stopped(1),
            message(2, "thread.started", 2, **STARTED),
            message(3, "thread.heartbeat", 3, threads=[STARTED]),
        ],
    ],
)
def test_a_thread_that_is_reported_twice_counts_once(events: list[Message]):
    state, tally = State(), Tally()
    for event in events:  # each in its own batch
        apply([decode(event)], state, tally)
    assert tally.counters[catalogue.THREAD_STARTS.name, NO_LABELS] == 1
    assert tally.counters[catalogue.THREAD_STOPS.name, NO_LABELS] == 1
    assert tally.counters[catalogue.THREADS_LOST.name, NO_LABELS] == any(
        b"unexpected" in event.payload for event in events
    )
    assert state.threads["t"].ended is not None


def test_a_lost_thread_may_continue_and_a_reported_stop_is_final():
    state, tally = State(), Tally()
    heartbeat = message(3, "thread.heartbeat", 3, threads=[STARTED])
    apply([decode(message(1, "thread.started", 1, **STARTED))], state, tally)
    state.threads["t"] = mark_lost(state.threads["t"], datetime(2026, 1, 1, 1, tzinfo=UTC), tally)
    apply([decode(stopped(2)), decode(heartbeat)], state, tally)
    assert (
        tally.counters[catalogue.THREAD_STARTS.name, NO_LABELS]
        == tally.counters[catalogue.THREAD_STOPS.name, NO_LABELS]
        == 1
    )
    state.threads["t"] = state.threads["t"]._replace(seen=datetime(2026, 1, 1, tzinfo=UTC))
    apply([decode(message(4, "thread.heartbeat", 4, threads=[STARTED]))], state, tally)
    assert tally.counters[catalogue.THREAD_STARTS.name, NO_LABELS] == 2


async def test_the_connection_states_of_the_original_are_always_reported(metrics_service, stream, operator):
    async def connections() -> dict[str, int]:
        stats = await call(operator, METRICS_STATS, AskMetricsStats(seconds=60))
        assert isinstance(stats, MetricsStats)
        return stats.connections

    none = dict.fromkeys(
        ["init", "connected", "connecting", "authenticationError", "connectError", "unset", "disconnected"], 0
    )
    assert await connections() == none
    for n, state in enumerate(("connected", "syncing"), 1):
        await send(stream, "account.state", n, account=state, state=state)
    await counted(operator, {"tallystick_accountsconnected": 1, "tallystick_accountssyncing": 1})
    assert await connections() == none | {"connected": 1, "syncing": 1}


async def test_a_thread_is_recent_for_ten_minutes(metrics_service, stream, operator, database):
    for thread, minutes in (("t1", 9), ("t2", 11)):
        await send(stream, "thread.started", minutes, thread=thread, type="worker")
    await counted(operator, {"threadsworkeryes": 2})
    connection = await asyncpg.connect(database.owner)
    for thread, minutes in (("t1", 9), ("t2", 11)):
        await connection.execute(
            "update metrics.thread set started = now() - make_interval(mins => $2) where thread = $1",
            thread,
            minutes,
        )
    await connection.close()
    await counted(operator, {"threadsworkeryes": 1, "threadsworkerno": 1})


@given(st.lists(st.tuples(st.sampled_from(["thread.started", "thread.stopped"]), st.integers(0, 5))))
def test_starts_minus_stops_is_the_number_of_running_threads(reports: list[tuple[str, int]]):
    running: set[int] = set()
    stopped_threads: set[int] = set()
    state, tally = State(), Tally()
    events: list[Decoded] = []
    for kind, thread in reports:
        # A thread starts once, and stops only after that.
        if kind == "thread.started" and thread not in running | stopped_threads:
            running.add(thread)
            data = {"thread": f"t{thread}", "type": "w"}
        elif kind == "thread.stopped" and thread in running:
            running.remove(thread)
            stopped_threads.add(thread)
            data = {"thread": f"t{thread}"}
        else:
            continue
        events.append(decode(message(len(events) + 1, kind, len(events) + 1, **data)))
    apply(events + events, state, tally)  # everything twice
    starts = tally.counters[catalogue.THREAD_STARTS.name, NO_LABELS]
    stops = tally.counters[catalogue.THREAD_STOPS.name, NO_LABELS]
    assert starts - stops == len(running) == sum(thread.ended is None for thread in state.threads.values())
    assert tally.counters[catalogue.DUPLICATES.name, NO_LABELS] == len(events)


@given(st.binary())
def test_any_payload_is_decoded_or_rejected(payload: bytes):
    with suppress(NotAnEvent):
        assert decode(
            Message(1, "tallystick.events.thread.started", payload, datetime(2026, 1, 1, tzinfo=UTC))
        )


def test_the_counters_of_the_original_are_printed_in_its_format():
    printed = text([Sample(name="thread_starts", labels={}, value=7)])
    assert printed.startswith(
        "# HELP thread_starts Number of started threads\n# TYPE thread_starts counter\nthread_starts 7\n"
        "\n"
        "# HELP thread_stops Number of stopped threads\n# TYPE thread_stops counter\nthread_stops 0\n"
    )
    families = printed.split("\n\n")
    assert [family.split()[2] for family in families] == [metric.name for metric in catalogue.ALL]
    assert printed.endswith("\n")
    assert not printed.endswith("\n\n")
    assert "\n\n" not in text([], openmetrics=True)


def test_labels_are_escaped():
    printed = text([Sample(name=catalogue.ACCOUNTS.name, labels={"state": 'a"b\\c\nd'}, value=1)])
    (family,) = [f for f in text_string_to_metric_families(printed) if f.name == catalogue.ACCOUNTS.name]
    assert family.samples[0].labels == {"state": 'a"b\\c\nd'}


def test_every_metric_has_a_help_text_and_a_unique_name():
    assert all(metric.help for metric in catalogue.ALL)
    assert len({metric.name for metric in catalogue.ALL}) == len(catalogue.ALL)


async def test_reports_of_processes_are_added_once(stream, metrics_service, operator):
    report = {
        "counters": [
            {"name": "tallystick_token_checks_total", "labels": {"result": "ok"}, "value": 5},
            {"name": "tallystick_token_verify_seconds_bucket", "labels": {"le": "0.1"}, "value": 2},
            {"name": "tallystick_token_verify_seconds_count", "value": 2},
            {"name": "tallystick_token_verify_seconds_sum", "value": 250_000},
            {"name": "tallystick_token_verify_seconds_bucket", "labels": {"le": "much"}, "value": 1},
            {"name": "of_nobody", "value": 3},
            {"name": "tallystick_token_checks_total", "labels": {"colour": "red"}, "value": 4},
        ],
        "gauges": [{"name": "tallystick_cached_tokens", "value": 7}],
    }
    for source, n in (("edge.1", 1), ("edge.1", 1), ("edge.2", 1)):
        await send(stream, "metrics.reported", n, source, **report)
    await counted(
        operator,
        {
            "tallystick_token_checks_totalok": 10,
            "tallystick_token_verify_seconds_bucket0.1": 4,
            "tallystick_token_verify_seconds_count": 4,
            "tallystick_token_verify_seconds_sum": 0.5,
            "tallystick_series_dropped_total": 16,
            "tallystick_cached_tokens": 14,
        },
    )


async def test_gauges_whose_sum_overflows_do_not_break_a_scrape(stream, metrics_service, operator):
    for source in ("edge.1", "edge.2"):
        gauges = [{"name": "tallystick_cached_tokens", "value": value} for value in (7, 1.7e308)]
        await send(stream, "metrics.reported", 1, source, gauges=gauges)
    await counted(operator, {"tallystick_cached_tokens": 14, "tallystick_series_dropped_total": 2})


async def test_requests_are_counted_by_method_status_and_route(stream, metrics_service, operator):
    calls = [
        {"method": "get", "statusCode": 200, "route": "/v1/stats", "count": 3},
        {"method": "get", "statusCode": 401, "route": "/v1/stats", "count": 2},
    ]
    await send(stream, "api.calls", 1, calls=calls)
    await counted(operator, {"api_call_totalget200/v1/stats": 3, "api_call_totalget401/v1/stats": 2})
    stats = await call(operator, METRICS_STATS, AskMetricsStats(seconds=60))
    assert isinstance(stats, MetricsStats)
    assert (stats.counters["apiCall:success"], stats.counters["apiCall:fail"]) == (3, 2)


async def test_the_number_of_series_is_limited(stream, metrics_service, operator, monkeypatch):
    monkeypatch.setattr("tallystick_server.metrics.series.MAX_SERIES", 20)
    for number in range(40):
        await send(stream, f"thing.happened{number}", number + 1)
    await until_counted(operator, "tallystick_series_dropped_total", 20)
    assert len([name for name in await counters(operator) if name.startswith("events_total")]) == 20


async def test_openmetrics_differs_in_family_names_and_not_in_sample_names(metrics_service, operator):
    # Until then the two expositions below may be of different events.
    await counted(operator, {"thread_starts_total": 1})
    texts = []
    for openmetrics_format in (False, True):
        reply = await call(operator, EXPOSITION, AskExposition(openmetrics=openmetrics_format))
        assert isinstance(reply, Exposition)
        texts.append(reply.text)
    plain, named = ({line.split("{")[0].split(" ")[0] for line in text.splitlines()} for text in texts)
    assert plain - {""} == named >= {"thread_starts", "tallystick_dead_letters_total"}
    kinds = {family.name: family.type for family in openmetrics.text_string_to_metric_families(texts[1])}
    assert kinds["thread_starts"] == "unknown"
    assert kinds["tallystick_dead_letters"] == "counter"
    assert kinds["tallystick_token_verify_seconds"] == "histogram"


async def test_sources_that_skip_to_the_highest_number_block_nothing(stream, metrics_service, operator):
    for number in range(12):
        await send(stream, "account.added", 2**62 - 1, f"tokens.{number}", account="a")
    calls = [{"method": "GET", "statusCode": 200, "route": "/", "count": 2**60}]
    await send(stream, "api.calls", 1, calls=calls)
    await send(stream, "account.added", 1, "tokens.well-behaved", account="b")
    await counted(operator, {"tallystick_accounts_added_total": 13, "tallystick_dead_letters_total": 1})


async def test_an_owner_that_lost_its_lease_writes_nothing(stream, metrics_service, operator, database):
    await send(stream, "account.added", 1, account="one")
    await counted(operator, {"tallystick_accounts_added_total": 1})
    async with (
        postgres.pool(database.metrics, schema="metrics", wait_s=5) as pool,
        pool.acquire() as connection,
    ):
        lease = await positions.lease(connection, EVENTS_STREAM)
        assert lease is not None
        before = await connection.fetchval("select seq from stream_position")
        own_epoch = await positions.take_over(connection, EVENTS_STREAM, lease)
        assert await positions.take_over(connection, EVENTS_STREAM, lease) is None, (
            "the lease can be taken over once only"
        )
        current = await positions.lease(connection, EVENTS_STREAM)
        assert own_epoch is not None
        assert current is not None
        await positions.take_over(connection, EVENTS_STREAM, current)
        with pytest.raises(positions.NotTheOwner):
            await positions.move(connection, EVENTS_STREAM, own_epoch, before)
        await positions.resign(connection, EVENTS_STREAM, own_epoch + 1)
    # The service lost its lease too; it takes over again and continues to count.
    await send(stream, "account.added", 2, account="two")
    await counted(operator, {"tallystick_accounts_added_total": 2})

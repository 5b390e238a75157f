"""The stream is counted a second time, and a counter that differs from it is detected."""

from collections import Counter

import asyncpg
import pytest
from hypothesis import given, strategies as st

from tallystick.contracts.events import EVENTS_STREAM
from tallystick_server.metrics import reconciliation
from tallystick_server.metrics.reconciliation import total_difference
from tallystick_server.metrics.series import NO_LABELS, Labels
from tests.support.counting import counted, counters, send, service, until_counted

DIFFERENCE = "tallystick_recount_difference_events"
TIME = "tallystick_recount_timestamp_seconds"
MESSAGES = "tallystick_recounted_messages_total"


@pytest.fixture(autouse=True)
def frequent_reconciliation(monkeypatch):
    monkeypatch.setattr(reconciliation, "POLL_S", 0.05)


async def send_all_kinds(stream) -> None:
    """Events of each kind: counted, duplicated, with gaps, without numbers, dead, reported."""
    sent = [(n, "tokens.a") for n in (1, 2, 2, 1, 5, 3, 6)] + [(n, "tokens.b") for n in (4, 4, 5)]
    for n, source in sent:
        await send(stream, "account.added", n, source, account="a")
    await send(stream, "thread.started", 7, "tokens.a", thread="t", type="worker")
    await send(stream, "thread.stopped", 8, "tokens.a", thread="never started")
    calls = [{"method": "GET", "statusCode": 200, "route": "/", "count": 3}]
    await send(stream, "api.calls", 1, calls=calls)
    report = [{"name": "tallystick_token_checks_total", "labels": {"result": "ok"}, "value": 5}]
    await send(stream, "metrics.reported", 2, counters=[*report, {"name": "nobody's", "value": 2}])
    await send(stream, "noun.verb", source="mailer")
    await stream.publish("tallystick.events.tokens.account.added", b"{")


async def corrupt(database, statement: str) -> None:
    connection = await asyncpg.connect(database.owner)
    assert (await connection.execute(f"update metrics.counter set {statement}")).endswith(" 1")  # noqa: S608
    await connection.close()


async def first_comparison(operator) -> int:
    """The number of messages when the recount had first caught up."""
    await counted(operator, {DIFFERENCE: 0})
    return int((await counters(operator))[MESSAGES])


async def compared_after(operator, messages: int) -> float:
    """The difference that is compared after this many messages are recounted."""
    await until_counted(operator, MESSAGES, messages)
    await until_counted(operator, TIME, (await counters(operator))[TIME] + 1e-6)
    return (await counters(operator))[DIFFERENCE]


async def test_both_counts_agree_for_all_kinds_of_events(metrics_service, stream, operator):
    before = await first_comparison(operator)
    await send_all_kinds(stream)
    assert await compared_after(operator, before + 16) == 0
    await counted(operator, {"tallystick_event_duplicates_total": 4, "tallystick_dead_letters_total": 1})


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        ("value = value - 1 where labels->>'event' = 'account.added'", 1),
        ("value = value + 7 where name = 'tallystick_event_duplicates_total'", 7),
        ("value = 0 where name = 'api_call'", 3),
    ],
)
@pytest.mark.usefixtures("metrics_service")
async def test_a_counter_that_was_changed_by_hand_is_detected(
    statement: str, difference: int, stream, operator, database
):
    await first_comparison(operator)
    await send_all_kinds(stream)
    await counted(operator, {"tallystick_dead_letters_total": 1, DIFFERENCE: 0})
    await corrupt(database, statement)
    await counted(operator, {DIFFERENCE: difference})
    await send(stream, "account.added", 9, "tokens.a", account="b")
    await counted(operator, {"tallystick_event_gaps_total": 5, DIFFERENCE: difference})


async def test_a_recount_continues_after_a_restart_and_detects_changes_in_between(
    database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator):
        before = await first_comparison(operator)
        await send_all_kinds(stream)
        await counted(operator, {"tallystick_dead_letters_total": 1})
    await corrupt(database, "value = value + 2 where labels->>'event' = 'account.added'")
    async with service(database, nats_server, operator):
        await send_all_kinds(stream)  # all are duplicates, except those without a number
        assert await compared_after(operator, before + 32) == 2


@pytest.mark.usefixtures("event_stream")
async def test_messages_that_the_stream_has_dropped_are_not_compared(
    database, nats_server, stream, operator, monkeypatch
):
    async with service(database, nats_server, operator):
        await first_comparison(operator)
    monkeypatch.setattr(reconciliation, "POLL_S", 600)
    async with service(database, nats_server, operator):
        for n in range(1, 6):
            await send(stream, "account.added", n, account="a")
        await counted(operator, {"tallystick_accounts_added_total": 5})
    connection = await asyncpg.connect(database.owner)
    position = await connection.fetchval("select seq from metrics.stream_position")
    await connection.close()
    await stream.purge_stream(EVENTS_STREAM, seq=position)
    monkeypatch.setattr(reconciliation, "POLL_S", 0.05)
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 6, account="a")
        await counted(operator, {"tallystick_accounts_added_total": 6, DIFFERENCE: 0})


@given(st.dictionaries(st.tuples(st.text(max_size=1), st.just(NO_LABELS)), st.integers(0, 2**70)))
def test_the_difference_is_zero_only_if_both_counts_agree(recounted: dict[tuple[str, Labels], int]):
    stored = Counter({key: min(value, 2**63 - 1) for key, value in recounted.items()})
    assert total_difference(stored, Counter(recounted)) == 0
    stored["more", NO_LABELS] += 3
    assert total_difference(stored, Counter(recounted)) == 3
    assert total_difference(Counter(recounted), stored) >= 3
    assert total_difference(stored + Counter({("thread_starts", NO_LABELS): 5}), stored) == 0

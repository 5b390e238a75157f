"""The reply to a scrape fits one NATS message, whatever is reported."""

import random
import string
from datetime import UTC, datetime

import asyncpg
import msgspec

from tallystick.contracts.events import (
    EVENTS_STREAM,
    AccountState,
    ApiCall,
    ApiCalls,
    Counted,
    Measured,
    MetricsReported,
    ThreadStarted,
)
from tallystick.contracts.metrics import (
    EXPOSITION,
    METRICS_HISTORY,
    METRICS_STATS,
    AskExposition,
    AskHistory,
    AskMetricsStats,
    Exposition,
    History,
    MetricsStats,
)
from tallystick.contracts.operation import Failure
from tallystick.rpc.call import call
from tallystick_server.metrics.counters import State, Tally, apply
from tallystick_server.metrics.events import Decoded, Message
from tallystick_server.metrics.handlers import OTHER, WORDS_BYTES, largest
from tallystick_server.metrics.series import COUNTER_BYTES, NO_LABELS
from tallystick_server.metrics.store import counts
from tallystick_server.runtime import postgres

MAX_PAYLOAD = 1 << 20
RANDOM = random.Random(5)
CHARACTERS = string.printable.replace("\0", "") + "äöüßéèλжщ"  # escaped or not, one byte or two


def noise(length: int) -> str:
    return "".join(RANDOM.choices(CHARACTERS, k=length))


def event(data: msgspec.Struct, kind: str = "noun.verb") -> Decoded:
    message = Message(1, f"tallystick.events.{kind}", b"", datetime(2026, 1, 1, tzinfo=UTC))
    return Decoded(message, kind, None, None, None, data)


def everything_at_once() -> list[Decoded]:
    def word() -> str:
        return noise(RANDOM.choice((1, 30, 256)))

    calls = [ApiCall(method=word(), status_code=n % 600, route=word(), count=2**40) for n in range(1500)]
    counters = [
        Counted(name=name, labels={label: word()}, value=2**40)
        for name, label in (
            ("tallystick_token_checks_total", "result"),
            ("tallystick_process_cpu_seconds_total", "service"),
            ("tallystick_token_verify_seconds_bucket", "le"),
        )
        for _ in range(1200)
    ]
    gauges = [
        Measured(name=name, labels={label: word()}, value=RANDOM.random() * 1e300)
        for name, label in (("tallystick_tokens", "state"), ("tallystick_loop_lag_seconds", "service"))
        for _ in range(1200)
    ]
    return [
        *(event(AccountState(account=f"a{n}", state=noise(64))) for n in range(3000)),
        *(event(ThreadStarted(thread=f"t{n}", type=noise(256))) for n in range(1000)),
        *(event(AccountState(account="a", state="x"), f"noun{n}.{'v' * 60}") for n in range(1200)),
        event(MetricsReported(counters=tuple(counters), gauges=tuple(gauges))),
        event(ApiCalls(calls=tuple(calls))),
    ]


async def test_the_reply_to_a_scrape_fits_one_message(metrics_service, operator, database):
    state, tally = State(), Tally()
    apply(everything_at_once(), state, tally)
    dropped = tally.counters["tallystick_series_dropped_total", NO_LABELS]
    assert dropped > 0
    async with (
        postgres.pool(database.metrics, schema="metrics", wait_s=5) as pool,
        pool.acquire() as connection,
    ):
        await counts.save(connection, EVENTS_STREAM, state, tally)
    reply = await call(operator, EXPOSITION, AskExposition())
    assert isinstance(reply, Exposition), reply
    assert len(reply.text) > COUNTER_BYTES / 2
    assert f"tallystick_series_dropped_total {dropped}\n" in reply.text
    size = len(msgspec.json.encode(reply))
    assert MAX_PAYLOAD / 2 < size < MAX_PAYLOAD
    stats = await call(operator, METRICS_STATS, AskMetricsStats(seconds=0))
    assert isinstance(stats, MetricsStats)


def test_names_from_outside_are_limited_and_the_sum_is_kept():
    numbers = {noise(RANDOM.randrange(1, 256)): RANDOM.randrange(100) for _ in range(500)}
    largest_numbers = largest(numbers)
    assert len(largest_numbers) <= 101
    assert OTHER in largest_numbers
    assert sum(largest_numbers.values()) == sum(numbers.values())
    assert len("".join(largest_numbers).encode()) < WORDS_BYTES
    assert largest({"connected": 3, "init": 3}) == {"connected": 3, "init": 3}


async def test_a_history_too_long_for_one_reply_is_a_bad_request(metrics_service, operator, database):
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "insert into metrics.recent_count (minute, name, value) select date_trunc('minute', now()), 'events:a.b' || n, 1"
        " from generate_series(1, 1000) n"
    )
    await connection.close()
    failure = await call(operator, METRICS_HISTORY, AskHistory(minutes=1440, kind="events:a.b"))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.errors[0].field) == ("bad_request", "minutes")
    history = await call(operator, METRICS_HISTORY, AskHistory(minutes=60, kind="events:a.b"))
    assert isinstance(history, History)
    assert sum(map(sum, history.counts.values())) == 1000

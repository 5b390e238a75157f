"""No number that is sent or stored stops the counting, a scrape or a query."""

import asyncpg
import pytest

from tallystick.contracts.metrics import (
    METRICS_HISTORY,
    METRICS_STATS,
    AskHistory,
    AskMetricsStats,
    History,
    MetricsStats,
)
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tallystick_server.metrics.store.counts import MOST_COUNTED
from tests.support.counting import counted, counters, send

EDGE = "tallystick.events.edge"


@pytest.mark.usefixtures("metrics_service")
async def test_counters_stop_at_their_maximum_and_queries_still_work(stream, operator, database):
    calls = [{"method": "GET", "statusCode": 200, "route": "/", "count": 2**40}]
    await send(stream, "api.calls", 1, "edge.1", calls=calls * 200)
    name = "api_call_totalGET200/"
    await counted(operator, {name: float(200 * 2**40)})
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "update metrics.counter set value = $1 where name = 'api_call'", MOST_COUNTED - 5
    )
    await connection.execute("update metrics.recent_count set value = $1", MOST_COUNTED)
    await connection.execute(
        "insert into metrics.recent_count select minute - interval '1 minute', name, value from metrics.recent_count"
    )
    for n in (2, 3):
        await send(stream, "api.calls", n, "edge.1", calls=calls * 200)
        await send(stream, "account.added", n, account="x")
    await counted(operator, {"tallystick_accounts_added_total": 2, name: float(MOST_COUNTED)})
    assert (
        await connection.fetchval("select value from metrics.counter where name = 'api_call'") == MOST_COUNTED
    )
    await connection.close()
    stats = await call(operator, METRICS_STATS, AskMetricsStats(seconds=3600))
    assert isinstance(stats, MetricsStats), stats
    assert stats.counters["apiCall:success"] == MOST_COUNTED
    history = await call(operator, METRICS_HISTORY, AskHistory(minutes=60, kind="apiCall"))
    assert isinstance(history, History), history


@pytest.mark.usefixtures("metrics_service")
async def test_events_with_numbers_out_of_range_are_dead_letters(stream, operator):
    payloads = [
        *(f'{{"data":{{"calls":[{{"method":"GET","statusCode":200,"route":"/","count":{count}}}]}}}}'
          for count in ("-1", str(2**40 + 1), str(2**64), "1.5", "1e999", "NaN", '"1"')),
        *(f'{{"data":{{"calls":[{{"method":"GET","statusCode":{status},"route":"/","count":1}}]}}}}'
          for status in ("-1", "1000", str(2**70), "9" * 5000, "1e400", "null")),
    ]  # fmt: skip
    for payload in payloads:
        await stream.publish(f"{EDGE}.api.calls", payload.encode())
    gauges = ("1e999", "-1e999", "NaN", "Infinity", '"7"')
    for value in gauges:
        report = f'{{"data":{{"gauges":[{{"name":"tallystick_cached_tokens","value":{value}}}]}}}}'
        await stream.publish(f"{EDGE}.metrics.reported", report.encode())
    await counted(operator, {"tallystick_dead_letters_total": len(payloads) + len(gauges)})


@pytest.mark.usefixtures("metrics_service")
async def test_extreme_gauges_are_shown_or_dropped(stream, operator):
    for number, value in enumerate((1e300, -1e300, 5e-324, 1.7e308, -1.7e308, 7)):
        gauges = [{"name": "tallystick_cached_tokens", "value": value}]
        await send(stream, "metrics.reported", 1, f"edge.{number}", gauges=gauges)
    await counted(operator, {"tallystick_series_dropped_total": 2})
    assert abs((await counters(operator))["tallystick_cached_tokens"]) <= 1e300


@pytest.mark.usefixtures("metrics_service")
async def test_extreme_times_and_sequence_numbers_of_events_block_nothing(stream, operator):
    subject = "tallystick.events.mailer.mail.sent"
    times = ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
    for n, time in enumerate(times, 1):
        event = f'{{"source":"mailer","boot":"b","n":{n},"time":"{time}","data":{{}}}}'
        await stream.publish(subject, event.encode())
    for source, n in (
        ("mailer.a", 2**62 - 1),
        ("mailer.b", 2**62 - 1),
        ("mailer.a", 1),
        ("mailer.a", 2**62 - 1),
    ):
        await send(stream, "mail.sent", n, source)
    for n in (0, -1, 2**62, 2**63, 2**64):
        await send(stream, "mail.sent", n, "mailer.c")
    await send(stream, "account.added", 1, account="after")
    await counted(
        operator,
        {
            "tallystick_accounts_added_total": 1,
            "tallystick_event_duplicates_total": 2,
            catalogue.DEAD_LETTERS.name: 5,
            "events_totalmail.sent": 5,
        },
    )

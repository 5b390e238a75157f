"""Labels are counted, stored and shown unchanged, with any characters and in any order."""

import random
from typing import Any

import asyncpg
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tallystick.contracts.metrics import (
    EXPOSITION,
    SNAPSHOT,
    AskExposition,
    AskSnapshot,
    Exposition,
    Sample,
    Snapshot,
)
from tallystick.contracts.operation import Failure
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tallystick_server.metrics.exposition import text
from tallystick_server.metrics.store import schema
from tallystick_server.runtime.postgres import migrate
from tests.support.counting import counted, send

DROPPED = catalogue.SERIES_DROPPED.name
REQUESTS = catalogue.HTTP_REQUESTS.name
STRANGE = (
    "",
    "a\\",
    '"',
    "a\nb",
    "\\n",
    "a\tb\x01",
    '",x="y',
    "{}",
    "ä\U0001f600",
    "'; drop table counter; --",
)


def noise(seed: int, length: int = 256) -> str:
    """Random characters of four bytes each, which do not compress."""
    generator = random.Random(seed)
    return "".join(chr(generator.randrange(0x10000, 0x10FFFF)) for _ in range(length))


def requests(handler: str, method: str = "GET", code: str = "200") -> dict[str, Any]:
    return {"name": REQUESTS, "labels": {"handler": handler, "method": method, "code": code}, "value": 1}


@pytest.mark.usefixtures("metrics_service")
async def test_labels_too_long_for_the_index_are_dropped_and_counting_continues(stream, operator):
    longest = [requests(noise(n), noise(n + 1), noise(n + 2)) for n in (1, 4)]
    shorter = requests(noise(7), noise(8), noise(9, 60))
    await send(stream, "metrics.reported", 1, "edge.1", counters=[*longest, shorter])
    for length in (60, 256):
        memory = {"name": catalogue.MEMORY.name, "labels": {"service": noise(10)}, "value": length}
        source = f"edge.{noise(11, 251)}"
        event = {"source": source, "boot": noise(12, length), "n": 1, "data": {"gauges": [memory]}}
        await stream.publish("tallystick.events.edge.metrics.reported", msgspec.json.encode(event))
    await send(stream, "account.added", 1, account="after")
    await counted(
        operator,
        {
            "tallystick_accounts_added_total": 1,
            f"{REQUESTS}{noise(7)}{noise(8)}{noise(9, 60)}": 1,
            f"{catalogue.MEMORY.name}{noise(10)}": 60,
            DROPPED: 3,
        },
    )


@pytest.mark.usefixtures("metrics_service")
async def test_the_same_labels_in_another_order_are_the_same_series(stream, operator):
    counter = requests("health")
    reordered = {**counter, "labels": dict(reversed(counter["labels"].items()))}
    await send(stream, "metrics.reported", 1, "edge.1", counters=[counter, reordered, counter])
    await counted(operator, {f"{REQUESTS}healthGET200": 3})


@pytest.mark.usefixtures("metrics_service")
async def test_a_snapshot_has_the_same_series_as_the_exposition(stream, operator):
    counters = [
        *(requests(value) for value in STRANGE if value),
        {"name": "tallystick_process_cpu_seconds_total", "labels": {"service": "edge"}, "value": 1_500_000},
        {"name": f"{catalogue.VERIFY_SECONDS.name}_bucket", "labels": {"le": "+Inf"}, "value": 2},
        {"name": f"{catalogue.VERIFY_SECONDS.name}_sum", "value": 3_000_000},
        {"name": f"{catalogue.VERIFY_SECONDS.name}_count", "value": 2},
    ]
    await send(stream, "metrics.reported", 1, "edge.1", counters=counters)
    await counted(operator, {"tallystick_process_cpu_seconds_totaledge": 1.5})
    metrics = (REQUESTS, catalogue.CPU.name, catalogue.VERIFY_SECONDS.name)
    snapshot = await call(operator, SNAPSHOT, AskSnapshot(metrics=metrics))
    assert isinstance(snapshot, Snapshot), snapshot
    assert {sample.labels.get("handler", "") for sample in snapshot.samples} == {*STRANGE}
    assert {sample.name: sample.value for sample in snapshot.samples if sample.name != REQUESTS} == {
        catalogue.CPU.name: 1.5,
        f"{catalogue.VERIFY_SECONDS.name}_bucket": 2,
        f"{catalogue.VERIFY_SECONDS.name}_sum": 3,
        f"{catalogue.VERIFY_SECONDS.name}_count": 2,
    }
    everything = await call(operator, SNAPSHOT, AskSnapshot(metrics=tuple(catalogue.BY_NAME)))
    exposition = await call(operator, EXPOSITION, AskExposition())
    assert isinstance(everything, Snapshot)
    assert isinstance(exposition, Exposition)

    def printed(page: str) -> set[str]:
        changing = (
            "tallystick_process",
            "tallystick_loop",
            "tallystick_event",
            "events",
            "tallystick_recount",
        )
        return {line for line in page.splitlines() if not line.startswith(changing)}

    assert printed(text(everything.samples)) == printed(exposition.text)


@pytest.mark.usefixtures("metrics_service")
async def test_a_snapshot_too_large_for_one_reply_is_a_bad_request(operator, database):
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "insert into metrics.counter select 'events', jsonb_build_object('event', n || repeat('x', 200)), 1"
        " from generate_series(1, 5000) n"
    )
    await connection.close()
    rejection = await call(operator, SNAPSHOT, AskSnapshot(metrics=("events",)))
    assert isinstance(rejection, Failure)
    assert (rejection.code, rejection.errors[0].field) == ("bad_request", "metrics")
    assert isinstance(await call(operator, SNAPSHOT, AskSnapshot(metrics=("threads",))), Snapshot)


async def test_labels_stored_as_text_become_data(database):
    """Version 0.1 stored labels in the format that Prometheus prints."""
    connection = await asyncpg.connect(database.owner)
    await connection.execute("drop schema metrics cascade")
    await connection.execute("create schema metrics")
    *before, labels = schema.available_migrations()
    assert labels.name == "labels"
    await migrate(connection, schema.SCHEMA, before)
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    rows = [
        (f'handler="{value.translate(escapes)}",code="200"', number) for number, value in enumerate(STRANGE)
    ]
    rows += [(f'code="200",handler="{value.translate(escapes)}"', 100) for value in STRANGE]
    for table in ("counter", "recount_counter"):
        await connection.executemany(
            f"insert into metrics.{table} (name, labels, value) values ('x', $1, $2)",  # noqa: S608
            rows,
        )
        await connection.execute(
            f"insert into metrics.{table} values ('plain', '', 7), ('x', '', {2**63 - 1})"  # noqa: S608
        )
    await schema.bring_up_to_date(connection)
    for table in ("counter", "recount_counter"):
        stored = await connection.fetch(f"select name, labels, value from metrics.{table}")  # noqa: S608
        assert {
            (row["name"], *sorted(msgspec.json.decode(row["labels"]).items()), row["value"]) for row in stored
        } == {
            *(("x", ("code", "200"), ("handler", value), n + 100) for n, value in enumerate(STRANGE)),
            ("plain", 7),
            ("x", 2**63 - 1),
        }
    await connection.close()


def test_prometheus_reads_the_labels_that_are_printed():
    samples = [Sample(name="events", labels={"event": value}, value=1) for value in STRANGE]
    (events,) = [f for f in text_string_to_metric_families(text(samples)) if f.name == "events"]
    assert {sample.labels["event"] for sample in events.samples} == {*STRANGE}

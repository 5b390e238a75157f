"""Counters stay exact through any crash: 100,000 events of several sources, while the metrics services, NATS,
PostgreSQL, the edge and the tokens service are killed and stopped, writes of NATS fail, the stream is full repeatedly,
and PostgreSQL's clock is set back and forward.

    .venv/bin/python -m tests.chaos.counting --events 100000

Every event that was sent is counted exactly once, no scraped counter ever decreased, and the counted, duplicate and dead
events add up to all that the stream ever stored.

    .venv/bin/python -m tests.chaos.counting --events 10000 --restore

An older copy of the stream is restored, and events continue. Nothing is counted until an operator has decided. Then all
acknowledged events are counted, from before and after the restore.
"""

import argparse
import asyncio
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

import asyncpg
import nats
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tallystick import connection as bus, producer as events
from tallystick.contracts.events import EVENTS_STREAM, AccountState
from tallystick.contracts.metrics import RESUME_COUNTING, ResumeCounting
from tallystick.contracts.operation import Actor, Failure
from tallystick.rpc.call import call
from tallystick_server.runtime import postgres
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.http import Connection

KIND = "account.state"
STREAM_BYTES = 2 << 20
"""About 8,000 events: old ones must be removed all the time."""
NOT_COUNTERS = {"gauge", "untyped", "unknown"}


class Outcome(NamedTuple):
    """``accounted``: the counted, duplicate and dead events; ``stored``: the messages that the stream stored;
    ``difference``: the difference that the metrics service's own recount reports.
    """

    sent: int
    counted: int
    decreases: list[str]
    scrapes: int
    accounted: int
    stored: int
    difference: float
    seconds: float
    faults: list[str]


class Scraper:
    """Scrapes /metrics repeatedly."""

    def __init__(self, running: Fleet) -> None:
        self._running = running
        self._highest: dict[str, float] = {}
        self.decreases: list[str] = []
        self.scrapes = 0

    async def scrape_forever(self) -> None:
        while True:
            for port in self._running.ports:
                with closing(Connection(port)) as connection:
                    await self.scrape(connection)
            await asyncio.sleep(0.1)

    async def scrape(self, connection: Connection) -> dict[str, float]:
        response = await connection.send("GET", "/metrics", self._running.admin)
        if response.status != 200:
            return {}
        self.scrapes += 1
        families = list(text_string_to_metric_families(response.body.decode()))
        values = _samples(families)
        for name, highest in self._highest.items():
            if values.get(name, -1) < highest:
                self.decreases.append(f"{name}: {highest} to {values.get(name)}")
        self._highest |= _samples(family for family in families if family.type not in NOT_COUNTERS)
        return values


def _samples(families: Iterable[Metric]) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in families
        for sample in family.samples
    }


async def send_events(running: Fleet, name: str, count: int) -> None:
    """Sends this many events and returns when NATS has stored them all."""
    client = await nats.connect(
        running.nats_url("service"),
        inbox_prefix="_INBOX.service",
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        ping_interval=1,
        pending_size=0,
        error_cb=_ignore,
    )
    try:
        async with events.producer(client, name) as producer:
            for number in range(count):
                producer.send(KIND, AccountState(account=f"{name}-{number % 50}", state="connected"))
                if number % 50 == 49:
                    await asyncio.sleep(0.3)  # so that it takes long enough for faults to occur
            await producer.drain()
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """An error of NATS while it is unavailable."""


async def failed_write(running: Fleet) -> None:
    """A write of NATS fails, as on a full disk: it stores nothing from then on until it is restarted."""
    (nats_part,) = running.named("nats")
    process = nats_part.process
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        await asyncio.sleep(1)
    finally:
        process.kill()
        await process.wait()
    await nats_part.start()


async def clock_set_back(running: Fleet) -> None:
    """PostgreSQL's clock is set back: every stored time is ahead of it."""
    await _move_times(running, "2 hours")


async def clock_set_forward(running: Fleet) -> None:
    await _move_times(running, "-2 hours")


async def _move_times(running: Fleet, by: str) -> None:
    connection = await asyncpg.connect(running.database_url("metrics"), timeout=10)
    await connection.execute(f"update metrics.stream_position set seen = seen + interval '{by}'")  # noqa: S608
    await connection.execute(f"update metrics.thread set seen = seen + interval '{by}'")  # noqa: S608
    await connection.close()


async def run(*, count: int, seed: int, sources: int = 8) -> Outcome:
    started = time.monotonic()
    async with fleet(edges=2, replicas=1, counters=2, lease_s=1, stream_max_bytes=STREAM_BYTES) as running:
        scraper = Scraper(running)
        scraping = asyncio.create_task(scraper.scrape_forever())
        more = (failed_write, clock_set_back, clock_set_forward)
        trouble = asyncio.create_task(running.trouble(random.Random(seed), longest_s=3, more=more))
        try:
            await asyncio.gather(
                *(send_events(running, f"service.{n}", count // sources) for n in range(sources))
            )
        finally:
            trouble.cancel()
            scraping.cancel()
            await asyncio.gather(trouble, scraping, return_exceptions=True)
        seconds = time.monotonic() - started
        counted, accounted, stored = await _final_counts(running, scraper, count // sources * sources)
        difference = await _recount_difference(running, scraper, stored)
    return Outcome(
        sent=count // sources * sources,
        counted=counted,
        decreases=scraper.decreases,
        scrapes=scraper.scrapes,
        accounted=accounted,
        stored=stored,
        difference=difference,
        seconds=seconds,
        faults=running.happened,
    )


class Restored(NamedTuple):
    """``counted_before``: before the older copy was restored; ``counted_while_halted``: before an operator has decided."""

    acknowledged: int
    counted: int
    counted_before: int
    counted_while_halted: int
    decreases: list[str]
    difference: float


async def restore(*, count: int, sources: int = 4) -> Restored:
    """A quarter of the events before a copy of the stream is made, one after it, and two after it is restored."""
    events_per_source = count // 4 // sources
    quarter = events_per_source * sources

    async def send(round_: int) -> None:
        await asyncio.gather(
            *(send_events(running, f"service.{round_}-{n}", events_per_source) for n in range(sources))
        )

    async with fleet(edges=1, replicas=1, counters=2, lease_s=1) as running:
        scraper = Scraper(running)
        copy = running.nats_folder.with_name("copy")
        await send(1)
        await _until_counted(running, scraper, quarter)
        async with _stopped_nats(running):
            shutil.copytree(running.nats_folder, copy)
        await send(2)
        await _until_counted(running, scraper, 2 * quarter)
        async with _stopped_nats(running):
            shutil.rmtree(running.nats_folder)
            copy.rename(running.nats_folder)
        await send(3)
        await _until(running, scraper, "tallystick_counting_refused[]", 1)
        for part in running.named("metrics"):
            await part.kill()
            await part.start()
        await send(4)
        await _until(running, scraper, "tallystick_counting_refused[]", 1)
        counted_while_halted = await _until_counted(running, scraper, 2 * quarter)
        async with bus.connect(running.nats_url("operator"), "operator", wait_s=30) as client:
            request = ResumeCounting(actor=Actor(name="proof"))
            while isinstance(await call(client, RESUME_COUNTING, request), Failure):
                await asyncio.sleep(0.1)
        counted = await _until_counted(running, scraper, 4 * quarter)
        async with bus.connect(running.nats_url("events"), "events", wait_s=30) as client:
            stored = (await client.jetstream().stream_info(EVENTS_STREAM)).state.last_seq
        difference = await _recount_difference(running, scraper, stored)
    return Restored(4 * quarter, counted, 2 * quarter, counted_while_halted, scraper.decreases, difference)


@asynccontextmanager
async def _stopped_nats(running: Fleet) -> AsyncIterator[None]:
    (part,) = running.named("nats")
    part.process.terminate()
    await part.process.wait()
    yield
    await part.start()


async def _until_counted(running: Fleet, scraper: Scraper, number: int) -> int:
    return int(await _until(running, scraper, f"events_total[('event', '{KIND}')]", number))


async def _until(running: Fleet, scraper: Scraper, name: str, value: float) -> float:
    """Scrapes until a series has this value, or for a minute, and returns its last value."""
    deadline = time.monotonic() + 60
    actual = 0.0
    while actual != value and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        with closing(Connection(running.ports[0])) as connection:
            actual = (await scraper.scrape(connection)).get(name, actual)
    return actual


async def _final_counts(running: Fleet, scraper: Scraper, sent: int) -> tuple[int, int, int]:
    """The events that were counted in the end; those counted, duplicate or dead; and those that the stream ever stored."""
    deadline = time.monotonic() + 60
    async with bus.connect(running.nats_url("events"), "events", wait_s=30) as client:
        counted = accounted = stored = 0
        while time.monotonic() < deadline:
            with closing(Connection(running.ports[0])) as connection:
                stored = (await client.jetstream().stream_info(EVENTS_STREAM)).state.last_seq
                values = await scraper.scrape(connection)
            counted = int(values.get(f"events_total[('event', '{KIND}')]", 0))
            kinds = sum(value for name, value in values.items() if name.startswith("events_total"))
            accounted = int(
                kinds
                + values.get("tallystick_event_duplicates_total[]", 0)
                + values.get("tallystick_dead_letters_total[]", 0)
            )
            # Heartbeats continue, so both numbers are read together until they are equal.
            if counted >= sent and accounted == stored:
                break
            await asyncio.sleep(0.1)
        return counted, accounted, stored


async def _recount_difference(running: Fleet, scraper: Scraper, stored: int) -> float:
    """The difference that is compared after the recount has read this many messages."""
    url = running.database_url("metrics")
    async with postgres.pool(url, schema="metrics", wait_s=30) as pool, asyncio.timeout(120):
        while not await pool.fetchval("select seq >= $1 from recount", stored):
            await asyncio.sleep(0.2)
        read = await pool.fetchval("select now()")
        while not await pool.fetchval("select compared > $1 from recount", read):
            await asyncio.sleep(0.2)
    with closing(Connection(running.ports[0])) as connection:
        return (await scraper.scrape(connection))["tallystick_recount_difference_events[]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--restore", action="store_true", help="restore an older copy of the stream")
    arguments = parser.parse_args()
    if arguments.restore:
        restored = asyncio.run(restore(count=arguments.events))
        print(restored)
        exact = (
            restored.counted == restored.acknowledged
            and restored.counted_while_halted == restored.counted_before
        )
        raise SystemExit(0 if exact and not restored.decreases and not restored.difference else 1)
    outcome = asyncio.run(run(count=arguments.events, seed=arguments.seed))
    print(f"seed {arguments.seed}, {outcome.seconds:.0f} s; what happened: {dict(Counter(outcome.faults))}")
    print(f"sent {outcome.sent}, counted {outcome.counted}")
    print(
        f"{outcome.scrapes} scrapes, counters that decreased: {len(outcome.decreases)} {outcome.decreases[:3]}"
    )
    print(f"the stream stored {outcome.stored}, counted, duplicate and dead together: {outcome.accounted}")
    print(f"the recount is off by {outcome.difference:g}")
    exact = outcome.sent == outcome.counted and outcome.stored == outcome.accounted and not outcome.difference
    raise SystemExit(0 if exact and not outcome.decreases else 1)


if __name__ == "__main__":
    main()

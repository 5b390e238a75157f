"""Counters stay exact through any crash: 100,000 events of several sources, while the metrics services, NATS,
PostgreSQL, the edge and the tokens service are killed and stopped, writes of NATS fail, the stream is full again and
again, and PostgreSQL's clock is set back and forth.

    .venv/bin/python -m tests.chaos.counting --events 100000

Every event that was sent is counted exactly once, no counter that was scraped ever went down, and what is counted,
delivered twice or dead is all that the stream ever stored.

    .venv/bin/python -m tests.chaos.counting --events 10000 --restore

An older copy of the stream is restored, and events go on. Nothing is counted, until an operator has decided; then all
events that were acknowledged are counted, before and after the copy was restored.
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
"""Some 8,000 events: the stream has to make room all the time."""
NOT_COUNTERS = {"gauge", "untyped", "unknown"}


class Outcome(NamedTuple):
    """``accounted``: what the stream's messages became; ``stored``: how many there were; ``difference``: what the
    metrics service's own recount of them shows.
    """

    sent: int
    counted: int
    went_down: list[str]
    scrapes: int
    accounted: int
    stored: int
    difference: float
    seconds: float
    happened: list[str]


class Scraper:
    """Asks for /metrics again and again."""

    def __init__(self, running: Fleet) -> None:
        self._running = running
        self._highest: dict[str, float] = {}
        self.went_down: list[str] = []
        self.scrapes = 0

    async def forever(self) -> None:
        while True:
            for port in self._running.ports:
                with closing(Connection(port)) as connection:
                    await self.scrape(connection)
            await asyncio.sleep(0.1)

    async def scrape(self, connection: Connection) -> dict[str, float]:
        answer = await connection.send("GET", "/metrics", self._running.admin)
        if answer.status != 200:
            return {}
        self.scrapes += 1
        families = list(text_string_to_metric_families(answer.body.decode()))
        found = _samples(families)
        for name, highest in self._highest.items():
            if found.get(name, -1) < highest:
                self.went_down.append(f"{name}: {highest} to {found.get(name)}")
        self._highest |= _samples(family for family in families if family.type not in NOT_COUNTERS)
        return found


def _samples(families: Iterable[Metric]) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in families
        for sample in family.samples
    }


async def source(running: Fleet, name: str, count: int) -> None:
    """Sends so many events and returns when NATS has stored them all."""
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
                    await asyncio.sleep(0.3)  # so that it takes long enough for things to happen
            await producer.drain()
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """What NATS says while it is away."""


async def failed_write(running: Fleet) -> None:
    """A write of NATS fails, as on a full disk: it stores nothing from then on, until it is restarted."""
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
    """PostgreSQL's clock: every time it stored is ahead of it."""
    await _move_times(running, "2 hours")


async def clock_set_forth(running: Fleet) -> None:
    await _move_times(running, "-2 hours")


async def _move_times(running: Fleet, by: str) -> None:
    connection = await asyncpg.connect(running.database_url("metrics"), timeout=10)
    await connection.execute(f"update metrics.stream_position set seen = seen + interval '{by}'")  # noqa: S608
    await connection.execute(f"update metrics.thread set seen = seen + interval '{by}'")  # noqa: S608
    await connection.close()


async def prove(*, count: int, seed: int, sources: int = 8) -> Outcome:
    began = time.monotonic()
    async with fleet(edges=2, replicas=1, counters=2, lease_s=1, stream_max_bytes=STREAM_BYTES) as running:
        scraper = Scraper(running)
        scraping = asyncio.create_task(scraper.forever())
        more = (failed_write, clock_set_back, clock_set_forth)
        trouble = asyncio.create_task(running.trouble(random.Random(seed), longest_s=3, more=more))
        try:
            await asyncio.gather(*(source(running, f"service.{n}", count // sources) for n in range(sources)))
        finally:
            trouble.cancel()
            scraping.cancel()
            await asyncio.gather(trouble, scraping, return_exceptions=True)
        seconds = time.monotonic() - began
        counted, accounted, stored = await _settled(running, scraper, count // sources * sources)
        difference = await _recounted(running, scraper, stored)
    return Outcome(
        sent=count // sources * sources,
        counted=counted,
        went_down=scraper.went_down,
        scrapes=scraper.scrapes,
        accounted=accounted,
        stored=stored,
        difference=difference,
        seconds=seconds,
        happened=running.happened,
    )


class Restored(NamedTuple):
    """``counted_before`` the older copy was put back; ``while_refused``: the same as long as nobody had decided."""

    acknowledged: int
    counted: int
    counted_before: int
    while_refused: int
    went_down: list[str]
    difference: float


async def restore(*, count: int, sources: int = 4) -> Restored:
    """A quarter of the events before a copy of the stream is made, one after it, and two once it was put back."""
    each = count // 4 // sources
    quarter = each * sources

    async def send(round_: int) -> None:
        await asyncio.gather(*(source(running, f"service.{round_}-{n}", each) for n in range(sources)))

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
        while_refused = await _until_counted(running, scraper, 2 * quarter)
        async with bus.connect(running.nats_url("operator"), "operator", wait_s=30) as client:
            request = ResumeCounting(actor=Actor(name="proof"))
            while isinstance(await call(client, RESUME_COUNTING, request), Failure):
                await asyncio.sleep(0.1)
        counted = await _until_counted(running, scraper, 4 * quarter)
        async with bus.connect(running.nats_url("events"), "events", wait_s=30) as client:
            stored = (await client.jetstream().stream_info(EVENTS_STREAM)).state.last_seq
        difference = await _recounted(running, scraper, stored)
    return Restored(4 * quarter, counted, 2 * quarter, while_refused, scraper.went_down, difference)


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
    """Scrapes until a series has this value, or for a minute; answers the value it has then."""
    deadline = time.monotonic() + 60
    found = 0.0
    while found != value and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        with closing(Connection(running.ports[0])) as connection:
            found = (await scraper.scrape(connection)).get(name, found)
    return found


async def _settled(running: Fleet, scraper: Scraper, sent: int) -> tuple[int, int, int]:
    """What was counted in the end, and what became of all that the stream ever stored."""
    deadline = time.monotonic() + 60
    async with bus.connect(running.nats_url("events"), "events", wait_s=30) as client:
        counted = accounted = stored = 0
        while time.monotonic() < deadline:
            with closing(Connection(running.ports[0])) as connection:
                stored = (await client.jetstream().stream_info(EVENTS_STREAM)).state.last_seq
                found = await scraper.scrape(connection)
            counted = int(found.get(f"events_total[('event', '{KIND}')]", 0))
            kinds = sum(value for name, value in found.items() if name.startswith("events_total"))
            accounted = int(
                kinds
                + found.get("tallystick_event_duplicates_total[]", 0)
                + found.get("tallystick_dead_letters_total[]", 0)
            )
            # Heartbeats go on, so the two are read together until they meet.
            if counted >= sent and accounted == stored:
                break
            await asyncio.sleep(0.1)
        return counted, accounted, stored


async def _recounted(running: Fleet, scraper: Scraper, stored: int) -> float:
    """The difference, compared after the recount had read as much."""
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
            restored.counted == restored.acknowledged and restored.while_refused == restored.counted_before
        )
        raise SystemExit(0 if exact and not restored.went_down and not restored.difference else 1)
    found = asyncio.run(prove(count=arguments.events, seed=arguments.seed))
    print(f"seed {arguments.seed}, {found.seconds:.0f} s; what happened: {dict(Counter(found.happened))}")
    print(f"sent {found.sent}, counted {found.counted}")
    print(f"{found.scrapes} scrapes, counters that went down: {len(found.went_down)} {found.went_down[:3]}")
    print(f"the stream stored {found.stored}, counted, doubled and dead together: {found.accounted}")
    print(f"the recount is off by {found.difference:g}")
    exact = found.sent == found.counted and found.stored == found.accounted and not found.difference
    raise SystemExit(0 if exact and not found.went_down else 1)


if __name__ == "__main__":
    main()

"""What a scrape of ten thousand series costs the edge and the metrics service, beside what prometheus-client takes to
print as many; medians.

    .venv/bin/python -m bench.scrape
"""

import gzip
import os
import statistics
import time
from contextlib import closing
from pathlib import Path

import asyncpg
import uvloop
from prometheus_client import CollectorRegistry, Counter, generate_latest

from tests.chaos.fleet import fleet, pids_of
from tests.chaos.http import Connection

SERIES = 10_000
ROUNDS = 40
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def processor_s(pids: list[int]) -> float:
    spent = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return sum(int(user) + int(system) for user, system in spent) * TICK_S


def peer() -> float:
    """Seconds of prometheus-client for the same series, compressed alike."""
    registry = CollectorRegistry()
    counter = Counter("events", "Events", ["event"], registry=registry)
    for number in range(SERIES):
        counter.labels(event=f"order.shipped_{number}").inc(number)
    began = time.perf_counter()
    gzip.compress(generate_latest(registry), compresslevel=1)
    return time.perf_counter() - began


async def run() -> None:
    async with fleet(edges=1, replicas=1, counters=1) as running:
        connection = await asyncpg.connect(running.database_url("metrics"))
        await connection.execute(
            "insert into metrics.counter select 'events', jsonb_build_object('event', 'order.shipped_' || n), n"
            " from generate_series(1, $1) as n",
            SERIES,
        )
        await connection.close()
        pids = [pid for name in ("edge", "metrics") for part in running.named(name) for pid in pids_of(part)]
        took, theirs = [], []
        with closing(Connection(running.ports[0])) as http:
            while (await http.send("GET", "/metrics", running.admin)).status != 200:
                pass
            before = processor_s(pids)
            for _ in range(ROUNDS):
                began = time.perf_counter()
                answer = await http.send("GET", "/metrics", running.admin)
                took.append(time.perf_counter() - began)
                assert answer.status == 200
                assert answer.body.count(b"\nevents{") >= SERIES
                theirs.append(peer())
            spent = (processor_s(pids) - before) / ROUNDS
    ours = statistics.median(took)
    print(f"{SERIES} series, {len(answer.body):,} bytes: {ours * 1e3:.1f} ms from request to answer")
    print(f"processor time of edge and metrics service together: {spent * 1e3:.1f} ms a scrape")
    print(
        f"prometheus-client, printing and compressing alone: {statistics.median(theirs) * 1e3:.1f} ms,",
        end=" ",
    )
    print(f"ratio {statistics.median(theirs) / ours:.2f}")


if __name__ == "__main__":
    uvloop.run(run())

"""What clients see while a cluster loses its parts one by one, and while all of it is restarted.

    .venv/bin/python -m tests.chaos.cluster [--lives 2] [--seconds 8]

Three kinds of clients run all the time. Users send `/auth` a valid token and, like a proxy, try another edge if one
breaks the connection or cannot decide. Lives create a token, use it at every edge, revoke it, and keep using it: if it is
accepted after its revocation has returned, that is a stale accept. A producer sends numbered events, which must be
counted once each.
"""

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import nats

from tallystick import connection as bus, producer as events
from tallystick.contracts.events import EVENTS_STREAM
from tallystick_server.local.cluster import Options, Running, cluster, first_token
from tests.chaos.http import Connection
from tests.chaos.revocation import History, live

TRIES = 8
KIND = "proof.sent"


class Sent(msgspec.Struct):
    pass


class Users:
    """The responses to users, as (time of the response, status after retries)."""

    def __init__(self, ports: list[int], token: str) -> None:
        self.responses: list[tuple[float, int]] = []
        self.retries = 0
        self._ports = ports
        self._token = token

    async def send_requests(self, number: int) -> None:
        """Sends requests until cancelled."""
        async with AsyncExitStack() as stack:
            connections = [stack.enter_context(closing(Connection(port))) for port in self._ports]
            for turn in itertools.count(number):
                for attempt in range(TRIES):
                    connection = connections[(turn + attempt) % len(connections)]
                    status = (await connection.send("GET", "/auth?scope=api", self._token)).status
                    if status not in {0, 503}:
                        break
                    self.retries += 1
                    await asyncio.sleep(0.02 * attempt)
                self.responses.append((time.monotonic(), status))
                await asyncio.sleep(0.005)

    def summary(self, since: int) -> str:
        part = self.responses[since:]
        accepted = [at for at, status in part if status == 200]
        gap = max((later - at for at, later in itertools.pairwise(accepted)), default=float("inf"))
        failures = sum(status != 200 for _, status in part)
        return f"{len(part)} requests, {failures} failed, longest gap {gap:.2f} s"


async def leader(running: Running) -> str:
    """The node that leads the event stream."""
    url = running.nats_url("events")
    async with bus.connect(url, "events", wait_s=10, authority=running.authority) as client:
        info = await client.jetstream().stream_info(EVENTS_STREAM)
        return (info.cluster.leader if info.cluster and info.cluster.leader else "nats-0").replace("-", " ")


def kill_and_restart(running: Running, name: str, down_s: float) -> Callable[[], Awaitable[None]]:
    async def happen() -> None:
        await running.parts[name].kill()
        await asyncio.sleep(down_s)
        await running.parts[name].start()

    return happen


async def fail_over(running: Running) -> None:
    await running.parts["postgres 0"].kill()
    await running.fail_over()


async def restart_all(running: Running) -> None:
    for name, part in running.parts.items():
        if not name.startswith("postgres"):
            await part.stop()
            await part.start()
            await asyncio.sleep(2)


async def run(lives: int, seconds: float) -> bool:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tally-")))
        running = await stack.enter_async_context(cluster(Options(lease_s=5), folder))
        token = await first_token(running)
        history, users = History(), Users(running.ports, token)
        fleet: Any = SimpleNamespace(ports=running.ports, admin=token)
        numbers = itertools.count()
        stopped = asyncio.Event()
        living = itertools.takewhile(lambda _: not stopped.is_set(), numbers)
        tasks = [asyncio.create_task(users.send_requests(number)) for number in range(4)]
        operator = await stack.enter_async_context(
            bus.connect(running.nats_url("operator"), "operator", wait_s=10, authority=running.authority)
        )
        loads = [asyncio.create_task(live(fleet, operator, history, living)) for _ in range(lives)]
        client = await nats.connect(
            running.nats_url("service").split(","),
            inbox_prefix="_INBOX.service",
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=1,
        )
        stack.push_async_callback(client.close)
        producer = await stack.enter_async_context(events.producer(client, "service.proof"))
        sent = 0

        async def send() -> None:
            nonlocal sent
            while not stopped.is_set():
                producer.send(KIND, Sent())
                sent += 1
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(send())
        await asyncio.sleep(2)
        for fault, happen in [
            ("nothing", lambda: asyncio.sleep(0)),
            *(
                (f"kill {name}", kill_and_restart(running, name, 2))
                for name in running.parts
                if not name.startswith("postgres")
            ),
            ("kill the stream's leader", kill_and_restart(running, await leader(running), 2)),
            ("kill PostgreSQL's primary, the standby takes over", lambda: fail_over(running)),
            ("restart everything else, one after the other", lambda: restart_all(running)),
        ]:
            since = len(users.responses)
            started = time.monotonic()
            await happen()
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - started)))
            print(f"{fault}: {users.summary(since)}", flush=True)
        stopped.set()
        await asyncio.gather(*loads, sending)
        await asyncio.wait_for(producer.drain(), 60)
        counted = await count(running.ports[0], token, sent)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    stale = len(history.violations())
    durations = sorted(history.call_s)
    print(f"statuses {dict(Counter(status for _, status in users.responses))}, {users.retries} tried again")
    print(
        f"{len(history.returned)} secrets ended, call p50 {durations[len(durations) // 2]:.3f} s, longest {durations[-1]:.2f} s; stale accepts: {stale}"
    )
    print(
        f"events sent {sent}, counted {counted}, lost {max(0, sent - counted)}, doubled {max(0, counted - sent)}"
    )
    return stale == 0 and counted == sent


async def count(port: int, token: str, expected: int) -> int:
    """The number of counted events of this test, polled until it is as expected, for at most a minute."""
    ends = time.monotonic() + 60
    counted = 0
    with closing(Connection(port)) as connection:
        while time.monotonic() < ends:
            response = await connection.send("GET", "/v1/stats?seconds=86400", token)
            if response.status == 200:
                counted = json.loads(response.body)["counters"].get(f"events:{KIND}", 0)
            if counted >= expected:
                break
            await asyncio.sleep(0.5)
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--lives", type=int, default=2, help="how many tokens are created and revoked at a time"
    )
    parser.add_argument("--seconds", type=float, default=8, help="how long each fault is observed")
    raise SystemExit(0 if asyncio.run(run(**vars(parser.parse_args()))) else 1)


if __name__ == "__main__":
    main()

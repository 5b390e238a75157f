"""A real Prometheus beside a fleet: `.venv/bin/pytest -s tests/e2e/test_prometheus.py`.

A separate command, since it needs Debian's prometheus and takes some minutes.
"""

import asyncio
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from tallystick import producer as events
from tallystick.contracts.events import AccountState
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.http import Connection
from tests.monitoring.labels import VARIABLES
from tests.monitoring.server import Prometheus, prometheus
from tests.monitoring.test_queries import PANELS, rules

pytestmark = pytest.mark.asyncio(loop_scope="module")

KIND = "order.placed"
SOURCES = 4
TROUBLE_S = 75
SEED = 129  # has NATS and PostgreSQL killed more than once
ORIGINALS = {"thread_starts", "thread_stops", "threads", "unresponsive_workers", "api_call", "events"}
"""Names and labels that are older than the conventions."""


class Monitored(NamedTuple):
    fleet: Fleet
    prometheus: Prometheus
    token: str


class Order(msgspec.Struct):
    number: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def monitored() -> AsyncIterator[Monitored]:
    """A fleet with every kind of traffic, and a Prometheus that scrapes both edges."""
    async with asyncio.timeout(480), fleet(edges=2, replicas=2, counters=2, lease_s=1) as running:
        token = await issue(running, scopes=["metrics"])
        using = asyncio.create_task(use(running))
        try:
            with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
                async with prometheus(Path(folder), running.ports, token) as server:
                    yield Monitored(running, server, token)
        finally:
            using.cancel()
            await asyncio.gather(using, return_exceptions=True)


async def issue(running: Fleet, **fields: object) -> str:
    return str(json.loads((await request(running, "POST", "/v1/tokens", fields)).decode())["token"])


async def request(running: Fleet, method: str, target: str, body: object = None) -> bytes:
    """The body of an edge's response; retries while services start."""
    async with asyncio.timeout(30):
        while True:
            with closing(Connection(running.ports[0])) as connection:
                payload = None if body is None else json.dumps(body).encode()
                response = await connection.send(method, target, running.admin, payload)
            if 200 <= response.status < 300:
                return response.body
            await asyncio.sleep(0.1)


async def connect(running: Fleet) -> Client:
    return await nats.connect(
        running.nats_url("service"),
        inbox_prefix="_INBOX.service",
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        ping_interval=1,
        pending_size=0,
        error_cb=_ignore,
    )


async def _ignore(_: Exception) -> None:
    """Ignores the errors of NATS while it is unavailable."""


async def use(running: Fleet) -> None:
    """Sends everything that changes the metrics, repeatedly; requests may fail while parts are unavailable."""
    client = await connect(running)
    limit = {"maxRequests": 5, "timeWindow": 1}
    limited = await issue(running, scopes=["orders"], restrictions={"rateLimit": limit})
    try:
        async with events.producer(client, "service.shop") as producer:
            while True:
                producer.send("account.state", AccountState(account="bob", state="connected"))
                async with producer.thread("worker"):
                    for port in running.ports:
                        with closing(Connection(port)) as connection:
                            await _requests(connection, running.admin, limited)
                    await asyncio.sleep(0.5)
    finally:
        await client.close()


async def _requests(connection: Connection, admin: str, limited: str) -> None:
    for _ in range(8):
        await connection.send("GET", "/auth?scope=orders", limited)
    await connection.send("POST", "/v1/account", admin, b'{"account": "alice"}')
    await connection.send("DELETE", "/v1/account/alice", admin)
    await connection.send("GET", "/v1/tokens", limited)
    await connection.send("GET", "/v1/tokens", "f" * 64)
    response = await connection.send("POST", "/v1/tokens", admin, b'{"scopes": ["orders"]}')
    if response.status == 201:
        token = json.loads(response.body)
        await connection.send("GET", "/auth?scope=orders", token["token"])
        await connection.send("DELETE", f"/v1/tokens/{token['id']}", admin)


def both_edges(value: float) -> "Counter[float]":
    return Counter({value: 2})


async def test_up_is_1_with_the_right_token_and_0_with_any_other(monitored: Monitored):
    file = monitored.prometheus.token
    up = 'up{job="tallystick"}'
    await monitored.prometheus.until(up, lambda values: Counter(values) == both_edges(1))
    file.write_text("f" * 64)
    await monitored.prometheus.until(up, lambda values: Counter(values) == both_edges(0))
    assert await last_errors(monitored) == {"server returned HTTP status 401 Unauthorized"}
    file.write_text(monitored.token + "\n")
    await monitored.prometheus.until(up, lambda values: Counter(values) == both_edges(1))
    file.write_text(await issue(monitored.fleet, scopes=["orders"]))
    await monitored.prometheus.until(up, lambda values: Counter(values) == both_edges(0))
    assert await last_errors(monitored) == {"server returned HTTP status 403 Forbidden"}
    file.unlink()
    await monitored.prometheus.until(up, lambda values: Counter(values) == both_edges(0))
    async with asyncio.timeout(20):
        while not all("unable to read" in error for error in await last_errors(monitored)):
            await asyncio.sleep(0.2)
    file.write_text(monitored.token)
    await monitored.prometheus.until(up, lambda values: Counter(values) == both_edges(1))


async def last_errors(monitored: Monitored) -> set[str]:
    targets = (await monitored.prometheus.api("targets"))["activeTargets"]
    return {target["lastError"] for target in targets}


async def test_promtool_reports_only_names_of_the_original(monitored: Monitored):
    text = (await request(monitored.fleet, "GET", "/metrics")).decode()
    lines = (await promtool(text)).splitlines()
    assert {line.partition(" ")[0] for line in lines} <= ORIGINALS, lines
    ours = [line for line in text.splitlines() if not set(line.replace("{", " ").split()[:3]) & ORIGINALS]
    assert len(ours) > 60
    assert await promtool("\n".join([*ours, ""])) == ""


async def test_prometheus_treats_the_original_s_counters_as_counters(monitored: Monitored):
    for name in ("thread_starts", "thread_stops", "api_call", "events"):
        async with asyncio.timeout(30):
            while len(entries := await monitored.prometheus.api("targets/metadata", metric=name)) < 2:
                await asyncio.sleep(0.2)
        assert [entry["type"] for entry in entries] == ["counter", "counter"]


async def promtool(text: str) -> str:
    """The output of `promtool check metrics`."""
    process = await asyncio.create_subprocess_exec(
        "promtool",
        "check",
        "metrics",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(text.encode()), 20)
    return output.decode().strip()


async def test_every_rule_is_evaluated(monitored: Monitored):
    async with asyncio.timeout(30):
        while True:
            groups = (await monitored.prometheus.api("rules"))["groups"]
            loaded_rules = [rule for group in groups for rule in group["rules"]]
            if all(rule["health"] != "unknown" for rule in loaded_rules):
                break
            await asyncio.sleep(0.2)
    assert [rule["health"] for rule in loaded_rules] == ["ok"] * len(list(rules()))
    print(f"\n{len(loaded_rules)} rules are evaluated, none with an error")


async def test_every_panel_has_something_to_show(monitored: Monitored):
    targets = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
    deadline = time.monotonic() + 60
    while empty := [
        f"{title}: {target['expr']}"
        for title, target in targets
        if not await shows(monitored.prometheus, target)
    ]:
        assert time.monotonic() < deadline, empty
        await asyncio.sleep(1)
    print(f"\n{len(targets)} queries of {len(PANELS)} panels, each with a result that is not empty")


async def shows(server: Prometheus, target: dict[str, str]) -> bool:
    expr = target["expr"]
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    now = time.time()
    if target["instant"]:
        return bool(await server.query(expr))
    return bool(await server.query_range(expr, now - 120, now, 5))


async def test_an_increase_over_kills_and_stops_matches_the_sent_events(monitored: Monitored):
    """The stored counter is compared: `increase()` over exactly the time between two samples, for which it extrapolates
    nothing, and the difference of the two.
    """
    running, server = monitored.fleet, monitored.prometheus
    series = f'events{{job="tallystick",event="{KIND}"}}'
    await place(running, "first", 1, 0)
    await server.until(series, lambda values: Counter(values) == both_edges(1), 60)
    start = time.time()
    per_source = 2500
    trouble = asyncio.create_task(running.trouble(random.Random(SEED), longest_s=3))
    try:
        await asyncio.gather(*(place(running, f"shop-{n}", per_source, TROUBLE_S) for n in range(SOURCES)))
    finally:
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)
    duration_s = time.time() - start
    sent = per_source * SOURCES
    await server.until(series, lambda values: Counter(values) == both_edges(1 + sent), 90)
    print(f"\n{duration_s:.0f} s; what happened: {dict(Counter(running.happened))}; sent: {sent}")
    assert len(running.happened) > 10, "nothing was killed or stopped"
    for result in await server.query(f"{series}[15m]"):
        only = series.replace("}", f',instance="{result.labels["instance"]}"}}')
        (first, low), (last, high) = result.samples[0], result.samples[-1]
        window = f"{only}[{round((last - first) * 1000)}ms]"
        ((_, [(_, grown)]),) = await server.query(f"increase({window})", last)
        ((_, [(_, resets)]),) = await server.query(f"resets({window})", last)
        ((_, [(_, usual)]),) = await server.query(f"increase({only}[10m])", last)
        print(
            f"{result.labels['instance']}: {len(result.samples)} samples, {low:g} to {high:g}: {high - low:g};"
            f" increase() from the first to the last: {grown:g}, resets: {resets:g};"
            f" increase()[10m], extrapolated: {usual:.2f}"
        )
        assert (low, high - low, round(grown, 6), resets) == (1, sent, sent, 0)
        values = [value for _, value in result.samples]
        assert values == sorted(values)


async def place(running: Fleet, name: str, count: int, over_s: float) -> None:
    """Sends this number of events over that time, and returns when NATS has stored them all."""
    client = await connect(running)
    try:
        async with events.producer(client, f"service.{name}") as producer:
            for number in range(count):
                producer.send(KIND, Order(number))
                await asyncio.sleep(over_s / count)
            await producer.drain()
    finally:
        await client.close()

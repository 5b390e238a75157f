"""A rate limit is never exceeded, and almost fully granted: with three edges and two replicas that are killed and stopped,
while the limit is edited and the token rotated.

    .venv/bin/python -m tests.chaos.rate_limit --seconds 300

Windows are those of PostgreSQL, which runs on this machine and has the same clock. A request that started and finished
within one window was admitted in it. More of these than the highest limit that was in force in the window are a violation.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tests.chaos.fleet import Fleet, fleet
from tests.chaos.http import Connection

WINDOW_S = 2
MAX_EXTRA_S = 60
"""How much longer than requested the load runs, until enough has happened."""


class Admitted(NamedTuple):
    """Seconds since the epoch."""

    started: float
    finished: float


class LimitInForce(NamedTuple):
    """A limit, from the time at which its edit was sent until the edit to another limit has returned."""

    limit: int
    since: float
    until: float = float("inf")


class History:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.limits = [LimitInForce(limit, float("-inf"))]
        self.admitted: list[Admitted] = []
        self.in_demand: set[int] = set()
        """The windows in which a request was certainly rejected, so that demand exceeded what was admitted."""
        self.statuses: Counter[int] = Counter()
        self.edits: Counter[str] = Counter()

    def within(self) -> Counter[int]:
        """The number of requests that were certainly admitted in each window."""
        return Counter(
            int(request.finished // WINDOW_S)
            for request in self.admitted
            if request.started // WINDOW_S == request.finished // WINDOW_S
        )

    def highest_limit(self, window: int) -> int:
        start = window * WINDOW_S
        return max(
            limit.limit for limit in self.limits if limit.since < start + WINDOW_S and limit.until >= start
        )

    def violations(self) -> dict[int, int]:
        return {
            window: count for window, count in self.within().items() if count > self.highest_limit(window)
        }

    def used(self) -> float:
        """The share of the limit that was admitted in the whole windows of `in_demand`. A request on the boundary of two windows
        counts for both. NaN without such windows.
        """
        counts = Counter(
            window
            for request in self.admitted
            for window in {int(request.started // WINDOW_S), int(request.finished // WINDOW_S)}
        )
        whole = self.in_demand & set(sorted(counts)[1:-1])
        if not whole:
            return float("nan")
        return sum(min(counts[window], self.limit) for window in whole) / (self.limit * len(whole))


class Family(NamedTuple):
    """The id and the value of the current token, one element each."""

    id: list[str]
    value: list[str]


async def load(port: int, family: Family, history: History, is_done: Callable[[], bool]) -> None:
    connection = Connection(port)
    try:
        while not is_done():
            started = time.time()
            status = (await connection.send("GET", "/auth?scope=api", family.value[0])).status
            history.statuses[status] += 1
            finished = time.time()
            if status == 200:
                history.admitted.append(Admitted(started, finished))
            elif started // WINDOW_S == finished // WINDOW_S:
                history.in_demand.add(int(finished // WINDOW_S))
            await asyncio.sleep(0.02 if status in {0, 503} else 0.002)
    finally:
        connection.close()


async def edit(running: Fleet, family: Family, history: History, chance: random.Random) -> None:
    """Edits the limit and rotates the token, until cancelled."""
    for port in itertools.cycle(running.ports):
        await asyncio.sleep(chance.uniform(0.1, 1))
        connection = Connection(port)
        try:
            if chance.random() < 0.5:
                await rotate(connection, running, family, history)
            else:
                limit = chance.randint(history.limit // 3, history.limit)
                await edit_limit(connection, running, family, history, limit)
        finally:
            connection.close()


async def edit_limit(
    connection: Connection, running: Fleet, family: Family, history: History, limit: int
) -> None:
    # In force from now on, whatever the response.
    history.limits.append(LimitInForce(limit, time.time()))
    body = json.dumps({"restrictions": _restrictions(limit)}).encode()
    response = await connection.send("PATCH", f"/v1/tokens/{family.id[0]}", running.admin, body, timeout_s=8)
    history.edits[f"edit {response.status}"] += 1
    if response.status == 200:
        returned = time.time()
        history.limits[:-1] = [
            earlier._replace(until=min(earlier.until, returned)) for earlier in history.limits[:-1]
        ]


async def rotate(connection: Connection, running: Fleet, family: Family, history: History) -> None:
    path = f"/v1/tokens/{family.id[0]}/rotate"
    response = await connection.send("POST", path, running.admin, b'{"grace": 3600}', timeout_s=8)
    history.edits[f"rotate {response.status}"] += 1
    if response.status == 201:
        successor = json.loads(response.body)
        family.id[0], family.value[0] = successor["id"], successor["token"]


async def run(
    *,
    seconds: float,
    seed: int | None,
    limit: int = 300,
    edges: int = 3,
    clients: int = 4,
    edits: bool = False,
    enough: Callable[[History, Fleet], bool] | None = None,
) -> tuple[History, Fleet]:
    """Args:
    seconds: the duration of the load.
    seed: selects the faults of the fleet; None for no faults.
    limit: requests in a window of `WINDOW_S`; the highest one, if it is edited.
    edges: the number of edges.
    clients: the number of clients of each edge.
    edits: whether the limit is edited and the token rotated.
    enough: whether enough has happened; a slow machine gets `MAX_EXTRA_S` more for it.
    """
    history = History(limit)
    async with fleet(edges=edges, replicas=2, lease_s=1) as running:
        family = await _create_limited_token(running, limit)
        trouble = asyncio.create_task(
            running.trouble(random.Random(seed), longest_s=2) if seed is not None else asyncio.sleep(0)
        )
        editing = asyncio.create_task(
            edit(running, family, history, random.Random(seed)) if edits else asyncio.sleep(0)
        )
        # Whole windows only.
        until = (time.time() // WINDOW_S + 1) * WINDOW_S + seconds

        def is_done() -> bool:
            now = time.time()
            if now < until or enough is None:
                return now >= until
            return enough(history, running) or now >= until + MAX_EXTRA_S

        loads = [load(port, family, history, is_done) for port in running.ports for _ in range(clients)]
        try:
            await asyncio.gather(*loads)
        finally:
            editing.cancel()
            trouble.cancel()
            await asyncio.gather(editing, trouble, return_exceptions=True)
    return history, running


def _restrictions(limit: int) -> dict[str, object]:
    return {"rateLimit": {"maxRequests": limit, "timeWindow": WINDOW_S}}


async def _create_limited_token(running: Fleet, limit: int) -> Family:
    body = {"scopes": ["api"], "restrictions": _restrictions(limit)}
    for connection in itertools.cycle([Connection(port) for port in running.ports]):
        response = await connection.send("POST", "/v1/tokens", running.admin, json.dumps(body).encode())
        connection.close()
        if response.status == 201:
            token = json.loads(response.body)
            return Family([token["id"]], [token["token"]])
        await asyncio.sleep(0.05)
    raise RuntimeError("no edges")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    steady, _ = asyncio.run(run(seconds=20, seed=None, limit=arguments.limit))
    print(f"undisturbed: {steady.used():.2%} of the limit, {dict(steady.statuses)}")
    with_edits, _ = asyncio.run(run(seconds=arguments.seconds, seed=None, limit=arguments.limit, edits=True))
    print(f"edited and rotated: {dict(with_edits.edits)}, {dict(with_edits.statuses)}")
    history, running = asyncio.run(
        run(seconds=arguments.seconds, seed=arguments.seed, limit=arguments.limit, edits=True)
    )
    violations = {**steady.violations(), **with_edits.violations(), **history.violations()}
    print(
        f"seed {arguments.seed}: {dict(history.statuses)}; what happened: {dict(Counter(running.happened))}"
    )
    print(f"edits and rotations: {dict(history.edits)}")
    print(
        f"windows {len(history.within())}, most admitted in one {max(history.within().values())} of {history.limit}"
    )
    print(f"violations: {len(violations)}")
    raise SystemExit(1 if violations or not steady.used() >= 0.99 else 0)


if __name__ == "__main__":
    main()

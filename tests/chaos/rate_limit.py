"""A rate limit is never exceeded, and not missed by much: over three edges and two replicas that are killed and
stopped, while the limit is edited and the token rotated.

    .venv/bin/python -m tests.chaos.rate_limit --seconds 300

Windows are PostgreSQL's, which runs on this machine: its clock is ours. A request that started and ended within one
window was admitted in it; more of those than the highest limit that was in force in the window are a violation.
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
LONGEST_S = 60
"""How much longer than asked for requests are sent, until enough has happened."""


class Admitted(NamedTuple):
    """Seconds since the epoch."""

    started: float
    ended: float


class LimitInForce(NamedTuple):
    """A limit, from when an edit to it was sent until an edit to another one had returned."""

    limit: int
    since: float
    until: float = float("inf")


class History:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.limits = [LimitInForce(limit, float("-inf"))]
        self.admitted: list[Admitted] = []
        self.in_demand: set[int] = set()
        """The windows in which a request was certainly turned away: more was wanted than was admitted."""
        self.statuses: Counter[int] = Counter()
        self.edits: Counter[str] = Counter()

    def within(self) -> Counter[int]:
        """By window, the requests that were certainly admitted in it."""
        return Counter(
            int(each.ended // WINDOW_S)
            for each in self.admitted
            if each.started // WINDOW_S == each.ended // WINDOW_S
        )

    def highest_limit(self, window: int) -> int:
        start = window * WINDOW_S
        return max(
            each.limit for each in self.limits if each.since < start + WINDOW_S and each.until >= start
        )

    def violations(self) -> dict[int, int]:
        return {
            window: count for window, count in self.within().items() if count > self.highest_limit(window)
        }

    def used(self) -> float:
        """Of the limit, how much was admitted in the whole windows of `in_demand`; what falls on an edge counts for both
        sides. NaN without such windows.
        """
        counts = Counter(
            window
            for each in self.admitted
            for window in {int(each.started // WINDOW_S), int(each.ended // WINDOW_S)}
        )
        whole = self.in_demand & set(sorted(counts)[1:-1])
        if not whole:
            return float("nan")
        return sum(min(counts[window], self.limit) for window in whole) / (self.limit * len(whole))


class Family(NamedTuple):
    """The token that is used now: its id, and its value. One element each."""

    id: list[str]
    value: list[str]


async def load(port: int, family: Family, history: History, done: Callable[[], bool]) -> None:
    connection = Connection(port)
    try:
        while not done():
            started = time.time()
            status = (await connection.send("GET", "/auth?scope=api", family.value[0])).status
            history.statuses[status] += 1
            ended = time.time()
            if status == 200:
                history.admitted.append(Admitted(started, ended))
            elif started // WINDOW_S == ended // WINDOW_S:
                history.in_demand.add(int(ended // WINDOW_S))
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
    # In force from now on, whatever the answer will be.
    history.limits.append(LimitInForce(limit, time.time()))
    body = json.dumps({"restrictions": _restrictions(limit)}).encode()
    answer = await connection.send("PATCH", f"/v1/tokens/{family.id[0]}", running.admin, body, timeout_s=8)
    history.edits[f"edit {answer.status}"] += 1
    if answer.status == 200:
        returned = time.time()
        history.limits[:-1] = [each._replace(until=min(each.until, returned)) for each in history.limits[:-1]]


async def rotate(connection: Connection, running: Fleet, family: Family, history: History) -> None:
    path = f"/v1/tokens/{family.id[0]}/rotate"
    answer = await connection.send("POST", path, running.admin, b'{"grace": 3600}', timeout_s=8)
    history.edits[f"rotate {answer.status}"] += 1
    if answer.status == 201:
        successor = json.loads(answer.body)
        family.id[0], family.value[0] = successor["id"], successor["token"]


async def prove(
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
    seconds: how long requests are sent.
    seed: what happens to the fleet; None for nothing.
    limit: requests in a window of `WINDOW_S`; the highest, if it is edited.
    edges: how many edges run.
    clients: how many clients each edge has.
    edits: whether the limit is edited and the token rotated.
    enough: whether what was to happen has happened; a slow machine is given `LONGEST_S` more for it.
    """
    history = History(limit)
    async with fleet(edges=edges, replicas=2, lease_s=1) as running:
        family = await _limited(running, limit)
        trouble = asyncio.create_task(
            running.trouble(random.Random(seed), longest_s=2) if seed is not None else asyncio.sleep(0)
        )
        edited = asyncio.create_task(
            edit(running, family, history, random.Random(seed)) if edits else asyncio.sleep(0)
        )
        # Whole windows only.
        until = (time.time() // WINDOW_S + 1) * WINDOW_S + seconds

        def done() -> bool:
            now = time.time()
            if now < until or enough is None:
                return now >= until
            return enough(history, running) or now >= until + LONGEST_S

        loads = [load(port, family, history, done) for port in running.ports for _ in range(clients)]
        try:
            await asyncio.gather(*loads)
        finally:
            edited.cancel()
            trouble.cancel()
            await asyncio.gather(edited, trouble, return_exceptions=True)
    return history, running


def _restrictions(limit: int) -> dict[str, object]:
    return {"rateLimit": {"maxRequests": limit, "timeWindow": WINDOW_S}}


async def _limited(running: Fleet, limit: int) -> Family:
    wanted = {"scopes": ["api"], "restrictions": _restrictions(limit)}
    for connection in itertools.cycle([Connection(port) for port in running.ports]):
        answer = await connection.send("POST", "/v1/tokens", running.admin, json.dumps(wanted).encode())
        connection.close()
        if answer.status == 201:
            token = json.loads(answer.body)
            return Family([token["id"]], [token["token"]])
        await asyncio.sleep(0.05)
    raise RuntimeError("no edges")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    steady, _ = asyncio.run(prove(seconds=20, seed=None, limit=arguments.limit))
    print(f"undisturbed: {steady.used():.2%} of the limit, {dict(steady.statuses)}")
    edited, _ = asyncio.run(prove(seconds=arguments.seconds, seed=None, limit=arguments.limit, edits=True))
    print(f"edited and rotated: {dict(edited.edits)}, {dict(edited.statuses)}")
    history, running = asyncio.run(
        prove(seconds=arguments.seconds, seed=arguments.seed, limit=arguments.limit, edits=True)
    )
    violations = {**steady.violations(), **edited.violations(), **history.violations()}
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

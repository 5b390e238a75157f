"""A rate limit is never exceeded, and not missed by much: over three edges and two replicas that are killed and
stopped.

    .venv/bin/python -m tests.proofs.rate_limit --seconds 300

Windows are PostgreSQL's, which runs on this machine: its clock is ours. A request that started and ended within one
window was admitted in it; more of those than the limit allows are a violation.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from typing import NamedTuple

from tests.proofs.fleet import Fleet, fleet
from tests.proofs.http import Connection

WINDOW_S = 2


class Admitted(NamedTuple):
    """Seconds since the epoch."""

    started: float
    ended: float


class History:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.admitted: list[Admitted] = []
        self.statuses: Counter[int] = Counter()

    def within(self) -> Counter[int]:
        """By window, the requests that were certainly admitted in it."""
        return Counter(
            int(each.ended // WINDOW_S)
            for each in self.admitted
            if each.started // WINDOW_S == each.ended // WINDOW_S
        )

    def violations(self) -> dict[int, int]:
        return {window: count for window, count in self.within().items() if count > self.limit}

    def used(self) -> float:
        """Of the limit, how much was admitted in whole windows; what falls on an edge counts for both sides."""
        counts = Counter(
            window
            for each in self.admitted
            for window in {int(each.started // WINDOW_S), int(each.ended // WINDOW_S)}
        )
        whole = sorted(counts)[1:-1]
        return sum(min(counts[window], self.limit) for window in whole) / (self.limit * len(whole))


async def load(port: int, token: str, history: History, until: float) -> None:
    connection = Connection(port)
    try:
        while time.time() < until:
            started = time.time()
            status = (await connection.send("GET", "/auth?scope=api", token)).status
            history.statuses[status] += 1
            if status == 200:
                history.admitted.append(Admitted(started, time.time()))
            await asyncio.sleep(0.02 if status in {0, 503} else 0.002)
    finally:
        connection.close()


async def prove(
    *, seconds: float, seed: int | None, limit: int = 300, edges: int = 3, clients: int = 4
) -> tuple[History, Fleet]:
    """``seed``: what happens to the fleet; None for nothing."""
    history = History(limit)
    async with fleet(edges=edges, replicas=2, lease_s=1) as running:
        token = await _limited(running, limit)
        trouble = asyncio.create_task(
            running.trouble(random.Random(seed), longest_s=2) if seed is not None else asyncio.sleep(0)
        )
        # Whole windows only.
        until = (time.time() // WINDOW_S + 1) * WINDOW_S + seconds
        loads = [load(port, token, history, until) for port in running.ports for _ in range(clients)]
        try:
            await asyncio.gather(*loads)
        finally:
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
    return history, running


async def _limited(running: Fleet, limit: int) -> str:
    wanted = {
        "scopes": ["api"],
        "restrictions": {"rateLimit": {"maxRequests": limit, "timeWindow": WINDOW_S}},
    }
    for connection in itertools.cycle([Connection(port) for port in running.ports]):
        answer = await connection.send("POST", "/v1/tokens", running.admin, json.dumps(wanted).encode())
        connection.close()
        if answer.status == 201:
            return str(json.loads(answer.body)["token"])
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
    history, running = asyncio.run(
        prove(seconds=arguments.seconds, seed=arguments.seed, limit=arguments.limit)
    )
    violations = {**steady.violations(), **history.violations()}
    print(
        f"seed {arguments.seed}: {dict(history.statuses)}; what happened: {dict(Counter(running.happened))}"
    )
    print(
        f"windows {len(history.within())}, most admitted in one {max(history.within().values())} of {history.limit}"
    )
    print(f"violations: {len(violations)}")
    raise SystemExit(1 if violations or steady.used() < 0.99 else 0)


if __name__ == "__main__":
    main()

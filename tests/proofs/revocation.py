"""A revoked token is refused everywhere once the revoke call has returned: 20,000 revocations under load, while
edges, replicas, NATS and PostgreSQL are killed and stopped.

    .venv/bin/python -m tests.proofs.revocation --revokes 20000

Each life: a token is made, used at all edges, revoked (again and again until the call returns), and used at all
edges while and after that. A request that starts after the revoke call has returned and is let in is a violation.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from typing import Any, NamedTuple

from tests.proofs.fleet import Fleet, fleet
from tests.proofs.http import Connection

AFTER_S = 0.3
"""For how long a token is tried after it was revoked, at the least once at each edge."""


class Use(NamedTuple):
    """One request: which life, when it started (monotonic seconds), what it got."""

    life: int
    started: float
    status: int


class History:
    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.returned: dict[int, float] = {}
        self.revoke_s: list[float] = []

    def violations(self) -> list[Use]:
        """Requests that started after the revocation of their token had returned, and were let in."""
        return [
            use
            for use in self.uses
            if use.status == 200 and use.started > self.returned.get(use.life, float("inf"))
        ]

    def statuses(self, *, after: bool) -> Counter[int]:
        return Counter(
            use.status
            for use in self.uses
            if (use.started > self.returned.get(use.life, float("inf"))) == after
        )


async def live(fleet: Fleet, history: History, lives: Iterator[int]) -> None:
    """Lives of tokens, one after the other."""
    async with AsyncExitStack() as stack:
        admins = itertools.cycle([stack.enter_context(closing(Connection(port))) for port in fleet.ports])
        before = [stack.enter_context(closing(Connection(port))) for port in fleet.ports]
        after = [stack.enter_context(closing(Connection(port))) for port in fleet.ports]
        for life in lives:
            made = await make(admins, fleet.admin)
            uses = [
                asyncio.create_task(use(connection, made["token"], life, history)) for connection in before
            ]
            await asyncio.sleep(0.03)
            await revoke(admins, fleet.admin, made["id"], life, history)
            # At once, whatever the others are waiting for.
            await asyncio.gather(
                *uses, *(use(connection, made["token"], life, history) for connection in after)
            )


async def make(admins: Iterator[Connection], admin: str) -> dict[str, Any]:
    while True:
        answer = await next(admins).send("POST", "/v1/tokens", admin, b'{"scopes":["api"]}')
        if answer.status == 201:
            made: dict[str, Any] = json.loads(answer.body)
            return made


async def revoke(admins: Iterator[Connection], admin: str, token: str, life: int, history: History) -> None:
    """Revokes until the call returns."""
    status = 0
    while status != 200:
        began = time.monotonic()
        status = (await next(admins).send("DELETE", f"/v1/tokens/{token}", admin, timeout_s=10)).status
    history.returned[life] = time.monotonic()
    history.revoke_s.append(history.returned[life] - began)


async def use(connection: Connection, token: str, life: int, history: History) -> None:
    """Uses a token until a moment after its revocation has returned."""
    while True:
        started = time.monotonic()
        answer = await connection.send("GET", "/auth?scope=api", token)
        history.uses.append(Use(life, started, answer.status))
        returned = history.returned.get(life)
        if (
            returned is not None
            and started > returned
            and (answer.status == 401 or started > returned + AFTER_S)
        ):
            return
        await asyncio.sleep(0.01)


async def prove(
    *, revokes: int, seed: int, edges: int = 3, replicas: int = 2, lease_s: float = 1, at_once: int = 32
) -> tuple[History, Fleet]:
    history = History()
    async with fleet(edges=edges, replicas=replicas, lease_s=lease_s) as running:
        lives = iter(range(revokes))
        trouble = asyncio.create_task(running.trouble(random.Random(seed), longest_s=2.5 * lease_s))
        try:
            await asyncio.gather(*(live(running, history, lives) for _ in range(at_once)))
        finally:
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
    return history, running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--revokes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    began = time.monotonic()
    history, running = asyncio.run(prove(revokes=arguments.revokes, seed=arguments.seed))
    took = sorted(history.revoke_s)
    print(
        f"seed {arguments.seed}, {time.monotonic() - began:.0f} s; what happened: {Counter(running.happened)}"
    )
    print(f"{len(history.returned)} revocations, {len(history.uses)} requests")
    print(
        f"answers before: {dict(history.statuses(after=False))}, after: {dict(history.statuses(after=True))}"
    )
    print(
        f"revoke call: p50 {took[len(took) // 2]:.4f} s, p99 {took[len(took) * 99 // 100]:.4f} s, max {took[-1]:.2f} s"
    )
    print(f"violations: {len(history.violations())}")
    raise SystemExit(1 if history.violations() else 0)


if __name__ == "__main__":
    main()

"""An ended token is rejected everywhere once the call has returned: 20,000 lives under load, while edges, replicas, NATS and
PostgreSQL are killed and stopped.

    .venv/bin/python -m tests.chaos.revocation --revokes 20000

In each life, a token is created and used at all edges. It may be rotated, with or without a grace period, by an operator or
by itself. Then it is ended in one of the ways in `ENDINGS`. The call is repeated until it returns, and all secrets of its
chain are used at all edges during the call and after it. If a request with a secret that the call covers starts after the
call has returned and is accepted, it is a violation.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from typing import Any, NamedTuple

from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.coherence import propagation
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    EditToken,
    RevokeToken,
    RotateToken,
    TokenUpdate,
)
from tallystick.tokens import format as token_format
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.http import Connection, Response

AFTER_S = 0.3
"""For how long a token is used after it was ended, at least once at each edge."""
CACHED_S = 0.03
"""For how long a secret is used before the next step of its life."""
GRACE_S = 600
ENDINGS = (
    "revoke",
    "revoke by operator",
    "revoke itself",
    "revoke with descendants",
    "disable",
    "disable by operator",
    "narrow",
    "rotate",
    "delete account",
    "revoke all of account",
)
ROTATIONS = (
    None,
    ("operator", GRACE_S),
    ("operator", 0),
    ("itself", GRACE_S),
    ("itself", 0),
)
"""The actor that rotates a token before its end, and the grace period in seconds."""
OPERATOR = Actor(name="proof")


class Secret(NamedTuple):
    """``auth_target``: the target of its forward-auth requests."""

    number: int
    id: str
    value: str
    auth_target: str


class Use(NamedTuple):
    """One request: the number of its secret, its start (monotonic seconds), and the status of the response."""

    secret: int
    started: float
    status: int


class History:
    """Args:
    returned: when the call that ended each secret returned (monotonic seconds).
    endings: how many secrets the calls covered, by the way in which they were ended.
    call_s: the duration of the last attempt of each call.
    """

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.returned: dict[int, float] = {}
        self.endings: Counter[str] = Counter()
        self.call_s: list[float] = []
        self.lives = 0

    def end(self, kind: str, secrets: Sequence[Secret]) -> None:
        """Records that the call that ended these secrets has returned."""
        moment = time.monotonic()
        for secret in secrets:
            if self.returned.setdefault(secret.number, moment) == moment:
                self.endings[kind] += 1

    def violations(self) -> list[Use]:
        """Accepted requests that started after the call that ended their secret had returned."""
        return [
            use
            for use in self.uses
            if use.status == 200 and use.started > self.returned.get(use.secret, float("inf"))
        ]

    def statuses(self, *, after: bool) -> Counter[int]:
        return Counter(
            use.status
            for use in self.uses
            if (use.started > self.returned.get(use.secret, float("inf"))) == after
        )


class Worker:
    """Runs lives of tokens, one after the other, with its own connections."""

    def __init__(self, fleet: Fleet, operator: Client, history: History, stack: AsyncExitStack) -> None:
        self._fleet = fleet
        self._operator = operator
        self._history = history
        self._stack = stack
        self._ports = itertools.cycle(fleet.ports)
        self._connections: dict[tuple[str, int, int], Connection] = {}
        self._uses: list[asyncio.Task[None]] = []
        self._secrets: list[Secret] = []

    async def live(self, life: int) -> None:
        ending, rotation = ENDINGS[life % len(ENDINGS)], ROTATIONS[life // len(ENDINGS) % len(ROTATIONS)]
        self._uses, self._secrets = [], []
        account = f"life-{life}" if "account" in ending else None
        if account is not None:
            await self._send_until({200}, "POST", "/v1/account", {"account": account})
        chain = [await self._create(life, account)]
        await asyncio.sleep(CACHED_S)
        if rotation is not None:
            chain += await self._rotate(life, chain[0], *rotation)
            await asyncio.sleep(CACHED_S)
        kind, covered = await self._end(life, ending, rotation, chain, account)
        self._record_end(kind, covered)
        # Secrets that the call did not cover are revoked with the rest of the chain.
        if any(secret.number not in self._history.returned for secret in self._secrets):
            await self._send_until({200}, "DELETE", f"/v1/tokens/{chain[0].id}?descendants=true")
            self._record_end("revoke with descendants", self._secrets)
        await asyncio.gather(*self._uses)
        self._history.lives += 1

    # Steps of a life

    async def _create(self, life: int, account: str | None, by: str | None = None) -> Secret:
        body: dict[str, Any] = {"scopes": ["api"], **({} if account is None else {"account": account})}
        response = Response(0)
        # A 202 means that the outcome is unknown: that token is not used, and another one is created.
        while response.status != 201:
            response = await self._send_until({201, 202}, "POST", "/v1/tokens", body, by=by)
        created = json.loads(response.body)
        return self._use(life, created["id"], created["token"], account)

    async def _rotate(
        self, life: int, token: Secret, by: str, grace: int, *, kind: str | None = None
    ) -> list[Secret]:
        """The successor, or nothing if the response with its secret was lost."""
        account = token.auth_target.partition("&account=")[2] or None
        if by == "operator":
            secret = token_format.new_secret()
            created = await self._call_operator(
                ROTATE_TOKEN.by_operator,
                RotateToken(
                    id=token.id,
                    grace=grace,
                    digest=secret.digest,
                    hint=secret.hint,
                    idempotency_key=f"rotate-{token.id}",
                    actor=OPERATOR,
                ),
            )
            successor, value, returned = created.token.id, secret.value, True
        else:
            response, successor, value = Response(0), "", None
            # Without a grace period a token is invalid once it has rotated itself: then it cannot retry.
            while response.status not in {200, 201, 401}:
                response = await self._send(
                    "POST", "/v1/self/rotate", {"grace": grace}, by=token.value, key=f"rotate-{token.id}"
                )
            if response.status == 201:
                created = json.loads(response.body)
                successor, value = created["id"], created["token"]
            returned = response.status != 401
        if returned and grace == 0:
            self._record_end(kind or f"rotated by {by}", [token])
        return [] if value is None else [self._use(life, successor, value, account)]

    async def _end(
        self,
        life: int,
        ending: str,
        rotation: tuple[str, int] | None,
        chain: list[Secret],
        account: str | None,
    ) -> tuple[str, Sequence[Secret]]:
        """Ends a token, and returns the way in which it was ended and the secrets that this covers."""
        last = chain[-1]
        path = f"/v1/tokens/{last.id}"
        if ending in {"narrow", "rotate", "revoke with descendants"} and rotation and last is chain[0]:
            ending = "revoke"  # It was rotated, and the response with the new secret was lost.
        if ending == "revoke itself":
            return await self._revoke_itself(rotation, chain)
        if ending == "revoke with descendants":
            return ending, await self._revoke_with_descendants(life, chain)
        disable = EditToken(id=last.id, changes=TokenUpdate(disabled=True), actor=OPERATOR)
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "revoke": lambda: self._send_until({200}, "DELETE", path),
            "revoke by operator": lambda: self._call_operator(
                REVOKE_TOKEN.by_operator, RevokeToken(id=last.id, actor=OPERATOR)
            ),
            "disable": lambda: self._send_until({200}, "PATCH", path, {"disabled": True}),
            "disable by operator": lambda: self._call_operator(EDIT_TOKEN.by_operator, disable),
            "narrow": lambda: self._send_until({200}, "PATCH", path, {"scopes": ["metrics"]}),
            "rotate": lambda: self._rotate(life, last, "operator", 0, kind=ending),
            "delete account": lambda: self._send_until(
                {200}, "DELETE", f"/v1/account/{account}", key=f"delete-{account}"
            ),
            "revoke all of account": lambda: self._send_until(
                {200}, "DELETE", f"/v1/tokens/account/{account}"
            ),
        }
        await calls[ending]()
        return ending, [last] if ending in {"narrow", "rotate"} else chain

    async def _revoke_with_descendants(self, life: int, chain: list[Secret]) -> Sequence[Secret]:
        last = chain[-1]
        child = await self._create(life, None, by=last.value)
        await asyncio.sleep(CACHED_S)
        await self._send_until({200}, "DELETE", f"/v1/tokens/{last.id}?descendants=true")
        return [*chain, child]

    async def _revoke_itself(
        self, rotation: tuple[str, int] | None, chain: list[Secret]
    ) -> tuple[str, Sequence[Secret]]:
        """In its grace period a token covers its successors by self-rotation, and none that another actor created."""
        by, grace = rotation or ("", 0)
        acting = chain[0] if grace else chain[-1]
        covered = chain[:1] if grace and by == "operator" else chain
        status = 0
        # The token is rejected once it is revoked: if the response was lost, the administrator retries.
        while status not in {200, 401}:
            status = (await self._send("DELETE", "/v1/self", by=acting.value)).status
        if status == 200:
            return "revoke itself", covered
        await self._send_until({200}, "DELETE", f"/v1/tokens/{chain[0].id}")
        return "revoke", chain

    # Requests

    def _use(self, life: int, token_id: str, value: str, account: str | None) -> Secret:
        """Registers a secret, which is used at every edge from now on."""
        slot = len(self._secrets)
        auth_target = "/auth?scope=api" + (f"&account={account}" if account else "")
        secret = Secret(life * 10 + slot, token_id, value, auth_target)
        self._secrets.append(secret)
        self._start("before", slot, secret)
        return secret

    def _record_end(self, kind: str, secrets: Sequence[Secret]) -> None:
        new = [secret for secret in secrets if secret.number not in self._history.returned]
        self._history.end(kind, secrets)
        for secret in new:
            # At once, whatever the other tasks wait for.
            self._start("after", secret.number % 10, secret)

    def _start(self, phase: str, slot: int, secret: Secret) -> None:
        self._uses += [
            asyncio.create_task(use(self._connection(phase, slot, port), secret, self._history))
            for port in self._fleet.ports
        ]

    def _connection(self, phase: str, slot: int, port: int) -> Connection:
        place = phase, slot, port
        if place not in self._connections:
            self._connections[place] = self._stack.enter_context(closing(Connection(port)))
        return self._connections[place]

    async def _send(
        self, method: str, target: str, body: Any = None, *, by: str | None = None, key: str | None = None
    ) -> Response:
        connection = self._connection("asking", 0, next(self._ports))
        content = None if body is None else json.dumps(body).encode()
        return await connection.send(method, target, by or self._fleet.admin, content, timeout_s=10, key=key)

    async def _send_until(self, statuses: set[int], *request: Any, **options: Any) -> Response:
        """Sends a request until its response has one of these statuses."""
        while True:
            started = time.monotonic()
            response = await self._send(*request, **options)
            if response.status in statuses:
                if response.status == 200:
                    self._history.call_s.append(time.monotonic() - started)
                return response
            if response.status not in {0, 503}:
                raise AssertionError(f"{request}: {response.status} {response.body.decode()}")

    async def _call_operator(self, operation: Any, request: Any) -> Any:
        """Calls an operation over NATS as an operator, until the change has propagated to every edge."""
        while True:
            result = await propagation.call_and_wait(self._operator, operation, request)
            if not isinstance(result, Failure):
                return result[0]
            if result.code not in {"unavailable", "overloaded"}:
                raise AssertionError(f"{operation.subject}: {result}")
            await asyncio.sleep(0.05)


async def use(connection: Connection, secret: Secret, history: History) -> None:
    """Uses a secret until shortly after the call that ended it has returned."""
    while True:
        started = time.monotonic()
        response = await connection.send("GET", secret.auth_target, secret.value)
        history.uses.append(Use(secret.number, started, response.status))
        returned = history.returned.get(secret.number)
        if (
            returned is not None
            and started > returned
            and (response.status in {401, 403} or started > returned + AFTER_S)
        ):
            return
        await asyncio.sleep(0.01)


async def live(fleet: Fleet, operator: Client, history: History, lives: Iterator[int]) -> None:
    """Runs lives of tokens, one after the other."""
    async with AsyncExitStack() as stack:
        worker = Worker(fleet, operator, history, stack)
        for life in lives:
            await worker.live(life)


async def run(
    *, revokes: int, seed: int, edges: int = 3, replicas: int = 2, lease_s: float = 1, at_once: int = 16
) -> tuple[History, Fleet]:
    history = History()
    async with (
        fleet(edges=edges, replicas=replicas, lease_s=lease_s) as running,
        bus.connect(running.nats_url("operator"), "operator", wait_s=20) as operator,
    ):
        lives = iter(range(revokes))
        trouble = asyncio.create_task(running.trouble(random.Random(seed), longest_s=2.5 * lease_s))
        try:
            await asyncio.gather(*(live(running, operator, history, lives) for _ in range(at_once)))
        finally:
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
    return history, running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--revokes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    started = time.monotonic()
    history, running = asyncio.run(run(revokes=arguments.revokes, seed=arguments.seed))
    durations = sorted(history.call_s)
    print(
        f"seed {arguments.seed}, {time.monotonic() - started:.0f} s; what happened: {Counter(running.happened)}"
    )
    print(f"{history.lives} lives, {len(history.returned)} secrets ended, {len(history.uses)} requests")
    print(f"ended by: {dict(history.endings)}")
    print(
        f"statuses before: {dict(history.statuses(after=False))}, after: {dict(history.statuses(after=True))}"
    )
    print(
        f"last attempt of a call: p50 {durations[len(durations) // 2]:.4f} s, p99 {durations[len(durations) * 99 // 100]:.4f} s, max {durations[-1]:.2f} s"
    )
    print(f"violations: {len(history.violations())}")
    raise SystemExit(1 if history.violations() else 0)


if __name__ == "__main__":
    main()

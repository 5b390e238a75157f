"""A whole fleet on loopback, each part in a process of its own: edges on ports that stay, replicas of the tokens
service, NATS and PostgreSQL; and what may happen to them.
"""

import asyncio
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tallystick import connection as bus
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import CREATE_TOKEN, CreateToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick_server.local import nats as embedded_nats, postgres as embedded_postgres
from tallystick_server.local.processes import spawn
from tallystick_server.runtime.nats_permissions import USERS
from tests.support.paths import PYTHON_PATH
from tests.support.ports import free_port
from tests.support.servers import USERS_OF_TESTS
from tests.support.up import environment, with_children

Process = asyncio.subprocess.Process
Start = Callable[[], Awaitable[Process]]


class Part(NamedTuple):
    """One process of the fleet. ``process`` holds the one that runs now."""

    name: str
    start: Start
    process: list[Process]

    async def restart(self) -> None:
        self.process[0] = await self.start()

    def pids(self) -> list[int]:
        return with_children([self.process[0].pid])

    def send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Fleet:
    """Args:
    ports: where the edges listen.
    admin: a token that may do everything.
    parts: all processes.
    nats_url, database_url: where those are, for a user or a role.
    nats_folder: where NATS keeps its stream.
    """

    def __init__(
        self,
        ports: list[int],
        admin: str,
        parts: list[Part],
        *,
        nats_url: Callable[[str], str],
        database_url: Callable[[str], str],
        nats_folder: Path,
    ) -> None:
        self.ports = ports
        self.admin = admin
        self.parts = parts
        self.nats_url = nats_url
        self.database_url = database_url
        self.nats_folder = nats_folder
        self.happened: list[str] = []

    def named(self, prefix: str) -> list[Part]:
        return [part for part in self.parts if part.name.startswith(prefix)]

    async def trouble(
        self,
        chance: random.Random,
        longest_s: float,
        *,
        more: Sequence[Callable[["Fleet"], Awaitable[None]]] = (),
    ) -> None:
        """Kills, stops and restarts one part at a time at random, until cancelled; then all of them run.

        Args:
            chance: decides what happens.
            longest_s: for how long at most a part is away.
            more: what else may happen.
        """
        stopped: Part | None = None
        try:
            while True:
                await asyncio.sleep(chance.uniform(0.1, 1))
                part = chance.choice(self.parts)
                if more and chance.random() < 0.3:
                    happen = chance.choice(more)
                    self.happened.append(happen.__name__.replace("_", " "))
                    await happen(self)
                elif chance.random() < 0.5:
                    self.happened.append(f"kill {part.name}")
                    part.process[0].kill()
                    await part.process[0].wait()
                    await asyncio.sleep(chance.uniform(0, longest_s / 2))
                    await part.restart()
                else:
                    self.happened.append(f"stop {part.name}")
                    stopped = part
                    part.send(signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(0.05, longest_s))
                    part.send(signal.SIGCONT)
                    stopped = None
        finally:
            if stopped is not None:
                stopped.send(signal.SIGCONT)
            for part in self.parts:
                if part.process[0].returncode is not None:
                    await part.restart()


@asynccontextmanager
async def fleet(
    *,
    edges: int,
    replicas: int,
    lease_s: float = 5,
    workers: int = 1,
    counters: int = 1,
    stream_max_bytes: int = 1 << 30,
) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        users = {user: f"{user}password" for user in ("postgres", *embedded_postgres.ROLES)}
        await embedded_postgres.initialize(folder / "pg", users["postgres"], folder / "log")
        port = free_port()
        passwords = {user: f"{user}password" for user in (*USERS, *USERS_OF_TESTS)}
        configuration = embedded_nats.configure(folder / "nats", port, passwords, extra=USERS_OF_TESTS)

        def nats_url(user: str) -> str:
            return f"nats://{user}:{passwords[user]}@127.0.0.1:{port}"

        def service(name: str, **settings: str) -> Start:
            def start() -> Awaitable[Process]:
                return spawn(
                    [sys.executable, "-m", "tallystick_server", "serve", name],
                    environment={
                        **environment(nats_url=nats_url(name), **settings),
                        "PYTHONPATH": PYTHON_PATH,
                    },
                    output=log,
                )

            return start

        def database_url(role: str) -> str:
            return embedded_postgres.url(role, users[role], folder / "pg")

        log = stack.enter_context((folder / "services.log").open("ab"))
        stack.enter_context(_errors_shown(folder / "services.log"))
        parts: list[Part] = []
        stack.push_async_callback(_end, parts)

        async def run(name: str, start: Start) -> None:
            parts.append(Part(name, start, [await start()]))

        await run(
            "postgres",
            lambda: embedded_postgres.start(folder / "pg", folder / "pg", users["postgres"], folder / "log"),
        )
        await run("nats", lambda: embedded_nats.start(configuration, port, folder / "log"))
        await embedded_postgres.provision(folder / "pg", users["postgres"], users)
        for number in range(counters):
            start = service(
                "metrics",
                database_url=database_url("metrics"),
                events_nats_url=nats_url("events"),
                stream_max_bytes=str(stream_max_bytes),
            )
            await run(f"metrics {number}", start)
        for number in range(replicas):
            start = service("tokens", database_url=database_url("tokens"), lease_s=str(lease_s))
            await run(f"tokens {number}", start)
        ports = [free_port() for _ in range(edges)]
        for number, edge_port in enumerate(ports):
            await run(f"edge {number}", service("edge", port=str(edge_port), workers=str(workers)))
        admin = await _first_token(nats_url("operator"))
        yield Fleet(
            ports, admin, parts, nats_url=nats_url, database_url=database_url, nats_folder=folder / "nats"
        )


@contextmanager
def _errors_shown(log: Path) -> Iterator[None]:
    """Prints the errors in the services' log if the block fails: its folder is removed."""
    try:
        yield
    except Exception:
        for entry in re.split(r"^(?=\d{4}-\d\d-\d\dT)", log.read_text(errors="replace"), flags=re.MULTILINE):
            if re.match(r"\S+ \S+ (ERROR|CRITICAL) ", entry):
                sys.stderr.write(entry)
        raise


async def _first_token(url: str) -> str:
    async with asyncio.timeout(30), bus.connect(url, "operator", wait_s=20) as client:
        while isinstance(await call(client, TOKENS_STATS, AskTokensStats()), Failure):
            await asyncio.sleep(0.05)
        secret = token_format.new_secret()
        made = await call(
            client,
            CREATE_TOKEN.by_operator,
            CreateToken(
                token=NewToken(scopes=("*",)),
                digest=secret.digest,
                hint=secret.hint,
                actor=Actor(name="proof"),
            ),
        )
        assert not isinstance(made, Failure), made
        return secret.value


async def _end(parts: list[Part]) -> None:
    for part in reversed(parts):
        part.send(signal.SIGCONT)
        if part.process[0].returncode is None:
            part.process[0].send_signal(signal.SIGINT if part.name == "postgres" else signal.SIGTERM)
            try:
                await asyncio.wait_for(part.process[0].wait(), 5)
            except TimeoutError:
                part.process[0].kill()
                await part.process[0].wait()

"""A whole fleet on loopback, each part in its own process: edges on fixed ports, replicas of the tokens service, NATS and
PostgreSQL; and the faults that are injected into it.
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

from tallystick import connection as bus
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import NewToken
from tallystick_server.local import nats as embedded_nats, postgres as embedded_postgres
from tallystick_server.local.stack import Part, Servers, Stack, Start, create_token, until_ready
from tallystick_server.runtime.nats_permissions import USERS
from tests.support.ports import free_port
from tests.support.servers import USERS_OF_TESTS
from tests.support.up import with_children


def pids_of(part: Part) -> list[int]:
    return with_children([part.process.pid])


def send(part: Part, number: signal.Signals) -> None:
    """Sends a signal to a part and its child processes."""
    for pid in pids_of(part):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Fleet(Stack):
    """Args:
    ports: the ports on which the edges listen.
    servers: NATS and PostgreSQL.
    nats_folder: the folder in which NATS stores its stream.
    """

    def __init__(self, ports: list[int], servers: Servers, *, nats_folder: Path) -> None:
        super().__init__()
        self.ports = ports
        self.admin = ""
        self.nats_url = servers.nats_url
        self.database_url = servers.database_url
        self.nats_folder = nats_folder
        self.happened: list[str] = []

    async def trouble(
        self,
        chance: random.Random,
        longest_s: float,
        *,
        more: Sequence[Callable[["Fleet"], Awaitable[None]]] = (),
    ) -> None:
        """Kills, suspends and restarts one random part at a time, until cancelled. Then all of them run again.

        Args:
            chance: the random generator that selects the faults.
            longest_s: the maximum time for which a part is down.
            more: further faults.
        """
        stopped: Part | None = None
        try:
            while True:
                await asyncio.sleep(chance.uniform(0.1, 1))
                part = chance.choice([*self.parts.values()])
                if more and chance.random() < 0.3:
                    happen = chance.choice(more)
                    self.happened.append(happen.__name__.replace("_", " "))
                    await happen(self)
                elif chance.random() < 0.5:
                    self.happened.append(f"kill {part.name}")
                    await part.kill()
                    await asyncio.sleep(chance.uniform(0, longest_s / 2))
                    await part.start()
                else:
                    self.happened.append(f"stop {part.name}")
                    stopped = part
                    send(part, signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(0.05, longest_s))
                    send(part, signal.SIGCONT)
                    stopped = None
        finally:
            if stopped is not None:
                send(stopped, signal.SIGCONT)
            for part in self.parts.values():
                if part.process.returncode is not None:
                    await part.start()


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

        servers = Servers(
            nats_url=lambda user: embedded_nats.url(user, passwords[user], port),
            database_url=lambda role: embedded_postgres.url(role, users[role], folder / "pg"),
        )

        def start(name: str, **settings: str) -> Start:
            return servers.service(name, settings, output=log)

        log = folder / "services.log"
        log.touch()
        stack.enter_context(_errors_shown(log))
        running = Fleet(
            [free_port() for _ in range(edges)],
            servers,
            nats_folder=folder / "nats",
        )
        stack.push_async_callback(_end, running)
        await running.start(
            "postgres",
            lambda: embedded_postgres.start(folder / "pg", folder / "pg", users["postgres"], folder / "log"),
        )
        await running.start("nats", lambda: embedded_nats.start(configuration, port, folder / "log"))
        await embedded_postgres.provision(folder / "pg", users["postgres"], users)
        for number in range(counters):
            counter = start("metrics", stream_max_bytes=str(stream_max_bytes))
            await running.start(f"metrics {number}", counter)
        for number in range(replicas):
            await running.start(f"tokens {number}", start("tokens", cache_lease_s=str(lease_s)))
        for number, edge_port in enumerate(running.ports):
            await running.start(f"edge {number}", start("edge", port=str(edge_port), workers=str(workers)))
        async with (
            asyncio.timeout(30),
            bus.connect(servers.nats_url("operator"), "operator", wait_s=20) as client,
        ):
            await until_ready(client, counting=False)
            created = await create_token(client, NewToken(scopes=("*",)), by="chaos")
        assert not isinstance(created, Failure), created
        running.admin = created[0].value
        yield running


@contextmanager
def _errors_shown(log: Path) -> Iterator[None]:
    """Prints the errors in the services' log if the block fails, because the folder of the log is removed."""
    try:
        yield
    except Exception:
        for entry in re.split(r"^(?=\d{4}-\d\d-\d\dT)", log.read_text(errors="replace"), flags=re.MULTILINE):
            if re.match(r"\S+ \S+ (ERROR|CRITICAL) ", entry):
                sys.stderr.write(entry)
        raise


async def _end(running: Fleet) -> None:
    for part in running.parts.values():
        send(part, signal.SIGCONT)
    await running.stop()

"""Servers and services as processes on one machine: for `tallystick up`, the loopback cluster, the benchmarks and the
chaos tests.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client

from tallystick.contracts.metrics import EXPOSITION, TOKENS_STATS, AskExposition, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken, Token
from tallystick.contracts.tokens import CREATE_TOKEN, CreateToken
from tallystick.rpc.call import call
from tallystick.tokens.format import Secret, new_secret
from tallystick_server.local import processes

START_S = 60.0
"""Maximum time until all services answer."""
RETRY_S = 0.02

Process = asyncio.subprocess.Process
Start = Callable[[], Awaitable[Process]]


class Part:
    """A process that can be restarted.

    Args:
        name: the name of its service, with a number if there are several: ``edge 0``.
        start: starts it.
        process: the current process.
    """

    def __init__(self, name: str, start: Start, process: Process) -> None:
        self.name = name
        self.process = process
        self._start = start

    async def start(self) -> None:
        self.process = await self._start()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self, *, timeout_s: float = 10) -> None:
        # PostgreSQL waits for its clients on SIGTERM, and disconnects them on SIGINT.
        number = signal.SIGINT if self.name.startswith("postgres") else signal.SIGTERM
        await processes.stop(self.process, number, timeout_s)


class Stack:
    """``parts``: by name, in the order in which they were started."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    async def start(self, name: str, start: Start) -> None:
        self.parts[name] = Part(name, start, await start())

    def named(self, prefix: str) -> list[Part]:
        return [part for name, part in self.parts.items() if name.startswith(prefix)]

    async def stop(self) -> None:
        """Stops processes in reverse order of their start: services before the servers they use."""
        for part in reversed(self.parts.values()):
            await part.stop()


class Servers(NamedTuple):
    """The servers of a stack.

    Args:
        nats_url: the URL of NATS for a user.
        database_url: the URL of the database for a role.
    """

    nats_url: Callable[[str], str]
    database_url: Callable[[str], str]

    def service(
        self,
        name: str,
        settings: Mapping[str, str],
        *,
        inherited: Mapping[str, str] | None = None,
        output: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> Start:
        """How a service that uses these servers is started, with the same code as this process.

        Args:
            name: of the service.
            settings: by name without ``TALLYSTICK_``; those of the servers are added.
            inherited: the environment that its settings are added to; None for this process's own without settings.
            output: the file that its log is appended to; None for this process's own output.
            keep_open: file descriptors that it inherits.
        """
        environment = dict(without_settings() if inherited is None else inherited)
        for setting, value in {**self._settings(name), **settings}.items():
            environment[f"TALLYSTICK_{setting.upper()}"] = value
            environment.pop(f"TALLYSTICK_{setting.upper()}_FILE", None)
        environment["PYTHONPATH"] = processes.python_path(environment.get("PYTHONPATH", ""))

        async def start() -> Process:
            command = processes.service_command(name)
            if output is None:
                return await processes.spawn(command, environment=environment, keep_open=keep_open)
            with output.open("ab") as file:
                return await processes.spawn(
                    command, environment=environment, output=file, keep_open=keep_open
                )

        return start

    def _settings(self, service: str) -> dict[str, str]:
        """What a service needs to connect."""
        settings = {"nats_url": self.nats_url(service)}
        if service != "edge":
            settings["database_url"] = self.database_url(service)
        if service == "metrics":
            settings["events_nats_url"] = self.nats_url("events")
        return settings


def without_settings() -> dict[str, str]:
    """This process's environment without Tallystick's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}


async def until_ready(client: Client, *, counting: bool = True) -> None:
    """Waits until the services answer.

    Args:
        client: connected as the operator.
        counting: whether to wait for the metrics service too.
    """
    while isinstance(await call(client, TOKENS_STATS, AskTokensStats()), Failure):
        await asyncio.sleep(RETRY_S)
    while counting and isinstance(await call(client, EXPOSITION, AskExposition()), Failure):
        await asyncio.sleep(RETRY_S)


async def create_token(
    client: Client, token: NewToken, *, by: str, first_only: bool = False
) -> tuple[Secret, Token] | Failure:
    """Creates a token. Retries for as long as the tokens service is unavailable.

    Args:
        client: connected as the operator.
        token: its fields.
        by: the actor's name in the audit.
        first_only: fail with the code ``conflict`` if there is a token already.
    """
    secret = new_secret()
    request = CreateToken(
        token=token,
        digest=secret.digest,
        hint=secret.hint,
        actor=Actor(name=by),
        idempotency_key=secret.digest,
        first_only=first_only,
    )
    while isinstance(created := await call(client, CREATE_TOKEN.by_operator, request), Failure):
        if created.code != "unavailable":
            return created
        await asyncio.sleep(RETRY_S)
    return secret, created.token

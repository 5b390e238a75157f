"""Real servers for every test: from the environment, else the embedded ones, else containers; otherwise the test fails."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import nats
import pytest
from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.contracts.events import EVENTS_STREAM
from tallystick_server.local import nats as embedded_nats, postgres as embedded_postgres
from tallystick_server.metrics.store import schema as metrics_schema
from tallystick_server.runtime.nats_permissions import CORE, EVENTS, USERS, User
from tallystick_server.tokens.store import schema as tokens_schema
from tests.support.paths import temporary_folder
from tests.support.ports import free_port

POSTGRES_OPTIONS = {
    # No test cuts the power: a killed server loses none of its writes.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # Creating and dropping a database goes through all of these: 16 MB instead of 128 MB take a third of the time.
    "shared_buffers": "16MB",
}
USERS_OF_TESTS = {"watcher": User(CORE, ["nothing"], [">"]), "jetstream": User(EVENTS, [">"], [">"])}
# The migrations create it once; the database of each test is a clone of it.
TEMPLATE = f"tallystick_template_{secrets.token_hex(4)}"


class Database(NamedTuple):
    """A database of one test, with the URL of each service's role."""

    tokens: str
    metrics: str
    owner: str


class Nats(NamedTuple):
    """A NATS server of one test, with the URL of each user."""

    def url(self, user: str) -> str:
        return str(getattr(self, user.replace("-", "_")))

    edge: str
    tokens: str
    metrics: str
    events: str
    events_operator: str
    operator: str
    up: str
    service: str
    another: str
    """A service that was added."""
    watcher: str
    """A user of the tests' own, who sees every message of the account that requests are made in."""
    jetstream: str
    """A user of the tests' own, who may do everything in the account of the event stream."""


def which_servers() -> str:
    """`environment`, `embedded` or `containers`; TALLYSTICK_TEST_SERVERS chooses between the last two."""
    if "TALLYSTICK_TEST_DATABASE_URL" in os.environ and "TALLYSTICK_TEST_NATS_URL" in os.environ:
        return "environment"
    return os.environ.get("TALLYSTICK_TEST_SERVERS", "embedded")


# Each process of pytest-xdist has one of its own.
@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a superuser on a PostgreSQL for this run, with the template database in it."""
    with _postgres() as url:
        asyncio.run(_make_template(url))
        yield url
        asyncio.run(_drop(url, TEMPLATE))


@contextmanager
def _postgres() -> Iterator[str]:
    match which_servers():
        case "environment":
            yield os.environ["TALLYSTICK_TEST_DATABASE_URL"]
        case "containers":
            from testcontainers.community.postgres import PostgresContainer

            with PostgresContainer("postgres:18", driver=None) as container:
                yield container.get_connection_url()
        case _:
            with temporary_folder() as folder, _embedded_postgres(Path(folder)) as url:
                yield url


@contextmanager
def _embedded_postgres(folder: Path) -> Iterator[str]:
    """Args:
    folder: where everything is kept, its socket too, so its path has to be short.
    """
    data, password = folder / "data", secrets.token_hex(8)
    # Its own loop, since the server outlives the loops of the tests.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(embedded_postgres.initialize(data, password, folder / "log"))
        process = loop.run_until_complete(
            embedded_postgres.start(data, folder, password, folder / "log", options=POSTGRES_OPTIONS)
        )
        try:
            yield embedded_postgres.url("postgres", password, folder, "postgres")
        finally:
            process.terminate()
            process.send_signal(2)
            loop.run_until_complete(asyncio.wait_for(process.wait(), 10))
    finally:
        loop.close()


async def _make_template(url: str) -> None:
    admin = await asyncpg.connect(url)
    await admin.execute(f"create database {TEMPLATE}")
    await admin.close()
    template = await asyncpg.connect(_database(url, TEMPLATE))
    await tokens_schema.bring_up_to_date(template)
    await metrics_schema.bring_up_to_date(template)
    await template.close()


async def _drop(url: str, name: str) -> None:
    admin = await asyncpg.connect(url)
    await admin.execute(f"drop database if exists {name} with (force)")
    await admin.close()


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture
async def database(postgres_server: str) -> AsyncIterator[Database]:
    """A migrated database of this test's own."""
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_server)
    # Copying files takes two checkpoints: with our options those cost less than writing every page to the log as well.
    strategy = "strategy file_copy" if which_servers() == "embedded" else ""
    await admin.execute(f"create database {name} template {TEMPLATE} {strategy}")
    url = _database(postgres_server, name)
    yield Database(tokens=url, metrics=url, owner=url)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture(scope="session")
def nats_given() -> Iterator[str | None]:
    """The URL of a NATS that all tests share; None where each starts its own."""
    match which_servers():
        case "environment":
            yield os.environ["TALLYSTICK_TEST_NATS_URL"]
        case "containers":
            from testcontainers.community.nats import NatsContainer

            with NatsContainer("nats:2.15", jetstream=True) as container:
                yield container.nats_uri()
        case _:
            yield None


@pytest.fixture
async def nats_server(tmp_path: Path, nats_given: str | None) -> AsyncIterator[Nats]:
    """A NATS with an empty JetStream, this test's own."""
    if nats_given is None:
        async with start_nats(tmp_path / "nats") as urls:
            yield urls
        return
    async with bus.connect(nats_given, "test", wait_s=10) as client:
        stream = client.jetstream()
        if EVENTS_STREAM in [info.config.name for info in await stream.streams_info()]:
            await stream.delete_stream(EVENTS_STREAM)
    yield Nats(*[nats_given] * len(Nats._fields))


@asynccontextmanager
async def start_nats(
    folder: Path, *, port: int | None = None, extra: Mapping[str, User] | None = None
) -> AsyncIterator[Nats]:
    passwords = {user: f"{user}-password" for user in (*USERS, "another", *USERS_OF_TESTS)}
    port = port or free_port()
    configuration = embedded_nats.configure(
        folder, port, passwords, extra={**USERS_OF_TESTS, **(extra or {})}
    )
    process = await embedded_nats.start(configuration, port, folder / "log")
    try:
        yield Nats(
            **{
                user.replace("-", "_"): f"nats://{user}:{password}@127.0.0.1:{port}"
                for user, password in passwords.items()
            }
        )
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def operator(nats_server: Nats) -> AsyncIterator[Client]:
    """A connection with an operator's permissions."""
    async with bus.connect(nats_server.operator, "operator", wait_s=10) as client:
        yield client


@pytest.fixture
async def edge_client(nats_server: Nats) -> AsyncIterator[Client]:
    """A connection with an edge's permissions."""
    async with bus.connect(nats_server.edge, "edge", wait_s=10) as client:
        yield client


@pytest.fixture
async def service_client(nats_server: Nats) -> AsyncIterator[Client]:
    """A connection with the permissions of a service that is not part of Tallystick, opened as such a service would."""
    client = await nats.connect(nats_server.service, inbox_prefix="_INBOX.service")
    yield client
    await client.close()

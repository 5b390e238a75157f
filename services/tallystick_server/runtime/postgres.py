"""A PostgreSQL pool in which nothing waits for ever, and the numbered migrations that a service owns."""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.resources.abc import Traversable
from typing import NamedTuple, TypeAlias, TypeVar

import asyncpg

from tallystick.errors import Unavailable

log = logging.getLogger(__name__)

Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
T = TypeVar("T")

UNAVAILABLE: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InternalClientError,
    asyncpg.TransactionRollbackError,
)
"""What asyncpg raises when PostgreSQL is away, starting, stopping, too slow or has undone a transaction for the sake of
another: "cannot decide now"."""

MALFORMED: tuple[type[Exception], ...] = (asyncpg.DataError,)
"""What asyncpg raises for a value that PostgreSQL has no place for: beyond 64 bits, a NUL, a time beyond its own."""

# At startup also: the role or the database may not have been created yet.
_WORTH_WAITING: tuple[type[Exception], ...] = (
    *UNAVAILABLE,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


@asynccontextmanager
async def pool(url: str, *, schema: str, wait_s: float, size: int = 8) -> AsyncIterator[Pool]:
    """A pool that closes with the block. Waits for the server, and logs that it does.

    Raises:
        Unavailable: PostgreSQL accepted no connection within ``wait_s``.
    """
    opened = await patiently(
        lambda: asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=2,
            reset=_reset,
            # Below the callers' own limits, so that they get an answer instead of a silence.
            command_timeout=0.7,
            server_settings={
                "search_path": schema,
                "statement_timeout": "5000",
                "lock_timeout": "2000",
                "idle_in_transaction_session_timeout": "10000",
                "application_name": f"tallystick-{schema}",
            },
        ),
        wait_s=wait_s,
    )
    try:
        yield opened
    finally:
        try:
            await asyncio.wait_for(opened.close(), 2)
        except TimeoutError:
            opened.terminate()


async def patiently(work: Callable[[], Awaitable[T]], *, wait_s: float) -> T:
    """Runs a startup step, and retries it while PostgreSQL is unavailable or too slow. Logs a warning if it has to wait.

    Args:
        work: what to do. It is called again after it has failed.
        wait_s: for how long, in seconds.

    Raises:
        Unavailable: that was not long enough.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    has_logged = False
    while True:
        try:
            return await work()
        except _WORTH_WAITING as error:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"PostgreSQL was not ready within {wait_s:g} s: {type(error).__name__}"
                ) from None
            if not has_logged:
                log.warning("waiting for PostgreSQL: %s", type(error).__name__)
                has_logged = True
            await asyncio.sleep(0.2)


async def _reset(connection: Connection) -> None:
    """Before a connection goes back to the pool. asyncpg's default is a round trip after each query, to undo changes
    of the session's settings, which these services never make.
    """
    if connection.is_in_transaction():
        await connection.reset()


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class SchemaTooNew(Exception):
    """The database was migrated by a newer program."""


class MigrationChanged(Exception):
    """A migration that was already applied is not the same any more."""


def migrations(folder: Traversable) -> list[Migration]:
    """The files ``0001_name.sql``, ``0002_name.sql``, ... in order."""
    ordered = sorted(
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if (match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name))
    )
    if [migration.number for migration in ordered] != list(range(1, len(ordered) + 1)):
        raise RuntimeError("migrations are not numbered 1, 2, 3, ...")
    return ordered


async def migrate(connection: Connection, schema: str, available: Iterable[Migration]) -> list[Migration]:
    """Brings the schema up to date in one transaction, under an advisory lock, and returns what it applied.

    Raises:
        SchemaTooNew: the database knows migrations that this program does not.
        MigrationChanged: an applied migration was edited afterwards.
    """
    # Migrations, and waiting for another replica's, take as long as they take.
    await connection.execute("set statement_timeout = 0; set lock_timeout = 0")
    # Locked before the transaction begins: one that began earlier may not see the schema that another made while
    # it waited, and would try to make it too.
    lock = "hashtext('tallystick migrations'), hashtext($1)"
    await connection.execute(f"select pg_advisory_lock({lock})", schema, timeout=600)
    try:
        applied = await _migrate(connection, schema, list(available))
    finally:
        await connection.execute(f"select pg_advisory_unlock({lock})", schema)
        await connection.execute("reset statement_timeout; reset lock_timeout")
    for migration in applied:
        log.info("migrated %s: %04d %s", schema, migration.number, migration.name)
    return applied


async def _migrate(connection: Connection, schema: str, available: list[Migration]) -> list[Migration]:
    applied: list[Migration] = []
    async with connection.transaction():
        await connection.execute(f"create schema if not exists {schema}")
        await connection.execute(f"set local search_path to {schema}")
        await connection.execute(
            "create table if not exists migration (number int primary key, name text not null,"
            " checksum text not null, applied timestamptz not null default now())"
        )
        rows = await connection.fetch("select number, checksum from migration order by number")
        checksums = {row["number"]: row["checksum"] for row in rows}
        if checksums and max(checksums) > len(available):
            raise SchemaTooNew(
                f"the schema {schema!r} is at migration {max(checksums)}, this program knows {len(available)}: "
                "run the newer program"
            )
        for migration in available:
            if migration.number in checksums:
                if checksums[migration.number] != migration.checksum:
                    raise MigrationChanged(
                        f"migration {migration.number} of {schema!r} changed after it was applied"
                    )
                continue
            await connection.execute(migration.sql, timeout=600)
            await connection.execute(
                "insert into migration (number, name, checksum) values ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
            applied.append(migration)
    return applied

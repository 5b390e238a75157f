"""The folder in which `tallystick up` keeps everything: data, generated credentials, and where it runs now."""

import fcntl
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import msgspec

from deploy.embedded import postgres, processes
from deploy.nats_server import USERS

RELOAD = signal.SIGUSR1
"""Has a running `up` read the credentials again. SIGHUP ends it, as it does when its terminal is closed."""
ORPHANS_S = 10.0
"""How long a former start's children may take to end before a new start gives up."""


class AlreadyRunning(Exception):
    """Another `tallystick up` uses this data folder."""


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
    """Generated passwords, by user. A NATS user that is not in the table of `deploy.nats_server` is a service that was
    added to this installation.
    """

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

    def open(self) -> int:
        """Creates what is missing, takes the folder for this process, and answers a lock for its children to
        hold open, so that a next start can tell when the last of them is gone.

        Raises:
            AlreadyRunning: see there.
            OSError: the folder cannot be made or used.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log.mkdir(mode=0o700, exist_ok=True)
        if not _lock(_open(self.path / "up.lock")):
            raise AlreadyRunning(f"another 'tallystick up' runs on {self.path}")
        children = _open(self.path / "children.lock")
        deadline = monotonic() + ORPHANS_S
        while not _lock(children):
            if monotonic() > deadline:
                raise AlreadyRunning(f"servers of a former 'tallystick up' still run on {self.path}")
            sleep(0.05)
        self._running.unlink(missing_ok=True)
        return children

    def credentials(self) -> Credentials:
        """The generated passwords, made at the first start."""
        with self._credentials() as known:
            for user in USERS:
                known.nats.setdefault(user, _password())
            for role in ("postgres", *postgres.ROLES):
                known.postgres.setdefault(role, _password())
        return known

    def add_service(self, name: str) -> bool:
        """Gives a service a NATS user; answers whether it had none."""
        with self._credentials() as known:
            added = name not in known.nats
            known.nats.setdefault(name, _password())
        return added

    def remove_service(self, name: str) -> bool:
        """Takes a service's NATS user away; answers whether it had one."""
        with self._credentials() as known:
            return known.nats.pop(name, None) is not None

    @contextmanager
    def _credentials(self) -> Iterator[Credentials]:
        """The passwords, stored again where the block changed them. One process at a time."""
        path = self.path / "credentials.json"
        lock = _open(self.path / "credentials.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_bytes() if path.exists() else b'{"nats":{},"postgres":{}}'
            known = msgspec.json.decode(before, type=Credentials)
            yield known
            after = msgspec.json.encode(known)
            if after != before:
                write_private(path, after)
        finally:
            os.close(lock)

    def reload(self) -> bool:
        """Has the `up` that runs here give NATS the users that there are now; answers whether one runs."""
        found = self.running()
        # A process that had this number before us could be anybody's; only `up` holds the lock.
        if found is None or self._is_free():
            return False
        os.kill(found.pid, RELOAD)
        return True

    def _is_free(self) -> bool:
        lock = _open(self.path / "up.lock")
        try:
            return _lock(lock)
        finally:
            os.close(lock)

    def announce(self, running: Running) -> None:
        write_private(self._running, msgspec.json.encode(running))

    def withdraw(self) -> None:
        self._running.unlink(missing_ok=True)

    def running(self) -> Running | None:
        """The `up` that runs on this folder, if one does."""
        with suppress(OSError, msgspec.MsgspecError):
            found = msgspec.json.decode(self._running.read_bytes(), type=Running)
            # One that was killed leaves its file behind.
            return found if processes.is_running(found.pid) else None
        return None


def _password() -> str:
    return secrets.token_hex(24)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only this user can read, whole or not at all."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, for its mode
        file.write(content)
    temporary.replace(path)

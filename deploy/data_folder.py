"""The folder in which `tallystick up` keeps everything: data, generated credentials, and where it runs now."""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import msgspec

from deploy.embedded import postgres, processes
from deploy.nats_server import PERMISSIONS

ORPHANS_S = 10.0
"""How long a former start's children may take to end before a new start gives up."""


class AlreadyRunning(Exception):
    """Another `tallystick up` uses this data folder."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running `up` can be reached, credentials included.

    Args:
        pid: the process.
        http: the edge's base URL.
        operator_url: NATS, for the command line's administrative requests.
        service_url: NATS, for other services.
    """

    pid: int
    http: str
    operator_url: str
    service_url: str


class Credentials(msgspec.Struct, frozen=True):
    """Generated passwords, by user."""

    nats: dict[str, str]
    postgres: dict[str, str]


class DataFolder:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.log = self.path / "log"
        self.postgres = self.path / "postgres"
        self.nats = self.path / "nats"
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
        path = self.path / "credentials.json"
        known = (
            msgspec.json.decode(path.read_bytes(), type=Credentials) if path.exists() else Credentials({}, {})
        )
        complete = Credentials(
            nats={user: known.nats.get(user) or _password() for user in PERMISSIONS},
            postgres={
                user: known.postgres.get(user) or _password() for user in ("postgres", *postgres.ROLES)
            },
        )
        if complete != known:
            _write_private(path, msgspec.json.encode(complete))
        return complete

    def announce(self, running: Running) -> None:
        _write_private(self._running, msgspec.json.encode(running))

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


def _write_private(path: Path, content: bytes) -> None:
    """Writes a file that only this user can read, whole or not at all."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, for its mode
        file.write(content)
    temporary.replace(path)

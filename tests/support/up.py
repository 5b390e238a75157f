"""`tallystick up` as its users start it: a process of its own on a data folder of its own."""

import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tallystick_server.local.data_dir import DataFolder, Running
from tests.support.paths import PYTHON_PATH, ROOT, temporary_folder
from tests.support.polling import until
from tests.support.ports import free_port

GREETING = " is up at "
# `up` speaks plain HTTP here: a client need not load the CA certificates, which takes longer than most tests.
WITHOUT_CAS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of ours, and these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    clean["PYTHONPATH"] = PYTHON_PATH  # this clone's code, wherever the process runs
    return {**clean, **{f"TALLYSTICK_{name.upper()}": value for name, value in settings.items()}}


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def with_children(pids: list[int]) -> list[int]:
    """These processes and those they started: PostgreSQL's backends serve without its postmaster."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return [*pids, *(pid for pid, parent in parents.items() if parent in pids)]


class Up:
    """One `tallystick up`. What it prints is kept in a file beside the data folder."""

    directory = ROOT
    """The current folder of the process."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.prefix: list[str] = []
        self.options: list[str] = []
        self.data = data
        self.port = free_port()
        self.output = data.parent / f"{data.name}.output"
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.greeted = 0

    def start(self) -> "Up":
        self.greeted = self.printed.count(GREETING)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    sys.executable,
                    "-P",
                    "-m",
                    "tallystick_server",
                    "up",
                    "--data-dir",
                    str(self.data),
                    "--port",
                    str(self.port),
                    *self.options,
                ],
                cwd=self.directory,
                # Every process it starts inherits this mark, by which they are found.
                env={**environment(**self.settings), "TEST_FOLDER": str(self.data)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    def ready(self) -> "Up":
        # It is announced to other commands a moment before it is printed.
        until(lambda: (self.running and self.printed.count(GREETING) > self.greeted) or self.ended, 40)
        assert not self.ended, self.printed
        return self

    @property
    def running(self) -> Running | None:
        return DataFolder(self.data).running()

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def printed(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    @property
    def admin_token(self) -> str:
        (token,) = re.findall(r"shown this once:  (tly_\w+)", self.printed)
        return str(token)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url=self.http, headers=headers, timeout=10, trust_env=False, verify=WITHOUT_CAS
        )

    def command(self, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, stdin=stdin, data_dir=str(self.data), **settings)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    def processes(self) -> dict[int, str]:
        """Every process that belongs to this data folder, by its command line or its environment."""
        processes = {}
        needle = str(self.data).encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and int(folder.name) != os.getpid():
                with suppress(OSError):
                    command = (folder / "cmdline").read_bytes()
                    if needle in command + (folder / "environ").read_bytes() and is_running(int(folder.name)):
                        processes[int(folder.name)] = command.replace(b"\0", b" ").decode()
        return processes

    def pids(self, *words: str) -> list[int]:
        """The processes whose command line holds all of these words, the oldest first."""
        return sorted(
            pid for pid, command in self.processes().items() if all(word in command for word in words)
        )


def run(*arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """One `tallystick` command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tallystick_server", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets are put into it."""
    with temporary_folder() as path:
        yield Path(path)


@pytest.fixture
def fresh(folder: Path) -> Iterator[Up]:
    """An `up` that has not been started, and is ended with the test."""
    up = Up(folder / "data")
    yield up
    if not up.ended:
        up.stop(signal.SIGKILL)
    until(lambda: not up.processes(), 10)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """A running `up` that the tests of a module share."""
    with temporary_folder() as path:
        shared = Up(Path(path) / "data").start()
        try:
            yield shared.ready()
        finally:
            shared.stop()

"""Starts child processes that never outlive this one."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import IO

import tallystick
from tallystick_server.runtime.lifecycle import die_with_parent

CODE = dict.fromkeys((Path(tallystick.__file__).parents[1], Path(__file__).parents[2]))
"""The folders of the two packages: one if they are installed, two in a clone."""
NOBODY = 65534
START_S = 60.0
"""How long a server may take to start, recovery from a crash included."""


async def spawn(
    argv: Sequence[str],
    *,
    when_orphaned: signal.Signals = signal.SIGKILL,
    output: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Starts a program in a session of its own, so that a Ctrl-C in the terminal reaches only its parent.

    Args:
        argv: the program and its arguments.
        when_orphaned: the signal that it gets when this process ends.
        output: the file of its standard output and error; None for those of this process.
        environment: its whole environment; None for that of this process.
        keep_open: file descriptors that it inherits.
    """
    parent = os.getpid()
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
        pass_fds=keep_open,
        preexec_fn=lambda: die_with_parent(parent, when_orphaned),
    )


def service_command(service: str) -> list[str]:
    """The command that runs a service. ``-P`` keeps it from importing modules of the current folder."""
    return [sys.executable, "-P", "-m", "tallystick_server", "serve", service]


def python_path(inherited: str) -> str:
    """The PYTHONPATH with which a service runs the same code as this process, and none of the current folder.

    Args:
        inherited: that of this process. Relative and empty entries, which mean the current folder, are left out.
    """
    entries = [entry for entry in inherited.split(os.pathsep) if Path(entry).is_absolute()]
    known = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *entries}
    entries[:0] = [str(folder) for folder in CODE if str(folder) not in known]
    return os.pathsep.join(entries)


async def stop(process: asyncio.subprocess.Process, number: signal.Signals, timeout_s: float) -> None:
    """Sends a signal to a child, and kills it if it does not end in time."""
    if process.returncode is not None:
        return
    process.send_signal(number)
    try:
        await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()


def unprivileged(argv: Sequence[str]) -> list[str]:
    """The command that runs ``argv`` as another user than root, as PostgreSQL requires.

    Root runs it in a user namespace in which root's files belong to nobody, so that no owner or mode has to change.

    Raises:
        CannotDropRoot: this system allows no user namespaces, as in a container with default settings.
    """
    return [*_prefix(), *argv]


class CannotDropRoot(Exception):
    """Running as root where user namespaces are not allowed: run as an ordinary user (in a container set USER)."""

    def __str__(self) -> str:
        return self.__doc__ or ""


@cache
def _prefix() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    unshare = shutil.which("unshare")
    prefix = (unshare or "unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
    if unshare is None or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        raise CannotDropRoot
    return prefix


@asynccontextmanager
async def stopped_on_failure(
    process: asyncio.subprocess.Process, number: signal.Signals
) -> AsyncIterator[None]:
    """Stops a child if the block raises or is cancelled."""
    try:
        yield
    except BaseException:
        await stop(process, number, timeout_s=2)
        raise

"""How a service starts, reports that it is ready, and stops; and the exit codes of a failed start."""

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tallystick.errors import Unavailable
from tallystick.tasks import cancel_and_wait

EX_DATAERR = 65  # the input was wrong, such as an invalid token record
EX_UNAVAILABLE = 69  # NATS or PostgreSQL did not come
EX_SOFTWARE = 70  # we are at fault
EX_TEMPFAIL = 75  # the outcome is unknown
EX_CONFIG = 78  # a setting is wrong

READY = "ready"

log = logging.getLogger(__name__)


class Shutdown:
    """A request to stop, by a signal or because the service cannot continue."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.exit_code = 0
        self.awaited = False
        """Whether the service is ready: it waits for the request to stop."""

    def __call__(self, *, exit_code: int = 0) -> None:
        self.exit_code = self.exit_code or exit_code
        self.requested.set()

    def unavailable(self) -> None:
        """Requests a stop since NATS or PostgreSQL is permanently unavailable."""
        self(exit_code=EX_UNAVAILABLE)

    async def wait(self) -> None:
        """Waits for the request to stop; a service calls this once it is ready."""
        self.awaited = True
        await self.requested.wait()


async def run(service: Callable[[Shutdown], Awaitable[None]], *, grace_s: float = 3) -> int:
    """Runs one service until SIGTERM or SIGINT and returns the exit code.

    Args:
        service: connects, serves until a stop is requested, closes its connections.
        grace_s: how long it may take to finish pending requests, in seconds.
    """
    stop = Shutdown()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    task = asyncio.ensure_future(service(stop))
    stopping = asyncio.ensure_future(stop.requested.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.awaited:
        await asyncio.wait({task}, timeout=grace_s)
    task.cancel()  # a service that still waits for its dependencies has nothing to finish
    try:
        await task
    except asyncio.CancelledError:
        pass
    except Unavailable as error:
        log.error("%s", error)  # noqa: TRY400  # the reason is the message; a traceback would hide it
        return EX_UNAVAILABLE
    return stop.exit_code


@asynccontextmanager
async def background(work: Coroutine[None, None, None], stop: Shutdown) -> AsyncIterator[None]:
    """Runs endless work beside the block. Should it ever end or fail, the service stops rather than limps."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            log.error("a background task of this service ended", exc_info=task.exception())
            stop(exit_code=EX_SOFTWARE)

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def touch_heartbeat_file(file: str, status: Callable[[], str] = lambda: READY) -> None:
    """Writes a service's status to a file every second, until cancelled. A file that grows old tells that this process
    hangs; one that does not hold READY, that it runs and somebody has to act.
    """
    path = Path(file)
    temporary = path.with_name(f"{path.name}.new")
    while True:
        temporary.write_text(f"{status()}\n")
        temporary.replace(path)  # a health check reads it at any moment
        await asyncio.sleep(1)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends, however it ends (Linux).

    Args:
        parent: the parent's process number, taken before the fork: 1 is a parent like any other in a container.
        number: the signal.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(number))
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), number)


def run_below_init() -> None:
    """Return in a child process if this one is PID 1, as in a container; otherwise return at once.

    The kernel gives PID 1 every orphan and expects it to reap them, which no library does for its caller: so this
    process only passes signals on, reaps, and exits with the child's exit code (128 and the signal's number if a signal
    ended it, as a shell does).
    """
    if os.getpid() != 1:
        return
    passed_on = signal.valid_signals() - _NOT_PASSED_ON
    before = signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        number = signal.sigwait(passed_on)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        with suppress(ChildProcessError):
            while (result := os.waitpid(-1, os.WNOHANG))[0]:
                if result[0] == child:
                    code = os.waitstatus_to_exitcode(result[1])
                    os._exit(code if code >= 0 else 128 - code)


_NOT_PASSED_ON = {
    signal.SIGKILL,
    signal.SIGSTOP,
    # The terminal's, and this process's own faults.
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
}

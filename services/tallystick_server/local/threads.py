"""Reports the processes of `tallystick up` as threads: each start and each end counts once, even if `up` or NATS is killed
in between.

A report is stored in a file, with its number, before it is published, and removed once the event stream has stored
it. Processes that ran when `up` was killed are reported as ended by the next `up`: the kernel ends them with their
parent. The processes send heartbeats with the same ids.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from nats.aio.client import Client

from tallystick.contracts.events import Event, ThreadStarted, ThreadStopped
from tallystick.producer import NOT_STORED, publish
from tallystick.tasks import cancel_and_wait
from tallystick.tokens.ids import new_id, worker_thread
from tallystick_server.local.data_dir import write_private

log = logging.getLogger(__name__)

SOURCE = "up"
MAX_UNSENT = 1000
"""Maximum number of stored reports while NATS is unavailable. Further ones are dropped, and the gap is counted."""
DRAIN_S = 1.0
IN_ORDER = {0, -signal.SIGTERM}
"""Exit codes of a process that ended by itself or on request."""


class Journal(msgspec.Struct):
    """What is stored.

    Args:
        running: the threads of each process that was started, keyed by a generated id of the process.
        unsent: the events that the stream may not have stored.
    """

    running: dict[str, list[str]] = {}
    unsent: list[Event] = []


class Threads:
    """Args:
    file: stores the reports.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._journal = _read(file)
        self._boot, self._n = new_id("boot_"), 0
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._watching: set[asyncio.Task[None]] = set()
        for process in list(self._journal.running):
            self.ended(process, unexpected=True)

    def started(self, kind: str, workers: int | None = None) -> str:
        """Reports a process before it is started, and returns its id.

        Args:
            kind: the type of its threads.
            workers: the number of its worker processes, each a thread; None if it is one thread itself.
        """
        process = new_id("thr_")
        threads = [worker_thread(process, n) for n in range(1, workers + 1)] if workers else [process]
        self._journal.running[process] = threads
        for thread in threads:
            self._report("thread.started", ThreadStarted(thread=thread, type=kind))
        self._save()
        return process

    def ended(self, process: str, *, unexpected: bool) -> None:
        """Reports that a process has ended, and its workers with it."""
        for thread in self._journal.running.pop(process):
            self._report("thread.stopped", ThreadStopped(thread=thread, unexpected=unexpected))
        self._save()

    async def watch(
        self, process: str, spawning: Awaitable[asyncio.subprocess.Process]
    ) -> asyncio.subprocess.Process:
        """Starts a reported process, and reports its end."""
        try:
            child = await spawning
        except BaseException:
            self.ended(process, unexpected=True)
            raise
        task = asyncio.create_task(self._wait(process, child))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return child

    @asynccontextmanager
    async def published(self, client: Client) -> AsyncIterator[None]:
        """Publishes the reports in order. At the end of the block it waits up to a second for the remaining ones; the
        next `up` publishes those that are left.
        """
        delivering = asyncio.create_task(self._deliver(client))
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(DRAIN_S):
                    await asyncio.gather(*self._watching)
                    await self._emptied.wait()
            except TimeoutError:
                log.warning("NATS did not store all reports of threads; the next start publishes the rest")
            await cancel_and_wait(delivering)

    async def _wait(self, process: str, child: asyncio.subprocess.Process) -> None:
        self.ended(process, unexpected=await child.wait() not in IN_ORDER)

    async def _deliver(self, client: Client) -> None:
        stream, unsent = client.jetstream(), self._journal.unsent
        while True:
            self._filled.clear()
            while unsent:
                event = unsent[0]
                try:
                    await publish(stream, event)
                except NOT_STORED as error:
                    log.debug("report not stored yet: %s", type(error).__name__)
                    await asyncio.sleep(0.1)
                    continue
                unsent.pop(0)
                self._save()
            self._emptied.set()
            await self._filled.wait()

    def _report(self, kind: str, data: ThreadStarted | ThreadStopped) -> None:
        unsent = self._journal.unsent
        self._n += 1
        if len(unsent) >= MAX_UNSENT:
            log.error("dropped a report of a thread: NATS stores none")
            return
        unsent.append(
            Event(
                type=kind,
                source=SOURCE,
                boot=self._boot,
                n=self._n,
                time=datetime.now(UTC),
                data=msgspec.to_builtins(data),
            )
        )
        self._emptied.clear()
        self._filled.set()

    def _save(self) -> None:
        write_private(self._file, msgspec.json.encode(self._journal))


def _read(file: Path) -> Journal:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Journal)
    except FileNotFoundError:
        pass
    except msgspec.MsgspecError:
        log.exception(
            "cannot read %s: earlier processes count as stopped when their heartbeats are missed", file
        )
    return Journal()

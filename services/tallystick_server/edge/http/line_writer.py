"""Writes JSON lines to standard output or a file, in a thread of its own: the event loop never waits for a disk or a pipe."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Lines that wait to be written. Further ones are dropped and counted."""
WRITE_INTERVAL_S = 0.2
STOP_S = 2.0
WARN_INTERVAL_S = 60.0
PIPE_BUF = 4096
"""Several processes write to one pipe or file: what is not larger is never mixed with what others write (POSIX)."""


class LineWriter:
    """Takes records, and writes them as JSON objects, a line each.

    A file is opened again if it was moved or deleted, so it can be rotated by moving it. What is dropped, since lines come
    faster than they can be written or writing fails, is counted in a line of its own: ``{"time": ..., "dropped": n}``.

    Args:
        path: the file to append to; None for standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: int | None = None
        self._waiting: deque[NamedTuple] = deque()
        self._stopped = threading.Event()
        self.dropped = 0
        """Changed by the event loop's thread only, as `_failed` is by the writing thread."""
        self._failed = 0
        self._told = 0
        self._warned: float | None = None

    def put(self, record: NamedTuple) -> None:
        """Has a record written, unless too many wait. ``time`` is in seconds since the epoch."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(record)
        else:
            self.dropped += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Writes for as long as the block runs, and what waits when it ends."""
        thread = threading.Thread(target=self._run, name="access log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopped.wait(WRITE_INTERVAL_S):
            self._write_waiting()
        self._write_waiting()
        if self._path is not None and self._file is not None:
            os.close(self._file)

    def _write_waiting(self) -> None:
        batch, count = bytearray(), 0
        for _ in range(len(self._waiting)):
            line = _line(self._waiting.popleft()._asdict())
            if len(batch) + len(line) > PIPE_BUF:
                self._write(batch, count)
                batch, count = bytearray(), 0
            batch += line
            count += 1
        if count:
            self._write(batch, count)
        missing = self.dropped + self._failed - self._told
        if missing and self._write(_line({"time": time.time(), "dropped": missing}), 0):
            self._told += missing

    def _write(self, lines: bytes | bytearray, count: int) -> bool:
        try:
            file = self._opened()
            view = memoryview(lines)
            while view:
                view = view[os.write(file, view) :]
        except OSError as error:
            self._failed += count
            self._warn(error)
            return False
        return True

    def _opened(self) -> int:
        if self._path is None:
            return 1
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(self._path.stat(), os.fstat(self._file)):
                    return self._file
            os.close(self._file)
            self._file = None
        self._file = open_for_appending(self._path)
        return self._file

    def _warn(self, error: OSError) -> None:
        now = time.monotonic()
        if self._warned is None or now - self._warned > WARN_INTERVAL_S:
            self._warned = now
            log.warning("cannot write the access log: %s", error.strerror)


def open_for_appending(path: Path) -> int:
    """A file descriptor of the file, which others may not read: it has addresses in it.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _line(fields: dict[str, Any]) -> bytes:
    # JSON escapes control characters, so nobody adds a line of their own.
    return msgspec.json.encode({**fields, "time": datetime.fromtimestamp(fields["time"], UTC)}) + b"\n"

"""Writes JSON lines to standard output or a file in a separate thread, so that the event loop never blocks on I/O."""

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
"""Maximum number of buffered lines. Further lines are dropped and counted."""
WRITE_INTERVAL_S = 0.2
STOP_S = 2.0
WARN_INTERVAL_S = 60.0
PIPE_BUF = 4096
"""Several processes write to one pipe or file. Writes of at most this size are not interleaved (POSIX)."""


class LineWriter:
    """Writes records as JSON objects, one per line.

    The file is reopened if it was moved or deleted, so it can be rotated by moving it. Records are dropped if the buffer is
    full or writing fails; a separate line then has their number: ``{"time": ..., "dropped": n}``.

    Args:
        path: the file to append to; None for standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: int | None = None
        self._waiting: deque[NamedTuple] = deque()
        self._stopped = threading.Event()
        self.dropped = 0
        """Changed only by the event loop's thread; `_failed` only by the writing thread."""
        self._failed = 0
        self._reported = 0
        self._warned: float | None = None

    def put(self, record: NamedTuple) -> None:
        """Queues a record, or drops it if the buffer is full. Its ``time`` is in seconds since the epoch."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(record)
        else:
            self.dropped += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Writes lines while the block runs, and flushes the buffer when it ends."""
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
        missing = self.dropped + self._failed - self._reported
        if missing and self._write(_line({"time": time.time(), "dropped": missing}), 0):
            self._reported += missing

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
    """Opens a file for appending. Others cannot read it, since it contains IP addresses.

    Raises:
        OSError: the file cannot be opened.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _line(fields: dict[str, Any]) -> bytes:
    # JSON escapes control characters, so input cannot inject lines.
    return msgspec.json.encode({**fields, "time": datetime.fromtimestamp(fields["time"], UTC)}) + b"\n"

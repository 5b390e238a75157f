"""Who fell silent, by this process's monotonic clock. Times that other machines wrote are never compared with it, so
that no clock that is set forth or back ends what lives or keeps alive what is dead.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tallystick_server.metrics.counters import Thread


class Lease(NamedTuple):
    """The owner's last sign of life, as it is stored.

    Args:
        epoch: the owner's.
        seen: another value with each sign; it says nothing about when.
        resigned: whether the owner said that it stops.
        refusal: why nobody may count.
    """

    epoch: int
    seen: object
    resigned: bool
    refusal: str | None


class Watch:
    """Watches another owner's signs of life.

    Args:
        lease_s: an owner that gave none for this long is followed.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._last: Lease | None = None
        self._since = 0.0

    def is_over(self, lease: Lease, now: float) -> bool:
        """Whether another may follow. ``now``: of a monotonic clock, in seconds."""
        if lease != self._last:
            self._last, self._since = lease, now
        return lease.resigned or now - self._since > self._lease_s


class Heartbeats:
    """The last heartbeat of each running thread. A new owner gives all of them a full timeout.

    Args:
        threads: that live.
        now: of a monotonic clock, in seconds.
    """

    def __init__(self, threads: Iterable[str] = (), now: float = 0) -> None:
        self._heard = dict.fromkeys(threads, now)

    def hear(self, threads: Mapping[str, Thread], now: float) -> None:
        """Takes what a batch said of threads."""
        for name, thread in threads.items():
            if thread.ended is None:
                self._heard[name] = now
            else:
                self._heard.pop(name, None)

    def silent(self, now: float, silence_s: float) -> set[str]:
        return {name for name, heard in self._heard.items() if now - heard > silence_s}

    def forget(self, threads: Iterable[str]) -> None:
        for name in threads:
            self._heard.pop(name, None)

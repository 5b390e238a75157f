"""Detects owners and threads that fell silent, by the monotonic clock of this process. Timestamps of other machines are
never compared with it, so that a clock that is set forward or back ends no live thread and keeps no dead one alive.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tallystick_server.metrics.counters import Thread


class Lease(NamedTuple):
    """The stored lease of the owner.

    Args:
        epoch: the owner's.
        seen: changes with each renewal; its value is compared with no clock.
        resigned: whether the owner gave the lease up.
        halt_reason: why counting waits for an operator; None if it does not.
    """

    epoch: int
    seen: object
    resigned: bool
    halt_reason: str | None


class Watch:
    """Watches another owner's lease.

    Args:
        lease_s: after this long without a renewal, another process may take over.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._last: Lease | None = None
        self._since = 0.0

    def is_over(self, lease: Lease, now: float) -> bool:
        """Whether another process may take over. ``now``: of a monotonic clock, in seconds."""
        if lease != self._last:
            self._last, self._since = lease, now
        return lease.resigned or now - self._since > self._lease_s


class Heartbeats:
    """The last heartbeat of each running thread. A new owner gives all of them a full timeout.

    Args:
        threads: the running ones.
        now: of a monotonic clock, in seconds.
    """

    def __init__(self, threads: Iterable[str] = (), now: float = 0) -> None:
        self._last_heartbeat_s = dict.fromkeys(threads, now)

    def record(self, threads: Mapping[str, Thread], now: float) -> None:
        """Records the threads that a batch changed."""
        for name, thread in threads.items():
            if thread.ended is None:
                self._last_heartbeat_s[name] = now
            else:
                self._last_heartbeat_s.pop(name, None)

    def silent(self, now: float, silence_s: float) -> set[str]:
        return {name for name, heartbeat_s in self._last_heartbeat_s.items() if now - heartbeat_s > silence_s}

    def forget(self, threads: Iterable[str]) -> None:
        for name in threads:
            self._last_heartbeat_s.pop(name, None)

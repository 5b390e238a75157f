"""The clock of leases and quotas. It is passed in, so that a simulation can have its own."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""The current time in seconds; it is never set back."""


def boot_time() -> float:
    """Seconds on a clock that goes on counting while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)

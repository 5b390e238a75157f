"""The clock of leases and quotas. It is passed in, so that a simulation can have its own."""

import time
from collections.abc import Callable
from functools import partial

Clock = Callable[[], float]
"""The current time in seconds; it is never set back."""

boot_time: Clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds on a monotonic clock that continues while the machine is suspended."""

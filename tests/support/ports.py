"""Ports for the servers that tests start."""

import itertools
import os
import random
import socket

_FIRST, _PER_WORKER, _RANGES = (
    10_000,
    2_000,
    11,
)  # up to 32,000: most systems hand out higher ports themselves


def _of_this_worker() -> range:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + number % _RANGES * _PER_WORKER
    return range(first, first + _PER_WORKER)


# Two runs on one machine begin at different places.
_candidates = itertools.cycle(random.sample(_of_this_worker(), _PER_WORKER))


def free_port() -> int:
    """A port on loopback that nothing listens on.

    Each worker of pytest-xdist has a range of its own and goes through all of it before it repeats a port, so that no
    other test takes the port before the server listens.
    """
    for port in itertools.islice(_candidates, _PER_WORKER):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")

"""Public identifiers: sortable by the time they were made, unguessable enough never to collide."""

import secrets
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """``prefix`` + 26 lower-case Crockford base32 characters: 48 bits of milliseconds, 80 random bits (ULID)."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return prefix + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def worker_thread(process: str, number: int) -> str:
    """The id of the thread that one of a process's workers is.

    Args:
        process: the id under which the process itself was started.
        number: the worker's, from 1.
    """
    return f"{process}.{number}"

"""Cuts lists into messages by their encoded bytes: the limit of a message is one of bytes, never of a number of items."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

T = TypeVar("T")

MAX_MESSAGE_BYTES = 1_000_000
"""Maximum size of one message's body. NATS accepts 1 MiB together with the headers."""


def cut(items: Iterable[T], max_bytes: int) -> Iterator[list[T]]:
    """Yields batches in order, each as large as fits.

    Args:
        items: the items of one or several JSON arrays in a message.
        max_bytes: what the encoded items of a batch, with a comma for each, may take together. An item above that is
            the only one in its batch: the caller has to reject it.
    """
    batch: list[T] = []
    remaining_bytes = max_bytes
    for item in items:
        size = len(msgspec.json.encode(item)) + 1
        if batch and size > remaining_bytes:
            yield batch
            batch, remaining_bytes = [], max_bytes
        batch.append(item)
        remaining_bytes -= size
    if batch:
        yield batch


def fits(message: msgspec.Struct, max_bytes: int = MAX_MESSAGE_BYTES) -> bool:
    """Whether a message, once encoded, is within the limit."""
    return len(msgspec.json.encode(message)) <= max_bytes

"""What all messages are made of."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct


class Message(Struct, frozen=True, kw_only=True, rename="camel"):
    """What every message is: immutable, with camelCase names on the wire."""


class FieldError(Message, frozen=True):
    field: str
    message: str


Digest = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the token, 64 lower-case hex digits")
]
Time = Annotated[datetime, Meta(tz=True)]


class Ack(Message, frozen=True):
    pass


Cursor = Annotated[str, Meta(max_length=1024)]
"""The cursor of a page: the ``next`` of the previous page. Opaque; valid only with the same filters."""
MAX_PAGE = 1_000_000
MAX_PAGE_SIZE = 1_000

"""Where a list or a log goes on: an opaque text that holds the place of the last row of the page before, so that nothing
that is added or removed in between moves the rest.
"""

import base64
import hashlib
from typing import TypeVar

import msgspec
from msgspec import Struct

from tallystick.contracts.accounts import ListAccounts
from tallystick.contracts.tokens import ListTokens

S = TypeVar("S", bound=Struct)


class NotACursor(Exception):
    """The text is not a cursor, or belongs to a list with other filters."""


class Place(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The place in a list after which a page begins.

    Args:
        filters: the fingerprint of what the list is of.
        page: the number of the page that follows.
        total: how many rows matched on the first page: they are not counted again.
        id: the last row's id, or its account.
        key: what it is sorted by.
        part: the part of the order that the last row is in, from 0; see `tallystick_server.tokens.store.rows.ORDERS`.
        time: when the first page was read, by PostgreSQL's clock. It divides the parts, so that a token that expires
            between two pages is neither left out nor listed twice. Without it all rows are in the first part.
    """

    filters: str
    page: int
    total: int
    id: str
    key: str = ""
    part: int = 0
    time: str = "-infinity"


class LogPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """The oldest entry of each kind that a page of a log had, by its number; 0 if there are no older ones."""

    changes: int
    attempts: int
    refusals: int = 0


def encode(place: Struct) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode(text: str, kind: type[S]) -> S:
    """Raises:
    NotACursor: the text is not a cursor of this kind.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, RecursionError):
        raise NotACursor("not a cursor of this list: take the `next` of the answer before") from None


def place(request: ListTokens | ListAccounts) -> Place | None:
    """Where the page that is asked for begins; None if it is asked for by its number.

    Raises:
        NotACursor: it cannot be told.
    """
    if request.after is None:
        return None
    cursor = decode(request.after, Place)
    if cursor.filters != filters(request):
        raise NotACursor("a cursor of a list with other filters: send those of the first page")
    return cursor


def filters(request: ListTokens | ListAccounts) -> str:
    """A fingerprint of what a list is of and how it is sorted: everything but the page and who asks."""
    criteria = {
        name: value
        for name, value in msgspec.structs.asdict(request).items()
        if name not in {"actor", "page", "page_size", "after"} and value is not None
    }
    return hashlib.sha256(msgspec.json.encode(criteria, order="deterministic")).hexdigest()[:12]

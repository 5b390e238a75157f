"""The cursor of a list or a log: an opaque text with the place of the last row of the previous page, so that nothing
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
        filters: the fingerprint of the list's filters.
        page: the number of the page that follows.
        total: how many rows matched when the first page was read; they are not counted again.
        id: the last row's id, or its account.
        key: the last row's sort key.
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
    """The number of the oldest entry of each kind on a page of a log; 0 if there are no older ones."""

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
        raise NotACursor("not a cursor of this list: use the `next` of the previous page") from None


def place(request: ListTokens | ListAccounts) -> Place | None:
    """Where the requested page begins; None if it is requested by its number.

    Raises:
        NotACursor: the cursor is malformed, or belongs to a list with other filters.
    """
    if request.after is None:
        return None
    cursor = decode(request.after, Place)
    if cursor.filters != filters(request):
        raise NotACursor(
            "the cursor belongs to a list with other filters: send the same filters as for the first page"
        )
    return cursor


def filters(request: ListTokens | ListAccounts) -> str:
    """A fingerprint of a list's filters and order: every field but the page and the actor."""
    criteria = {
        name: value
        for name, value in msgspec.structs.asdict(request).items()
        if name not in {"actor", "page", "page_size", "after"} and value is not None
    }
    return hashlib.sha256(msgspec.json.encode(criteria, order="deterministic")).hexdigest()[:12]

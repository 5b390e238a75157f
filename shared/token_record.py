"""A token's record without its secret, as text: what ``tallystick tokens export`` prints and
``TALLYSTICK_PREPARED_TOKEN`` takes.

Ours is one line of JSON. EmailEngine's is base64url of a msgpack map whose ``id`` is the digest.
"""

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared.contracts import Digest, NewToken, RateLimit, Restrictions, Time
from shared.ids import new_id

MAX_BYTES = 64 * 1024


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A token ready to be stored."""

    id: str
    digest: Digest
    token: NewToken
    hint: str = ""
    disabled: bool = False
    created: Time | None = None


class NotARecord(Exception):
    """The text is not a token record; the message says why without repeating it."""


def decode(text: str) -> TokenRecord:
    """Reads one record in either format.

    Raises:
        NotARecord: it is in neither.
    """
    text = text.strip()
    if len(text) > MAX_BYTES:
        raise NotARecord(f"over {MAX_BYTES} bytes")
    try:
        if text.startswith("{"):
            return msgspec.json.decode(text, type=TokenRecord)
        return _emailengine(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotARecord(f"neither our JSON nor base64url of a msgpack map: {error}") from None


class _EmailEngineRestrictions(msgspec.Struct, rename="camel"):
    addresses: tuple[str, ...] | None = None
    referrers: tuple[str, ...] | None = None
    rate_limit: RateLimit | None = None


class _EmailEngineRecord(msgspec.Struct):
    id: Digest
    scopes: tuple[str, ...] = ("*",)
    description: str | None = None
    account: str | None = None
    metadata: Any = None
    restrictions: _EmailEngineRestrictions | None = None
    expires: int | datetime | None = None
    created: int | datetime | None = None


def _emailengine(text: str) -> TokenRecord:
    raw = base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    found = msgspec.msgpack.decode(raw, type=_EmailEngineRecord)
    limits = found.restrictions or _EmailEngineRestrictions()
    return TokenRecord(
        id=new_id("tok_"),
        digest=found.id,
        token=NewToken(
            description=found.description or "",
            scopes=found.scopes,
            account=found.account,
            metadata=found.metadata if isinstance(found.metadata, dict) else None,
            restrictions=Restrictions(
                # There an empty list of referrers means the same as none.
                addresses=limits.addresses,
                referrers=limits.referrers or None,
                rate_limit=limits.rate_limit,
            ),
            expires=_time(found.expires),
        ),
        created=_time(found.created),
    )


def _time(value: int | datetime | None) -> datetime | None:
    """EmailEngine's times: milliseconds since the epoch, or msgpack's timestamp extension."""
    if isinstance(value, int):
        try:
            return datetime.fromtimestamp(value / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            raise NotARecord("a time out of range") from None
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value

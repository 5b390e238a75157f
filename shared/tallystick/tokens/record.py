"""A token's record without its secret, as text: what ``tallystick tokens export`` prints and
``TALLYSTICK_PREPARED_TOKEN`` takes.

Ours is one line of JSON; EmailEngine's is read by `tallystick.tokens.emailengine_record`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tallystick.contracts import record_fields
from tallystick.contracts.messages import Digest, Time
from tallystick.contracts.record_fields import NotARecord
from tallystick.contracts.records import NewToken
from tallystick.tokens import emailengine_record
from tallystick.tokens.ids import new_id

__all__ = ["NotARecord", "Reading", "TokenRecord", "decode", "read"]

MAX_BYTES = 64 * 1024
BYTE_ORDER_MARK = "\ufeff"


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A token ready to be stored."""

    id: str
    digest: Digest
    token: NewToken
    hint: str = ""
    disabled: bool = False
    created: Time | None = None


class Reading(NamedTuple):
    """A record, and whether its scopes are those that the operator gave for it."""

    record: TokenRecord
    replaced_scopes: bool = False


def decode(text: str) -> TokenRecord:
    """Reads one record in either format.

    Raises:
        NotARecord: it is in neither, or cannot be imported without becoming wider.
    """
    return read(text).record


def read(text: str, scopes: Sequence[str] = ()) -> Reading:
    """Reads one record in either format.

    Args:
        text: the record; a byte order mark before it is skipped.
        scopes: what a record of EmailEngine's gets whose own scopes and permissions cannot be expressed here.

    Raises:
        NotARecord: it is in neither format, or cannot be imported without becoming wider.
    """
    text = stripped(text)
    if len(text) > MAX_BYTES:
        raise NotARecord(f"over {MAX_BYTES} bytes")
    if text.startswith("{"):
        return Reading(_ours(text))
    foreign = emailengine_record.read(text, scopes)
    record = TokenRecord(
        id=new_id("tok_"),
        digest=foreign.digest,
        token=foreign.token,
        # By which it is found in EmailEngine's list, whose ids are the digests.
        hint=foreign.digest[:8],
        created=foreign.created,
    )
    return Reading(record, foreign.replaced_scopes)


def stripped(text: str) -> str:
    """The text without white space and a byte order mark around it."""
    return text.strip().removeprefix(BYTE_ORDER_MARK).strip()


def _ours(text: str) -> TokenRecord:
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotARecord(f"not valid JSON: {error}") from None
    if problems := list(record_fields.problems(raw, TokenRecord)):
        token = raw.get("token") if isinstance(raw, dict) else None
        raise NotARecord(*problems, account=token.get("account") if isinstance(token, dict) else None)
    return msgspec.convert(raw, TokenRecord)

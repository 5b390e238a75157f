"""The columns of tokens and accounts in PostgreSQL, and the conversion from rows to messages."""

from collections.abc import Mapping
from typing import NamedTuple

import asyncpg
import msgspec

from tallystick.contracts.audit import Change, RejectedAttempt
from tallystick.contracts.records import Account, LastUse, NewToken, Restrictions, Token
from tallystick.contracts.tokens import EXPIRING_DAYS, TokenOrder, TokenState
from tallystick.contracts.verification import RejectedRequest

ACTIVE = """
    revoked is null and not disabled
    and (not_before is null or not_before <= now()) and (expires is null or expires > now())
"""
"""The condition under which a token is valid, by PostgreSQL's clock."""


LIVING = "revoked is null and (expires is null or expires > now())"
"""The condition under which a token is valid, or can become valid by time or by an edit."""

TOKEN_COLUMNS = (
    "id, description, scopes, account, metadata, restrictions, not_before, expires, disabled, hint, created, created_by,"
    " rotated_to, last_used, last_ip, revoked, rev, revoked_by"
)
"""The columns of a `Token`."""

# Not now(), which is when the transaction began: it may have waited for a lock since.
STORED_COLUMNS = f"{TOKEN_COLUMNS}, chain, family, imported, rotated_by, disabled_with, ({ACTIVE}) as is_active, coalesce(expires <= now(), false) as is_expired".replace(
    "now()", "clock_timestamp()"
)
"""The columns of a `StoredToken`."""

ACCOUNT_COLUMNS = "account, name, created"
AUDIT_COLUMNS = "id, at, action, actor, address, request_id, details"
REFUSAL_COLUMNS = "id, token, at, reason, address, route, request_id"


class StoredToken(NamedTuple):
    """A token with the fields that only the tokens service uses.

    Args:
        chain: the id of the first token of its rotation chain.
        family: the tokens that share one rate limit.
        is_active: whether it is valid now, by PostgreSQL's clock.
        is_expired: whether its expiry has passed.
        is_imported: whether it came from an import, and not from a creation here.
        rotated_by: the id of the token that rotated it; None for an operator.
        disabled_with: the number of the disable that covers it.
    """

    token: Token
    chain: str
    family: str
    is_active: bool
    is_expired: bool
    is_imported: bool
    rotated_by: str | None
    disabled_with: int | None

    @property
    def is_over(self) -> bool:
        """Whether it can never be valid again: revoked, or replaced and past its grace period."""
        return self.token.revoked is not None or (self.token.rotated_to is not None and self.is_expired)


STATES: Mapping[TokenState, str] = {
    "active": ACTIVE,
    "disabled": "revoked is null and disabled",
    "expired": "revoked is null and expires <= now()",
    "expiring": f"{ACTIVE} and rotated_to is null and expires <= now() + interval '{EXPIRING_DAYS} days'",
    "rotated": "revoked is null and rotated_to is not null",
    "revoked": "revoked is not null",
    "not_yet_valid": "revoked is null and not_before > now()",
}
"""The condition for each state; constants, so that PostgreSQL can match them with partial indexes."""


class Part(NamedTuple):
    """A part of a sorted list: by a key that is never null and then by id, both in one direction, so that one comparison
    finds the rows after a given one.

    Args:
        key: the key, in SQL.
        type: its type.
        descending: the direction.
        condition: which rows are in this part; ``{time}`` stands for the time at which the first page was read.
    """

    key: str
    type: str
    descending: bool = False
    condition: str = "true"

    @property
    def sql(self) -> str:
        direction = "desc" if self.descending else "asc"
        return f"{self.key} {direction}, id {direction}"

    def beyond(self, key: str, id: str) -> str:  # noqa: A002  # the column's name
        """The condition for the rows after a given one.

        Args:
            key: the SQL parameter that holds the given row's key, as text.
            id: the SQL parameter that holds its id.
        """
        return f"({self.key}, id) {'<' if self.descending else '>'} ({key}::text::{self.type}, {id}::text)"


_EXPIRY = "coalesce(expires, 'infinity')"

# Each part is read on its own, since no index is in the order of several.
ORDERS: Mapping[TokenOrder, tuple[Part, ...]] = {
    "created": (Part("id", "text", descending=True),),
    "used": (Part("coalesce(last_used, '-infinity')", "timestamptz", descending=True),),
    "expires": (
        Part(_EXPIRY, "timestamptz", condition=f"{_EXPIRY} > {{time}}"),
        Part(_EXPIRY, "timestamptz", descending=True, condition=f"{_EXPIRY} <= {{time}}"),
    ),
    # As much of it as a cursor has room for.
    "description": (Part("left(lower(description), 64)", "text"),),
}


def token(row: asyncpg.Record) -> Token:
    return Token(
        id=row["id"],
        description=row["description"],
        scopes=tuple(row["scopes"]),
        account=row["account"],
        metadata=msgspec.json.decode(row["metadata"]) if row["metadata"] else None,
        restrictions=msgspec.json.decode(row["restrictions"], type=Restrictions),
        not_before=row["not_before"],
        expires=row["expires"],
        disabled=row["disabled"],
        hint=row["hint"],
        created=row["created"],
        created_by=row["created_by"],
        rotated_to=row["rotated_to"],
        access=LastUse(time=row["last_used"], ip=row["last_ip"]),
        revoked=row["revoked"],
        revision=row["rev"],
        revoked_by=row["revoked_by"],
    )


def stored(row: asyncpg.Record) -> StoredToken:
    """A row with the columns `STORED_COLUMNS`."""
    return StoredToken(
        token=token(row),
        chain=row["chain"],
        family=row["family"],
        is_active=row["is_active"],
        is_expired=row["is_expired"],
        is_imported=row["imported"],
        rotated_by=row["rotated_by"],
        disabled_with=row["disabled_with"],
    )


def as_new_token(token: Token) -> NewToken:
    """This token's fields that a creator sets."""
    return NewToken(
        description=token.description,
        scopes=token.scopes,
        account=token.account,
        metadata=token.metadata,
        restrictions=token.restrictions,
        not_before=token.not_before,
        expires=token.expires,
    )


def account(row: asyncpg.Record) -> Account:
    return Account(account=row["account"], name=row["name"], created=row["created"])


def change(row: asyncpg.Record) -> Change:
    return Change(
        time=row["at"],
        action=row["action"],
        actor=row["actor"],
        address=row["address"],
        request_id=row["request_id"],
        details=msgspec.json.decode(row["details"]) if row["details"] else {},
    )


def attempt(row: asyncpg.Record) -> RejectedAttempt:
    return RejectedAttempt(
        time=row["at"],
        action=row["action"],
        code=msgspec.json.decode(row["details"])["code"],
        actor=row["actor"],
        address=row["address"],
        request_id=row["request_id"],
    )


def rejected_request(row: asyncpg.Record) -> RejectedRequest:
    return RejectedRequest(
        id=row["token"],
        time=row["at"],
        reason=row["reason"],
        address=row["address"],
        route=row["route"],
        request_id=row["request_id"],
    )


def json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()

"""Tokens and accounts, as everyone may see them."""

from typing import Any

from tallystick.contracts.messages import Message, Time


class RateLimit(Message, frozen=True, forbid_unknown_fields=True):
    """At most ``maxRequests`` in each window of ``timeWindow`` seconds; windows are aligned to the epoch."""

    max_requests: int
    time_window: int


class Restrictions(Message, frozen=True, forbid_unknown_fields=True):
    addresses: tuple[str, ...] | None = None
    referrers: tuple[str, ...] | None = None
    rate_limit: RateLimit | None = None


class LastUse(Message, frozen=True):
    """When and from where the token was last used."""

    time: Time | None = None
    ip: str | None = None


class Token(Message, frozen=True):
    """A token as everyone may see it: neither its secret nor its digest. ``revision`` rises with every change."""

    id: str
    description: str
    scopes: tuple[str, ...]
    account: str | None
    metadata: dict[str, Any] | None
    restrictions: Restrictions
    not_before: Time | None
    expires: Time | None
    disabled: bool
    hint: str
    created: Time
    created_by: str
    rotated_to: str | None
    access: LastUse
    revoked: Time | None = None
    revision: int = 0
    revoked_by: str | None = None


class NewToken(Message, frozen=True, forbid_unknown_fields=True):
    """What a maker decides about a token."""

    description: str = ""
    scopes: tuple[str, ...] = ()
    account: str | None = None
    metadata: dict[str, Any] | None = None
    restrictions: Restrictions = Restrictions()
    not_before: Time | None = None
    expires: Time | None = None


class Account(Message, frozen=True):
    account: str
    name: str
    created: Time

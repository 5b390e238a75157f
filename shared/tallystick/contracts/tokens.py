"""Creating, reading, changing and revoking tokens."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from tallystick.contracts.audit import Change, RejectedAttempt
from tallystick.contracts.messages import Cursor, Digest, Message, Time
from tallystick.contracts.operation import Actor, AdministrativeRequest, Operation
from tallystick.contracts.records import NewToken, Token
from tallystick.contracts.verification import RejectedRequest


class CreateToken(AdministrativeRequest, frozen=True):
    """``first_only``: reject with ``conflict`` unless this would be the first token there ever was."""

    token: NewToken
    digest: Digest
    hint: str
    first_only: bool = False
    idempotency_key: str | None = None


def only_account(account: str, actor: Actor) -> CreateToken:
    """A request that checks a new token's account only, if other fields are invalid: a token without scopes is always
    rejected, with all its errors.
    """
    return CreateToken(token=NewToken(account=account), digest="0" * 64, hint="", actor=actor)


class CreatedToken(Message, frozen=True):
    """A token that was created; ``replayed``: by an earlier request with the same Idempotency-Key, whose secret is not
    stored.
    """

    token: Token
    replayed: bool = False


class RateLimitUpdate(Message, frozen=True, forbid_unknown_fields=True):
    """Changes to a `RateLimit`."""

    max_requests: int | UnsetType | None = UNSET
    time_window: int | UnsetType | None = UNSET


class RestrictionsUpdate(Message, frozen=True, forbid_unknown_fields=True):
    """Changes to `Restrictions`."""

    addresses: tuple[str, ...] | UnsetType | None = UNSET
    referrers: tuple[str, ...] | UnsetType | None = UNSET
    rate_limit: RateLimitUpdate | UnsetType | None = UNSET


class TokenUpdate(Message, frozen=True, forbid_unknown_fields=True):
    """Changes to a token, merged as RFC 7396 does at every depth: an absent member keeps its value, null removes it."""

    description: str | UnsetType | None = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    restrictions: RestrictionsUpdate | UnsetType | None = UNSET
    not_before: Time | UnsetType | None = UNSET
    expires: Time | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET


Revisions = Annotated[tuple[int, ...], Meta(max_length=16)]
"""The revisions of a token that a change is meant for; another one is ``stale``."""


class EditToken(AdministrativeRequest, frozen=True):
    """``revisions``: None for whichever revision the token has."""

    id: str
    changes: TokenUpdate
    revisions: Revisions | None = None
    idempotency_key: str | None = None


class EditedToken(Token, frozen=True):
    """A token after an edit. ``covered``: the ids of the chain's tokens that it disabled or enabled."""

    covered: tuple[str, ...] | UnsetType = UNSET


class RotateToken(AdministrativeRequest, frozen=True):
    """``grace``: for how many seconds the old secret stays valid, never beyond its own expiry."""

    id: str
    grace: int
    digest: Digest
    hint: str
    revisions: Revisions | None = None
    idempotency_key: str | None = None


class GetLog(AdministrativeRequest, frozen=True, omit_defaults=True):
    """Names a token by its public id, or by its key where all one has is EmailEngine's id: see `RevokeToken`.

    Args:
        after: only older entries: the ``next`` of the previous page.
    """

    id: str | None = None
    key: Digest | None = None
    after: Cursor | None = None


class TokenLog(Message, frozen=True):
    """Changes, rejected requests and rejected attempts to change the token, newest first; at most 100 of each.

    Args:
        changes: the changes.
        refusals: the rejected requests, of which only the latest 100 are kept.
        attempts: the rejected attempts.
        next: the cursor of older entries; null if there are none.
    """

    changes: tuple[Change, ...]
    refusals: tuple[RejectedRequest, ...]
    attempts: tuple[RejectedAttempt, ...] = ()
    next: Cursor | None = None


class FindRejectedRequests(AdministrativeRequest, frozen=True):
    """Rejections of the request with this id, as far as tokens' logs still hold them."""

    request_id: str


class RejectedRequests(Message, frozen=True):
    refusals: tuple[RejectedRequest, ...]


MAX_USE_HOURS = 7 * 24


class GetUse(AdministrativeRequest, frozen=True):
    """How often tokens were used in each of the last hours, up to MAX_USE_HOURS."""

    ids: Annotated[tuple[str, ...], Meta(max_length=200)]
    hours: Annotated[int, Meta(ge=1, le=MAX_USE_HOURS)] = 24


class UseHistory(Message, frozen=True):
    """By token; an hour by the clock each, the oldest first and the present one last. Unused tokens are left out."""

    uses: dict[str, tuple[int, ...]]


class GetToken(AdministrativeRequest, frozen=True):
    """Names a token as `GetLog` does. ``revoked``: even if it is revoked."""

    id: str | None = None
    key: Digest | None = None
    revoked: bool = False


TokenState = Literal["active", "disabled", "expired", "expiring", "rotated", "revoked", "not_yet_valid"]
"""What can be asked for in a list. A token may be in several: ``rotated`` and still ``active`` for its grace.

``expiring`` is active, has no successor, and ends within EXPIRING_DAYS.
"""
EXPIRING_DAYS = 7
TokenOrder = Literal["created", "used", "expires", "description"]
"""Newest first; last used first; next to expire first, then those that never expire, then expired ones, the latest
first; by description.
"""


class ListTokens(AdministrativeRequest, frozen=True, omit_defaults=True):
    """Pages count from 0, up to MAX_PAGE, and hold 1 to MAX_PAGE_SIZE. A page by its number moves when tokens are created
    or revoked in between; one by a cursor does not.

    Args:
        after: the ``next`` of the page before, instead of a page's number. The filters have to be the same.
        query: only tokens with this in id, description or account, with this hint, or with this digest. White space
            around it is removed; a query of nothing else matches all.
        account: only tokens bound to this account.
        state: only tokens in this state; without it all that are not revoked.
        scope: only tokens that were given this scope or one below it: ``orders`` finds ``orders:read`` too.
        rotated_to: only the token whose successor this is.
        created_by: only tokens that this token created, by id.
        unused_since: only tokens that were neither used nor created since then.
        order: ``created``: newest first; ``used``: last used first; ``expires``: next to expire first, then those that never
            expire, then expired ones, the latest first; ``description``. Under ``used``, a token that is used between
            two pages may be left out.
    """

    page: int = 0
    page_size: int = 20
    query: str | None = None
    account: str | None = None
    state: TokenState | None = None
    scope: str | None = None
    rotated_to: str | None = None
    created_by: str | None = None
    unused_since: Time | None = None
    order: TokenOrder = "created"
    after: Cursor | None = None


class TokenPage(Message, frozen=True):
    """A page of a list.

    Args:
        total: how many tokens match; with a cursor, how many matched when the first page was read.
        page: the page's number, from 0.
        pages: how many pages there are.
        tokens: the tokens.
        next: the cursor of the next page; null on the last one.
    """

    total: int
    page: int
    pages: int
    tokens: tuple[Token, ...]
    next: Cursor | None = None


class RevokeToken(AdministrativeRequest, frozen=True):
    """Revokes a token and its rotation chain, by public id, or by digest where all one has is the token itself.

    Args:
        or_key: the digest may be a key instead, the SHA-256 of a token's digest. 64 hexadecimal digits from EmailEngine are
            a token or its id there, which is its digest; their SHA-256 is a digest or a key. If it is both, of two
            tokens, the answer is ``conflict``.
        only: ``predecessors`` revokes only the secrets that this token replaced: it ends their grace period.
        descendants: revoke all tokens that were created with these, directly or not, as well.
        dry_run: write nothing, and answer what would be revoked.
    """

    id: str | None = None
    digest: Digest | None = None
    or_key: bool | None = None
    only: Literal["predecessors"] | None = None
    descendants: bool = False
    dry_run: bool = False
    revisions: Revisions | None = None
    idempotency_key: str | None = None


class Revoked(Message, frozen=True):
    """What a revocation covers; the same again when it is repeated.

    Args:
        deleted: whether the tokens are revoked; not by a dry run.
        covered: the ids of the revoked tokens of the chain, oldest first.
        descendants: the ids of the descendants that were revoked with it, if the request asks for them; at most
            MAX_DESCENDANTS_LISTED of them.
        living_descendants: how many tokens created with the covered ones, directly or not, are neither revoked nor
            expired.
        own_chain: the ids among these that belong to the caller's own chain.
        changed: whether this revoked a token; false where all of these were revoked before, and of a dry run.
    """

    deleted: bool
    covered: tuple[str, ...] = ()
    descendants: tuple[str, ...] = ()
    living_descendants: int = 0
    own_chain: tuple[str, ...] = ()
    changed: bool = True


MAX_DESCENDANTS_LISTED = 10_000


class RevokeAll(AdministrativeRequest, frozen=True):
    """Every token that is bound to an account; the account itself stays."""

    account: str
    idempotency_key: str | None = None


class AllRevoked(Message, frozen=True):
    """``tokens``: how many were revoked. ``living_descendants``: how many tokens created with them are still valid."""

    account: str
    tokens: int
    living_descendants: int = 0


CREATE_TOKEN = Operation("tallystick.v1.edge.tokens.create", CreateToken, CreatedToken, mutates=True)
EDIT_TOKEN = Operation("tallystick.v1.edge.tokens.edit", EditToken, EditedToken, settles=True)
ROTATE_TOKEN = Operation("tallystick.v1.edge.tokens.rotate", RotateToken, CreatedToken, settles=True)
GET_LOG = Operation("tallystick.v1.edge.tokens.log", GetLog, TokenLog)
FIND_REJECTED_REQUESTS = Operation(
    "tallystick.v1.edge.tokens.refusals", FindRejectedRequests, RejectedRequests
)
GET_USE = Operation("tallystick.v1.edge.tokens.use", GetUse, UseHistory)
GET_TOKEN = Operation("tallystick.v1.edge.tokens.get", GetToken, Token)
# Of a million tokens it takes half a second to find those that hold a word.
LIST_TOKENS = Operation("tallystick.v1.edge.tokens.list", ListTokens, TokenPage, timeout_s=3)
# With descendants it may revoke tens of thousands.
REVOKE_TOKEN = Operation("tallystick.v1.edge.tokens.revoke", RevokeToken, Revoked, timeout_s=5, settles=True)
REVOKE_ALL = Operation("tallystick.v1.edge.tokens.revoke_all", RevokeAll, AllRevoked, settles=True)

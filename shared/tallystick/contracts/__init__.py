"""Every NATS subject and message, once. Payloads are JSON objects; unknown fields are skipped, new ones have
defaults, and a changed meaning gets a new version in the subject.

Verification (``tallystick.v1.tokens.*``), what edges ask for on behalf of a client (``tallystick.v1.edge.*``) and what
an operator asks for (``tallystick.v1.operator.*``) are separate, so that NATS permissions can grant one without the
others.
"""

import gzip
from collections.abc import Mapping
from copy import copy
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Q = TypeVar("Q", bound=Struct)
R = TypeVar("R", bound=Struct)


MAX_REQUEST_BYTES = 64 * 1024
MAX_IMPORT = 1000
"""Records at once, all of them or none."""
MAX_IMPORT_BYTES = 960 * 1024


class Operation(Generic[Q, R]):
    """One request-reply exchange: its subject, the types on both sides, and how long a caller waits.

    Args:
        subject: the NATS subject; its last two tokens name the endpoint in ``$SRV`` answers.
        request: what the caller sends.
        reply: what a success answers; a refusal answers a `Failure`.
        timeout_s: the caller's limit, in seconds.
        max_bytes: what a request may hold; NATS itself takes a megabyte.
        mutates: a request that changes something carries a deadline and is dropped when it comes too late.
        settles: the reply says that it is committed; it is true at every edge once `SETTLE` says so.
            `tallystick.coherence.propagation` asks both.
    """

    def __init__(
        self,
        subject: str,
        request: type[Q],
        reply: type[R],
        *,
        timeout_s: float = 0.8,
        max_bytes: int = MAX_REQUEST_BYTES,
        mutates: bool = False,
        settles: bool = False,
    ) -> None:
        self.subject = subject
        self.request = request
        self.reply = reply
        self.timeout_s = timeout_s
        self.max_bytes = max_bytes
        self.mutates = mutates or settles
        self.settles = settles

    @property
    def by_operator(self) -> "Operation[Q, R]":
        """The same operation on the operator's subject, where an edge may not publish."""
        operation = copy(self)
        operation.subject = self.subject.replace(".edge.", ".operator.")
        return operation

    @property
    def service(self) -> str:
        """The first token after the version: ``metrics`` for what the metrics service answers."""
        return self.subject.split(".")[2]

    @property
    def name(self) -> str:
        return "-".join(self.subject.split(".")[2:])


class Message(Struct, frozen=True, kw_only=True, rename="camel"):
    """What every message is: immutable, with camelCase names on the wire."""


class FieldError(Message, frozen=True):
    field: str
    message: str


class Failure(Message, frozen=True):
    """A rejection. The codes are the ones HTTP clients see; `tallystick_server.edge.http.errors` gives each its status.

    Args:
        code: what a program may act on.
        message: why, for people.
        errors: what is wrong with the request's fields.
        scope: the scope that was required, of an ``insufficient_scope``.
        current: the token as it is, of a ``stale`` edit.
        outcome_unknown: the request may have been carried out all the same.
    """

    code: str
    message: str = ""
    errors: tuple[FieldError, ...] = ()
    scope: str | None = None
    current: "Token | None" = None
    outcome_unknown: bool = False


Digest = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the token, 64 lower-case hex digits")
]
Time = Annotated[datetime, Meta(tz=True)]


# Tokens


class RateLimit(Message, frozen=True, forbid_unknown_fields=True):
    """At most ``maxRequests`` in each window of ``timeWindow`` seconds; windows are aligned to the epoch."""

    max_requests: int
    time_window: int


class Restrictions(Message, frozen=True, forbid_unknown_fields=True):
    addresses: tuple[str, ...] | None = None
    referrers: tuple[str, ...] | None = None
    rate_limit: RateLimit | None = None


class Access(Message, frozen=True):
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
    access: Access
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


class Actor(Message, frozen=True, forbid_unknown_fields=True):
    """On whose behalf an administrative request comes.

    On an edge's subjects exactly one of ``token`` and ``session`` is given, and the tokens service judges the token they
    lead to. On an operator's subjects only ``name`` is given: NATS has authenticated the operator, who may do everything.

    Args:
        token: the digest of the token that the client presented.
        session: the digest of the dashboard session's secret that the client presented.
        name: the operator's name in the audit.
        address: the client's address.
        referrer: the client's Referer header.
        request_id: the HTTP request's id.
    """

    token: Digest | None = None
    session: Digest | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    address: Annotated[str, Meta(max_length=64)] | None = None
    referrer: Annotated[str, Meta(max_length=2048)] | None = None
    request_id: Annotated[str, Meta(max_length=128)] | None = None


class AdministrativeRequest(Message, frozen=True, forbid_unknown_fields=True):
    """What every administrative request holds. An unknown field is rejected: it may narrow what is asked for."""

    actor: Actor


class VerifyToken(Message, frozen=True):
    """With ``scope`` the request is judged in full: then an account, address or referrer that is left out is one
    the request did not have, and a rate limit is used up. Without it the token is judged by what is given, and used up
    too, but its account only by one that is named; with the digest alone only the token itself is judged.
    """

    digest: Digest
    scope: str | None = None
    account: str | None = None
    address: str | None = None
    referrer: str | None = None


class Quota(Message, frozen=True):
    """What is left of a token's rate limit.

    Args:
        granted: how many requests may be made now; 0 when the window is used up.
        limit: requests in a window.
        remaining: what is left in this window.
        window: its length in seconds.
        resets_in: seconds until the next one, by PostgreSQL's clock.
        family: the tokens that share the limit; with ``starts`` it names the window in a `ReturnQuota`.
        starts: when the window started, in Unix seconds by PostgreSQL's clock.
        returned: how many unspent requests of the take before were given back with this one.
    """

    granted: int
    limit: int
    remaining: int
    window: int
    resets_in: float
    family: str | None = None
    starts: int | None = None
    returned: int = 0


class Verdict(Message, frozen=True):
    """Whether a token is honoured now, and the facts to judge a request by.

    Args:
        code: ``active``; ``invalid_token`` for unknown, revoked, disabled, expired and not yet valid alike; or,
            where the request was judged in full, the first of ``insufficient_scope``, ``account_mismatch``,
            ``address_not_allowed``, ``referrer_not_allowed`` and ``rate_limited`` that applies.
        token: the facts of an active token.
        expires_in: seconds that remain by PostgreSQL's clock; None where it does not expire.
        rev: the token's revision; it rises with every change.
        quota: of a token with a rate limit, where the request was judged in full.
        refused: of a token that exists and is not honoured, its id and why: for its log, never for the client.
    """

    code: Literal[
        "active",
        "invalid_token",
        "insufficient_scope",
        "account_mismatch",
        "address_not_allowed",
        "referrer_not_allowed",
        "rate_limited",
    ]
    token: Token | None = None
    expires_in: float | None = None
    rev: int = 0
    quota: Quota | None = None
    refused: "RefusedToken | None" = None


class RefusedToken(Message, frozen=True):
    """Which token is not valid, and why.

    Args:
        id: the token.
        reason: the first that applies.
        replaced: whether an expired token was rotated and its grace period is over. This is a separate field, since an
            edge of an earlier version cannot decode a new reason.
    """

    id: str
    reason: Literal["revoked", "disabled", "expired", "not_yet_valid"]
    replaced: bool = False

    @property
    def log_reason(self) -> str:
        """The reason for the token's log and the metrics."""
        return "replaced" if self.replaced and self.reason == "expired" else self.reason


class VerifyMany(Message, frozen=True):
    requests: Annotated[tuple[VerifyToken, ...], Meta(max_length=256)]


class Verdicts(Message, frozen=True):
    verdicts: tuple[Verdict, ...]


Holder = Annotated[str, Meta(pattern="^holder_[0-9a-z]{26}$")]
"""What one edge process holds of one token's limit. The id is known to nobody else."""
Requests = Annotated[int, Meta(ge=0, le=1_000_000)]
TakeNumber = Annotated[int, Meta(ge=1, le=2**53)]


class TakeQuota(Message, frozen=True):
    """Takes requests out of the current window of a token's limit. A take with a holder is idempotent: repeated under
    its number, it gets the same quota.

    Args:
        id: the token.
        wanted: how many requests will come soon. Near the end of the limit fewer are handed out.
        waiting: how many requests wait for this take; as many are handed out if they are left.
        holder: who takes. Without it nothing can be given back or recalled.
        take: the number of this take; the holder's next one is higher by one.
        unspent: how many requests of the take before are given back.
    """

    id: str
    wanted: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    holder: Holder | None = None
    take: TakeNumber = 1
    unspent: Requests = 0


class ReturnQuota(Message, frozen=True):
    """Gives back what a holder will not spend of its latest take. Idempotent: it counts once, in its own window, and
    never for more than the take handed out.

    Args:
        family: the tokens that share the limit.
        holder: who took it.
        take: the number of that take.
        window: the length of the window in seconds.
        starts: when that window started, as in the `Quota`.
        unspent: how many requests are given back.
    """

    family: str
    holder: Holder
    take: TakeNumber
    window: int
    starts: int
    unspent: Requests = 0


class ReturnedQuota(Message, frozen=True):
    """How many requests of the take were given back: 0 if its window is over."""

    counted: int


class RecallQuota(Message, frozen=True):
    """A notice: this window is handed out in full. Every edge gives back what it holds of it and has not spent, and from
    then on takes only what requests wait for.

    Args:
        family: the tokens that share the limit.
        window: the length of the window in seconds.
        starts: when it started, in Unix seconds by PostgreSQL's clock.
        limit: the limit that was reached; quotas of a higher one stay.
    """

    family: str
    window: int
    starts: int
    limit: int


class Use(Message, frozen=True):
    """How often a token was used since the last report, and when and from where last."""

    id: str
    count: int
    time: Time
    ip: str | None


class Refusal(Message, frozen=True):
    """A request that was refused, by route template."""

    id: str
    time: Time
    reason: str
    address: str | None
    route: str
    request_id: str | None = None


class ReportUse(Message, frozen=True):
    uses: tuple[Use, ...]
    refusals: tuple[Refusal, ...]


class Taken(Message, frozen=True):
    pass


class CreateToken(AdministrativeRequest, frozen=True):
    """``first_only``: reject with ``conflict`` unless this would be the first token there ever was."""

    token: NewToken
    digest: Digest
    hint: str
    first_only: bool = False
    idempotency_key: str | None = None


def only_account(account: str, actor: Actor) -> CreateToken:
    """Asks what is wrong with a new token's account, where the rest of the token is not valid either: a token without
    scopes is always rejected, with all that is wrong with it.
    """
    return CreateToken(token=NewToken(account=account), digest="0" * 64, hint="", actor=actor)


class Made(Message, frozen=True):
    """A token that was made; ``replayed``: by an earlier request with the same Idempotency-Key, whose secret
    nobody kept.
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


Cursor = Annotated[str, Meta(max_length=1024)]
"""Where a list goes on: the ``next`` of the answer before. Opaque; it fits only a request with the same filters."""


class GetLog(AdministrativeRequest, frozen=True, omit_defaults=True):
    """Names a token by its public id, or by its key where all one has is EmailEngine's id: see `RevokeToken`.

    Args:
        after: only older entries: the ``next`` of the answer before.
    """

    id: str | None = None
    key: Digest | None = None
    after: Cursor | None = None


class Change(Message, frozen=True):
    """A change, from the audit.

    Args:
        time: when.
        action: the change, such as ``token.updated``.
        actor: the id of the token that acted, or the operator's name.
        address: the client's address.
        request_id: the HTTP request's id.
        details: what it changed: in ``changes`` each field with its value before (``from``) and after (``to``), and
            further members that depend on the action. Changes that were made before version 0.2 may have none.
    """

    time: Time
    action: str
    actor: str
    address: str | None
    request_id: str | None
    details: dict[str, Any] = {}


class RejectedAttempt(Message, frozen=True):
    """A change that somebody was not authorized to make.

    Args:
        time: when.
        action: the change, such as ``token.revoke.rejected``.
        code: why it was rejected.
        actor: the id of the token that acted.
        address: the client's address.
        request_id: the HTTP request's id.
    """

    time: Time
    action: str
    code: str
    actor: str
    address: str | None
    request_id: str | None


class TokenLog(Message, frozen=True):
    """Changes, rejected requests and rejected attempts to change the token, newest first; at most 100 of each.

    Args:
        changes: the changes.
        refusals: the rejected requests, of which only the latest 100 are kept.
        attempts: the rejected attempts.
        next: the cursor of older entries; null if there are none.
    """

    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]
    attempts: tuple[RejectedAttempt, ...] = ()
    next: Cursor | None = None


class FindRefusals(AdministrativeRequest, frozen=True):
    """What was refused to the request with this id, as far as tokens' logs still hold it."""

    request_id: str


class FoundRefusals(Message, frozen=True):
    refusals: tuple[Refusal, ...]


MAX_USE_HOURS = 7 * 24


class GetUse(AdministrativeRequest, frozen=True):
    """How often tokens were used in each of the last hours, up to MAX_USE_HOURS."""

    ids: Annotated[tuple[str, ...], Meta(max_length=200)]
    hours: Annotated[int, Meta(ge=1, le=MAX_USE_HOURS)] = 24


class UseHistory(Message, frozen=True):
    """By token; an hour by the clock each, the oldest first and the present one last. Unused tokens are left out."""

    uses: dict[str, tuple[int, ...]]


class ImportTokens(AdministrativeRequest, frozen=True):
    """All of them or none. The records' shape is `tallystick.tokens.record.TokenRecord`.

    Args:
        records: the records. An expired one is left out; an expiry over ten years away is set to ten years.
        create_accounts: create the accounts that do not exist yet, in the same transaction.
        skip_rejected: import the rest where some records are rejected, and list those in the notices.
        dry_run: check everything and write nothing.
    """

    records: tuple[Any, ...]
    create_accounts: bool = False
    skip_rejected: bool = False
    dry_run: bool = False


class ImportNotice(Message, frozen=True):
    """What became of one record, if it was not simply added.

    Args:
        record: its index in the request.
        outcome: ``existing``: there is a token with this digest; ``revoked``: there is one, and it is revoked;
            ``expired``: left out; ``shortened``: added with an earlier expiry; ``rejected``: left out.
        id: the stored token's id, of an existing or revoked one.
        field: the field it is about, of a shortened or rejected one.
        message: why, for people.
    """

    record: int
    outcome: Literal["existing", "revoked", "expired", "shortened", "rejected"]
    id: str | None = None
    field: str = ""
    message: str = ""


class Imported(Message, frozen=True):
    """The tokens' ids: those that were added, and those that existed already; and what else is to be said."""

    added: tuple[str, ...]
    existing: tuple[str, ...]
    notices: tuple[ImportNotice, ...] = ()
    accounts: tuple[str, ...] = ()
    """The accounts that were created."""


class ExportToken(AdministrativeRequest, frozen=True):
    id: str


class Exported(Message, frozen=True):
    record: Any


class GetToken(AdministrativeRequest, frozen=True):
    """Names a token as `GetLog` does. ``revoked``: even if it is revoked."""

    id: str | None = None
    key: Digest | None = None
    revoked: bool = False


MAX_PAGE = 1_000_000
MAX_PAGE_SIZE = 1_000


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
        total: how many tokens match; with a cursor, how many matched when the first page was asked for.
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
        descendants: the ids of the descendants that were revoked with it, where that was asked for; at most
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


# Sessions of the dashboard: each acts for a token, and ends with it


class SignIn(AdministrativeRequest, frozen=True):
    """Begins a session for the actor's token, or with a link that has not been used.

    Args:
        session: the digest of the session's secret, which only the browser holds.
        link: the digest of the link's secret; the actor has no token then.
    """

    session: Digest
    link: Digest | None = None


class ResumeSession(Message, frozen=True):
    """Answers a verdict about the session's token: ``invalid_token`` where there is no such session any more."""

    session: Digest


class SignOut(Message, frozen=True):
    session: Digest


class MakeSignInLink(AdministrativeRequest, frozen=True):
    """A link that signs in once, as a token, within the next ``seconds``.

    Args:
        id: the token.
        link: the digest of the link's secret.
    """

    id: str
    link: Digest
    seconds: Annotated[int, Meta(ge=1, le=24 * 3600)] = 600


# How edges keep what they know true


class Changed(Message, frozen=True):
    """A token changed or was created.

    Args:
        seq: the change's place among all changes; they follow each other without holes, in the order of commits.
        key: SHA-256 of the token's digest, in hex. An edge finds the token in its cache by it, while an edge that was
            never shown the token does not learn the digest, with which it could act for it.
        rev: the token's new revision.
    """

    seq: int
    key: Digest
    rev: int


class Changes(Message, frozen=True):
    """Changes in order, and the highest ``seq`` there is. As a notice to the edges it may hold none: then it only
    tells them what they ought to know. ``changes`` is always there: an acknowledgement of JetStream, which holds a
    ``seq`` too, is no notice.
    """

    seq: int
    changes: tuple[Changed, ...]


class GetChanges(Message, frozen=True):
    """The changes after one. The answer leaves them out where they are too many or kept no longer: whoever asked
    has to forget everything it knows instead.
    """

    after: int


class RenewLease(Message, frozen=True):
    """Asks for the right to rely on a cache.

    Args:
        edge: one edge worker, from its start to its end.
        seq: up to which change it has forgotten what is out of date; None where it knows nothing yet.
    """

    edge: Annotated[str, Meta(pattern="^edge_[0-9a-z]{26}$")]
    seq: int | None = None


class Lease(Message, frozen=True):
    """For how many seconds the cache may be relied on, from before this was asked, by an edge that has forgotten
    everything out of date up to change ``seq``.
    """

    seconds: float
    seq: int


class ReleaseLease(Message, frozen=True):
    edge: Annotated[str, Meta(pattern="^edge_[0-9a-z]{26}$")]


class Acknowledged(Message, frozen=True):
    """An edge has forgotten everything out of date up to change ``seq``."""

    edge: str
    seq: int


class Settle(Message, frozen=True):
    """Waits until a change is true at every edge. ``seq``: which one; None for all that is committed by now."""

    seq: int | None = None


class Settled(Message, frozen=True):
    """Whether it is. If not yet, ask again with the same ``seq``.

    Args:
        seq: the change.
        settled: no edge relies on anything older any more.
        edges: how many edges said so; the others had no lease, or lost it.
    """

    seq: int
    settled: bool
    edges: int


VERIFY = Operation("tallystick.v1.tokens.verify", VerifyToken, Verdict)
VERIFY_MANY = Operation("tallystick.v1.tokens.verify_many", VerifyMany, Verdicts)
TAKE_QUOTA = Operation("tallystick.v1.edge.tokens.take_quota", TakeQuota, Quota, mutates=True)
RETURN_QUOTA = Operation("tallystick.v1.edge.tokens.return_quota", ReturnQuota, ReturnedQuota, mutates=True)
REPORT_USE = Operation("tallystick.v1.edge.tokens.report_use", ReportUse, Taken)
CREATE_TOKEN = Operation("tallystick.v1.edge.tokens.create", CreateToken, Made, mutates=True)
EDIT_TOKEN = Operation("tallystick.v1.edge.tokens.edit", EditToken, EditedToken, settles=True)
ROTATE_TOKEN = Operation("tallystick.v1.edge.tokens.rotate", RotateToken, Made, settles=True)
GET_LOG = Operation("tallystick.v1.edge.tokens.log", GetLog, TokenLog)
IMPORT_TOKENS = Operation(
    "tallystick.v1.operator.tokens.import",
    ImportTokens,
    Imported,
    timeout_s=10,
    max_bytes=MAX_IMPORT_BYTES,
    settles=True,
)
EXPORT_TOKEN = Operation("tallystick.v1.operator.tokens.export", ExportToken, Exported)
FIND_REFUSALS = Operation("tallystick.v1.edge.tokens.refusals", FindRefusals, FoundRefusals)
GET_USE = Operation("tallystick.v1.edge.tokens.use", GetUse, UseHistory)
SIGN_IN = Operation("tallystick.v1.edge.sessions.sign_in", SignIn, Verdict, mutates=True)
RESUME_SESSION = Operation("tallystick.v1.edge.sessions.resume", ResumeSession, Verdict)
SIGN_OUT = Operation("tallystick.v1.edge.sessions.sign_out", SignOut, Taken, mutates=True)
MAKE_SIGN_IN_LINK = Operation(
    "tallystick.v1.operator.sessions.make_link", MakeSignInLink, Taken, mutates=True
)
GET_TOKEN = Operation("tallystick.v1.edge.tokens.get", GetToken, Token)
# Of a million tokens it takes half a second to find those that hold a word.
LIST_TOKENS = Operation("tallystick.v1.edge.tokens.list", ListTokens, TokenPage, timeout_s=3)
# With descendants it may revoke tens of thousands.
REVOKE_TOKEN = Operation("tallystick.v1.edge.tokens.revoke", RevokeToken, Revoked, timeout_s=5, settles=True)
REVOKE_ALL = Operation("tallystick.v1.edge.tokens.revoke_all", RevokeAll, AllRevoked, settles=True)
SETTLE = Operation("tallystick.v1.edge.tokens.settle", Settle, Settled)
RENEW_LEASE = Operation("tallystick.v1.edge.tokens.renew_lease", RenewLease, Lease)
RELEASE_LEASE = Operation("tallystick.v1.edge.tokens.release_lease", ReleaseLease, Taken)
GET_CHANGES = Operation("tallystick.v1.edge.tokens.changes", GetChanges, Changes)
CHANGED = "tallystick.v1.edge.notice.changed"
"""Where `Changes` are published to every edge, as soon as they are committed."""
ACKNOWLEDGED = "tallystick.v1.edge.notice.acknowledged"
"""Where every edge publishes `Acknowledged` to all replicas of the tokens service."""
RECALLED = "tallystick.v1.edge.notice.recalled"
"""Where the tokens service publishes `RecallQuota` to every edge, once for each window that is handed out in full."""


# Accounts


class Account(Message, frozen=True):
    account: str
    name: str
    created: Time


class AddedAccount(Account, frozen=True):
    """``state`` tells a new account from one that was there."""

    state: Literal["new", "existing"]


class AddAccount(AdministrativeRequest, frozen=True):
    account: str
    name: str = ""
    idempotency_key: str | None = None


class GetAccount(AdministrativeRequest, frozen=True):
    account: str


class ListAccounts(AdministrativeRequest, frozen=True, omit_defaults=True):
    """Sorted by name, in pages as those of `ListTokens`.

    Args:
        query: only accounts with this in account or name. White space around it is removed; a query of nothing else
            matches all.
        after: the ``next`` of the page before, instead of a page's number.
    """

    page: int = 0
    page_size: int = 20
    query: str | None = None
    after: Cursor | None = None


class AccountPage(Message, frozen=True):
    """A page of a list, as `TokenPage`."""

    total: int
    page: int
    pages: int
    accounts: tuple[Account, ...]
    next: Cursor | None = None


class GetAccountLog(AdministrativeRequest, frozen=True, omit_defaults=True):
    """The log of an account, which may be deleted by now.

    Args:
        account: the account.
        after: only older entries: the ``next`` of the answer before.
    """

    account: str
    after: Cursor | None = None


class AccountLog(Message, frozen=True):
    """Changes of an account, and rejected attempts that named it, newest first; at most 100 of each. What happened to its
    tokens is in their logs.

    Args:
        changes: when it was added and deleted.
        attempts: rejected attempts to add or delete it, to create a token for it, or to revoke all of its tokens.
        next: the cursor of older entries; null if there are none.
    """

    changes: tuple[Change, ...]
    attempts: tuple[RejectedAttempt, ...] = ()
    next: Cursor | None = None


class DeleteAccount(AdministrativeRequest, frozen=True):
    account: str
    idempotency_key: str | None = None


class AccountDeleted(Message, frozen=True):
    account: str
    deleted: bool
    tokens: int
    living_descendants: int = 0


ADD_ACCOUNT = Operation("tallystick.v1.edge.accounts.add", AddAccount, AddedAccount, mutates=True)
GET_ACCOUNT = Operation("tallystick.v1.edge.accounts.get", GetAccount, Account)
LIST_ACCOUNTS = Operation("tallystick.v1.edge.accounts.list", ListAccounts, AccountPage)
GET_ACCOUNT_LOG = Operation("tallystick.v1.edge.accounts.log", GetAccountLog, AccountLog)
DELETE_ACCOUNT = Operation("tallystick.v1.edge.accounts.delete", DeleteAccount, AccountDeleted, settles=True)

ADMINISTRATIVE: tuple[Operation[Any, Any], ...] = (
    CREATE_TOKEN,
    EDIT_TOKEN,
    ROTATE_TOKEN,
    REVOKE_TOKEN,
    REVOKE_ALL,
    GET_TOKEN,
    LIST_TOKENS,
    GET_LOG,
    GET_USE,
    FIND_REFUSALS,
    ADD_ACCOUNT,
    GET_ACCOUNT,
    LIST_ACCOUNTS,
    GET_ACCOUNT_LOG,
    DELETE_ACCOUNT,
)
"""What edges ask for on behalf of a client. An operator asks for the same with `Operation.by_operator`."""


def operations() -> list[Operation[Any, Any]]:
    """Every operation on every subject that is served, by subject."""
    named = [each for each in globals().values() if isinstance(each, Operation)]
    return sorted(
        [*named, *(each.by_operator for each in (*ADMINISTRATIVE, SETTLE))], key=lambda each: each.subject
    )


# What the services know of themselves


class AskTokensStats(Message, frozen=True):
    pass


class TokensStats(Message, frozen=True):
    """``installation``: tells this installation from others, the same at every replica and after every restart."""

    accounts: int
    postgres: str
    installation: str = ""


MAX_STATS_SECONDS = 7 * 24 * 3600


class AskMetricsStats(Message, frozen=True):
    """``seconds``: how far back the counters reach, up to MAX_STATS_SECONDS."""

    seconds: int


class MetricsStats(Message, frozen=True):
    connections: dict[str, int]
    counters: dict[str, int]


MAX_HISTORY_MINUTES = 24 * 60


class AskHistory(Message, frozen=True):
    """The counts of the last minutes, of every kind that begins so."""

    minutes: Annotated[int, Meta(ge=1, le=MAX_HISTORY_MINUTES)]
    kind: Annotated[str, Meta(min_length=1, max_length=64)]


class History(Message, frozen=True):
    """By kind; a minute by the clock each, the oldest first and the present one last."""

    counts: dict[str, tuple[int, ...]]


class AskExposition(Message, frozen=True):
    """``openmetrics``: in OpenMetrics 1.0 rather than Prometheus' text format 0.0.4."""

    openmetrics: bool = False


class Exposition(Message, frozen=True):
    """The text, compressed with gzip and in base64."""

    gzip: bytes

    @property
    def text(self) -> str:
        return gzip.decompress(self.gzip).decode()


class AskCounting(Message, frozen=True):
    pass


class Counting(Message, frozen=True):
    """Whether events are counted and stored.

    Args:
        refusal: why counting waits for a decision of the operator; None if it does not wait.
        stream: ``writable``; ``full``: it is at its limit; ``failing``: NATS answers and the stream stores nothing.
    """

    refusal: str | None
    stream: Literal["writable", "full", "failing"]


class ResumeCounting(AdministrativeRequest, frozen=True):
    """The decision to count the stream that is there, from the first message that it holds."""


class Resumed(Message, frozen=True):
    """``refusal``: what was decided; None if there was nothing to decide."""

    refusal: str | None


TOKENS_STATS = Operation("tallystick.v1.tokens.stats", AskTokensStats, TokensStats)
METRICS_STATS = Operation("tallystick.v1.metrics.stats", AskMetricsStats, MetricsStats)
METRICS_HISTORY = Operation("tallystick.v1.metrics.history", AskHistory, History)
EXPOSITION = Operation("tallystick.v1.metrics.exposition", AskExposition, Exposition)
COUNTING = Operation("tallystick.v1.metrics.counting", AskCounting, Counting)
RESUME_COUNTING = Operation("tallystick.v1.operator.metrics.resume", ResumeCounting, Resumed, mutates=True)


# Events

EVENTS_STREAM = "TALLYSTICK_EVENTS"
EVENTS_PREFIX = "tallystick.events."
# The JetStream consumers of the metrics service: one counts the stream, the other counts it a second time.
STREAM_CONSUMER = "metrics"
RECONCILIATION_CONSUMER = "reconciliation"


class Event(Message, frozen=True, rename=None):
    """What happened, published on ``tallystick.events.<publisher>.<type>``.

    ``n`` rises by one per source and boot, so that duplicates of any age and gaps are detected. A bare event of a simple producer has no ``source``, ``boot`` and ``n``, and is counted once by its place in the stream. A
    ``source`` is its publisher's name, or begins with that name and a dot.
    """

    type: str = ""
    source: str | None = None
    boot: str | None = None
    n: int | None = None
    time: Time | None = None
    data: Mapping[str, Any] = msgspec.field(default_factory=dict)


class ThreadStarted(Message, frozen=True):
    thread: str
    type: str


class ThreadStopped(Message, frozen=True):
    """``unexpected``: it crashed or was killed, as its parent process reports."""

    thread: str
    unexpected: bool = False


class ThreadHeartbeat(Message, frozen=True):
    """All threads of one process at once."""

    threads: tuple[ThreadStarted, ...]


class TokenChanged(Message, frozen=True):
    """``token.created``, ``token.revoked``, ...: which token, never more."""

    id: str


class AccountAdded(Message, frozen=True):
    account: str


class AccountDeletedEvent(Message, frozen=True):
    account: str


class AccountState(Message, frozen=True):
    account: str
    state: str


class Counted(Message, frozen=True):
    """By how much a counter rose since it was last reported."""

    name: str
    value: Annotated[int, Meta(ge=0, le=2**40)]
    labels: dict[str, str] = {}


class Measured(Message, frozen=True):
    """What a gauge shows."""

    name: str
    value: float
    labels: dict[str, str] = {}


class MetricsReported(Message, frozen=True):
    """``metrics.reported``: what a process counted since its last report, and what its gauges show."""

    counters: tuple[Counted, ...] = ()
    gauges: tuple[Measured, ...] = ()


class ApiCall(Message, frozen=True):
    """``route``: its template, as in ``/v1/tokens/{token_id}``."""

    method: str
    status_code: Annotated[int, Meta(ge=0, le=999)]
    route: str
    count: Annotated[int, Meta(ge=0, le=2**40)]


class ApiCalls(Message, frozen=True):
    """``api.calls``: the requests an edge answered since its last report."""

    calls: tuple[ApiCall, ...]

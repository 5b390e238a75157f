"""Authority as a pure function: `apply` takes a state and a command, and returns the next state and the outcome.

The model is written from docs/security-model.md and imports nothing from the services. Times are seconds since the start of
a program. The clock stands still, except that each rotation advances it by a millisecond, so that a grace of 0 is over.

The program chooses the names of tokens, accounts and sessions, not the service. If the specification does not say which
of two rejections takes precedence, the outcome allows both (`Outcome.codes`).
"""

import ipaddress
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import Struct
from msgspec.structs import replace as replace_fields

TICK_S = 0.001
MAX_GRACE_S = 30 * 24 * 3600
SELF_ROTATION_MAX_GRACE_S = 24 * 3600
MAX_LIVING_SECRETS = 3
MAX_TOKENS_PER_CREATOR = 5
"""The limit that the tests configure; a test cannot reach the default of the service."""


class Caller(Struct, frozen=True, omit_defaults=True):
    """Who issues a command, and over which protocol.

    Args:
        token: the token that is presented.
        session: the dashboard session that is presented.
        operator: whether it is an operator, who uses the operator's subjects.
        http: whether it uses HTTP rather than an edge's NATS subjects.
        address: the client's address.
        referrer: the Referer header.
    """

    token: str | None = None
    session: str | None = None
    operator: bool = False
    http: bool = False
    address: str = "127.0.0.1"
    referrer: str | None = None


class Grant(Struct, frozen=True, omit_defaults=True):
    """The grant of a token. ``metadata`` is JSON text with sorted keys; ``expires`` is in seconds of the program."""

    scopes: tuple[str, ...] = ()
    account: str | None = None
    addresses: tuple[str, ...] | None = None
    referrers: tuple[str, ...] | None = None
    rate: tuple[int, int] | None = None
    expires: float | None = None
    description: str = ""
    metadata: str = "null"


class Command(Struct, frozen=True, omit_defaults=True):
    """One request. ``target`` names a token, an account or a session; ``new`` names what the command creates.

    Operations: create, edit, rotate, revoke, revoke_all, add_account, delete_account, import, sign_in, resume, sign_out,
    use, and expire: an operator's edit of the expiry, after which the token has expired.
    """

    operation: str
    caller: Caller = Caller(operator=True)
    target: str | None = None
    new: str | None = None
    grant: Grant = Grant()
    patch: dict[str, Any] | None = None
    disabled: bool = False
    grace: int = 0
    only: str | None = None
    descendants: bool = False
    dry_run: bool = False
    by_value: bool = False
    revision: int | None = None
    key: str | None = None
    scope: str = "api"
    account: str | None = None


@dataclass(frozen=True)
class Token:
    """``disabled_by`` numbers the disable that covered the token; ``creator`` is None for an operator."""

    name: str
    grant: Grant
    creator: str | None
    rotated_from: str | None = None
    rotated_to: str | None = None
    disabled_by: int | None = None
    revoked: bool = False
    imported: bool = False
    revision: int = 1


@dataclass(frozen=True)
class StoredReply:
    """The stored reply to a command with an idempotency key."""

    identity: tuple[Any, ...]
    request: str
    value: Any


@dataclass(frozen=True)
class State:
    """``sessions`` holds pairs of a session and its token; ``audit`` holds action, token or account, and actor."""

    tokens: dict[str, Token] = field(default_factory=dict, hash=False)
    accounts: frozenset[str] = frozenset()
    sessions: frozenset[tuple[str, str]] = frozenset()
    replies: frozenset[StoredReply] = frozenset()
    audit: tuple[tuple[str, str, str], ...] = ()
    clock: float = 0
    disables: int = 0

    def key(self) -> tuple[Any, ...]:
        """A hashable value that two equal states share, whatever order led to them."""
        tokens = tuple(sorted(self.tokens.items()))
        return tokens, self.accounts, self.sessions, self.replies, self.audit, self.clock


@dataclass(frozen=True)
class Outcome:
    """``codes`` is ``("ok",)``, or the allowed rejections; ``value`` is the reply of a success."""

    codes: tuple[str, ...] = ("ok",)
    value: Any = None

    @property
    def is_ok(self) -> bool:
        return self.codes == ("ok",)


class Rejected(Exception):
    def __init__(self, *codes: str) -> None:
        super().__init__(*codes)
        self.codes = codes


def apply(state: State, command: Command) -> tuple[State, Outcome]:
    """Carries out a command; a rejection changes nothing."""
    try:
        after, value = _replayed(state, command) or _OPERATIONS[command.operation](state, command)
    except Rejected as rejected:
        return state, Outcome((*rejected.codes, *_early_problem(command)))
    return _without_dead_sessions(after), Outcome(value=value)


def _early_problem(command: Command) -> tuple[str, ...]:
    """The error of an invalid request, which may take precedence over all others, whoever sends it."""
    is_wrong = (command.operation == "create" and not _is_well_formed(command.grant)) or (
        command.operation == "rotate" and not 0 <= command.grace <= MAX_GRACE_S
    )
    return ("bad_request",) if is_wrong else ()


# Tokens and chains


def is_active(state: State, token: Token) -> bool:
    return not token.revoked and token.disabled_by is None and not is_expired(state, token)


def is_living(state: State, token: Token) -> bool:
    """Whether a token is valid, or may become valid again when it is enabled."""
    return not token.revoked and not is_expired(state, token)


def is_expired(state: State, token: Token) -> bool:
    return token.grant.expires is not None and token.grant.expires <= state.clock


def has_lapsed(state: State, token: Token) -> bool:
    """Whether a token has expired at the end of its grace period, and was not revoked."""
    return token.rotated_to is not None and not token.revoked and is_expired(state, token)


def chain(state: State, name: str) -> list[Token]:
    """The tokens that rotations link, oldest first."""
    first = state.tokens[name]
    while first.rotated_from is not None:
        first = state.tokens[first.rotated_from]
    members = [first]
    while members[-1].rotated_to is not None:
        members.append(state.tokens[members[-1].rotated_to])
    return members


def in_grace(token: Token) -> bool:
    return token.rotated_to is not None


def descendants(state: State, covered: Iterable[str]) -> list[Token]:
    """The tokens that these created, directly or indirectly, each with its whole chain; without these themselves."""
    ancestors = set(covered)
    result: dict[str, Token] = {}
    while children := [
        member
        for token in state.tokens.values()
        if token.creator in ancestors and token.creator != token.rotated_from
        for member in chain(state, token.name)
        if member.name not in ancestors
    ]:
        ancestors |= {child.name for child in children}
        result |= {child.name: child for child in children}
    return list(result.values())


# Authority


def covers_scope(granted: Iterable[str], required: str) -> bool:
    return any(scope in ("*", required) or required.startswith(f"{scope}:") for scope in granted)


def exceeds(actor: Grant, grant: Grant) -> bool:
    """Whether a grant allows anything that the actor's grant does not."""
    return (
        any(not covers_scope(actor.scopes, scope) for scope in grant.scopes)
        or (actor.account is not None and grant.account != actor.account)
        or (actor.expires is not None and (grant.expires is None or grant.expires > actor.expires))
        or not _addresses_within(grant.addresses, actor.addresses)
        or (actor.referrers is not None and not set(grant.referrers or ["*"]) <= set(actor.referrers))
        or (actor.rate is not None and grant.rate != actor.rate)
    )


def is_narrower(after: Grant, before: Grant) -> bool:
    """Whether an edit narrows the grant. The rate limit does not count, since it is checked with each request."""
    return exceeds(replace_fields(after, rate=None), before)


def _addresses_within(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> bool:
    if outer is None:
        return True
    networks = [ipaddress.IPv4Network(text) for text in outer]
    return inner is not None and all(
        any(ipaddress.IPv4Network(text).subnet_of(network) for network in networks) for text in inner
    )


def _restriction_problem(grant: Grant, caller: Caller) -> str | None:
    """The violated restriction, if any. The programs use referrer patterns that end in ``*``, and no other wildcard."""
    address = ipaddress.IPv4Address(caller.address)
    if grant.addresses is not None and not any(
        address in ipaddress.IPv4Network(network) for network in grant.addresses
    ):
        return "address_not_allowed"
    if grant.referrers is not None and not any(
        caller.referrer is not None and caller.referrer.startswith(pattern.rstrip("*"))
        for pattern in grant.referrers
    ):
        return "referrer_not_allowed"
    return None


_SCOPES = {
    "create": "api:tokens:write",
    "edit": "api:tokens:write",
    "rotate": "api:tokens:write",
    "revoke": "api:tokens:delete",
    "revoke_all": "api:tokens:delete",
    "add_account": "api:accounts:write",
    "delete_account": "api:accounts:delete",
}


def required_scope(command: Command) -> str:
    is_disable = command.operation == "edit" and command.patch == {"disabled": True}
    return "api:tokens:delete" if is_disable else _SCOPES[command.operation]


def presented(state: State, caller: Caller) -> Token | None:
    """The token that the caller presents, directly or by a session; None if it is not active."""
    name = dict(state.sessions).get(caller.session) if caller.session else caller.token
    token = state.tokens.get(name or "")
    return token if token is not None and is_active(state, token) else None


def authorize(state: State, command: Command) -> Token | None:
    """The acting token after the checks of scope, account, address and referrer; None for an operator."""
    caller = command.caller
    if caller.operator:
        return None
    actor = presented(state, caller)
    if actor is None:
        raise Rejected("invalid_token")
    grant = actor.grant
    if not _is_self_service(actor, command) and not covers_scope(grant.scopes, required_scope(command)):
        raise Rejected("insufficient_scope", *_problems_at_the_edge(state, actor, command))
    if command.operation == "create" and grant.account is not None:
        literal = bool({"api:tokens", "api:tokens:write"} & set(grant.scopes)) and not actor.imported
        own_account = command.grant.account == grant.account
        problem = _restriction_problem(grant, caller)
        restricted = (problem,) if problem else ()
        if not own_account:
            # The edge checks restrictions before it has the body, which names the account.
            at_the_edge = restricted if caller.http else ()
            scope_problem = () if literal else ("insufficient_scope",)
            raise Rejected("account_mismatch", "exceeds_authority", *scope_problem, *at_the_edge)
        if not literal:
            # Whether the token may create tokens is checked last.
            raise Rejected("insufficient_scope", *restricted)
    names_account = command.operation in {"revoke_all", "add_account", "delete_account"}
    if names_account and grant.account not in (None, command.target):
        raise Rejected("account_mismatch")
    if problem := _restriction_problem(grant, caller):
        raise Rejected(problem, *_account_problem(state, actor, command))
    return actor


def _problems_at_the_edge(state: State, actor: Token, command: Command) -> tuple[str, ...]:
    """The edge admits an edit by either scope, and checks account and restrictions before the service decides which is needed."""
    scopes = ("api:tokens:write", "api:tokens:delete")
    is_admitted = any(covers_scope(actor.grant.scopes, scope) for scope in scopes)
    if not (command.caller.http and command.operation == "edit" and is_admitted):
        return ()
    problem = _restriction_problem(actor.grant, command.caller)
    return (*_account_problem(state, actor, command), *((problem,) if problem else ()))


def _account_problem(state: State, actor: Token, command: Command) -> tuple[str, ...]:
    """A bound actor that names a token out of its reach may get this code before its address is checked."""
    if actor.grant.account is None or command.operation not in {"edit", "rotate", "revoke"}:
        return ()
    target = state.tokens.get(command.target or "")
    return () if target is actor else ("account_mismatch",)


def _is_self_service(actor: Token, command: Command) -> bool:
    """Over HTTP, self-service has its own routes, which take no options."""
    has_options = command.by_value or command.dry_run or command.only is not None
    on_itself = command.target == actor.name and command.operation in {"rotate", "revoke"}
    return on_itself and not command.descendants and not (command.caller.http and has_options)


def _target(state: State, actor: Token | None, command: Command, *, revoked: bool = False) -> Token:
    """The token that a command names. A bound actor learns nothing about tokens of other accounts."""
    token = state.tokens.get(command.target or "")
    is_bound = actor is not None and actor.grant.account is not None
    if token is None or (token.revoked and not revoked):
        raise Rejected(*(("account_mismatch", "not_found") if is_bound and token else _missing(is_bound)))
    if is_bound and actor is not None and token.grant.account != actor.grant.account:
        raise Rejected("account_mismatch")
    return token


def _missing(is_bound: bool) -> tuple[str]:
    return ("account_mismatch",) if is_bound else ("not_found",)


def _check_revision(token: Token, command: Command) -> None:
    if command.revision is not None and command.revision != token.revision:
        raise Rejected("stale")


def _check_covers(actor: Token | None, *grants: Grant, problem: tuple[str, ...] = ()) -> None:
    if actor is not None and any(exceeds(actor.grant, grant) for grant in grants):
        raise Rejected("exceeds_authority", *problem)


def _changes_own_chain_in_grace(state: State, actor: Token | None, changed: Iterable[Token]) -> bool:
    """Whether the actor is in its grace period and a changed token is a member of its chain, which is not allowed."""
    if actor is None or not in_grace(actor):
        return False
    own = {member.name for member in chain(state, actor.name)}
    return any(token.name in own for token in changed)


def _check_grace(state: State, actor: Token | None, changed: Iterable[Token]) -> None:
    if _changes_own_chain_in_grace(state, actor, changed):
        raise Rejected("exceeds_authority")


# Operations


def _create(state: State, command: Command) -> tuple[State, Any]:
    actor = authorize(state, command)
    problem = () if _is_valid(state, command.grant) else ("bad_request",)
    if actor is not None and _living_created(state, actor) >= MAX_TOKENS_PER_CREATOR:
        alternatives = ("exceeds_authority",) if exceeds(actor.grant, command.grant) else ()
        raise Rejected("conflict", *alternatives, *problem)
    _check_covers(actor, command.grant, problem=problem)
    if problem:
        raise Rejected(*problem)
    return _add(state, command, actor)


def _living_created(state: State, actor: Token) -> int:
    members = {member.name for member in chain(state, actor.name)}
    return sum(
        token.creator in members and token.creator != token.rotated_from and is_living(state, token)
        for token in state.tokens.values()
    )


def _add(state: State, command: Command, actor: Token | None) -> tuple[State, Any]:
    assert command.new is not None
    grant = Grant(**{**_asdict(command.grant), "scopes": tuple(dict.fromkeys(command.grant.scopes))})
    added = Token(command.new, grant, creator=actor.name if actor else None)
    after = _record(_put(state, added), "token.created", [added], actor)
    return _store_reply(after, command, actor, ("token", *view(added)))


def _import(state: State, command: Command) -> tuple[State, Any]:
    """An operator imports one record. An existing token stays unchanged."""
    assert command.new is not None
    if command.new in state.tokens:
        return state, ("existing",)
    if not _is_valid(state, command.grant):
        raise Rejected("bad_request")
    disables = state.disables + command.disabled
    imported = Token(
        command.new,
        command.grant,
        creator=None,
        imported=True,
        disabled_by=disables if command.disabled else None,
    )
    after = replace(_put(state, imported), disables=disables)
    return _record(after, "token.created", [imported], None), ("added",)


def _is_valid(state: State, grant: Grant) -> bool:
    return _is_well_formed(grant) and (grant.account is None or grant.account in state.accounts)


def _is_well_formed(grant: Grant) -> bool:
    return (
        bool(grant.scopes)
        and grant.addresses != ()
        and grant.referrers != ()
        and (grant.rate is None or all(grant.rate))
    )


def _rotate(state: State, command: Command) -> tuple[State, Any]:
    assert command.new is not None
    actor = authorize(state, command)
    on_itself = actor is not None and actor.name == command.target
    if actor is not None and actor.grant.account is not None and not on_itself:
        raise Rejected("account_mismatch")
    token = _target(state, actor, command)
    _check_revision(token, command)
    max_grace = SELF_ROTATION_MAX_GRACE_S if on_itself else MAX_GRACE_S
    grace_problem = ("bad_request",) if not 0 <= command.grace <= max_grace else ()
    own_problem = ("exceeds_authority",) if _changes_own_chain_in_grace(state, actor, [token]) else ()
    if token.rotated_to is not None or is_expired(state, token):
        raise Rejected("conflict", *own_problem, *grace_problem)
    if own_problem:
        raise Rejected(*own_problem, *grace_problem)
    after = replace(state, clock=state.clock + TICK_S)
    expires = min(token.grant.expires or float("inf"), state.clock + command.grace)
    old = replace(token, grant=Grant(**{**_asdict(token.grant), "expires": expires}), rotated_to=command.new)
    new = Token(
        command.new,
        token.grant,
        creator=actor.name if actor else None,
        rotated_from=token.name,
        disabled_by=token.disabled_by,
        imported=token.imported,
    )
    after = _put(_put(after, new), old)
    if on_itself and _living(after, new.name) > MAX_LIVING_SECRETS:
        raise Rejected("conflict", *grace_problem)
    if not on_itself and actor is not None and exceeds(actor.grant, token.grant):
        raise Rejected("exceeds_authority", *grace_problem)
    if grace_problem:
        raise Rejected(*grace_problem)
    after = _record(after, "token.rotated", [old], actor)
    after = _record(after, "token.created", [new], actor)
    return _store_reply(after, command, actor, ("token", *view(new)))


def _living(state: State, name: str) -> int:
    return sum(is_living(state, token) for token in chain(state, name))


def _edit(state: State, command: Command) -> tuple[State, Any]:
    assert command.patch is not None
    actor = authorize(state, command)
    is_disable = command.patch == {"disabled": True}
    on_itself = actor is not None and actor.name == command.target
    if actor is not None and actor.grant.account is not None and not on_itself and not is_disable:
        raise Rejected("account_mismatch")
    token = _target(state, actor, command)
    _check_revision(token, command)
    if is_disable:
        return _disable(state, command, actor, token)
    if command.patch == {"disabled": False}:
        return _enable(state, command, actor, token)
    if token.rotated_to is not None:
        alternatives = ("exceeds_authority",) if _changes_own_chain_in_grace(state, actor, [token]) else ()
        raise Rejected("conflict", *alternatives)
    _check_grace(state, actor, [token])
    grant = merged(token.grant, command.patch)
    problem = () if _is_well_formed(grant) else ("bad_request",)
    _check_covers(actor, token.grant, grant, problem=problem)
    if problem:
        raise Rejected(*problem)
    return _change_grant(state, command, actor, token, grant)


def _change_grant(
    state: State, command: Command, actor: Token | None, token: Token, grant: Grant
) -> tuple[State, Any]:
    if grant != token.grant:
        edited = replace(token, grant=grant)
        narrower = is_narrower(grant, token.grant)
        state = _record(_put(state, edited), "token.updated", [edited], actor)
        if narrower:
            state = replace(
                state, sessions=frozenset(pair for pair in state.sessions if pair[1] != token.name)
            )
    return _store_reply(state, command, actor, ("token", *view(state.tokens[token.name])))


def _expire(state: State, command: Command) -> tuple[State, Any]:
    token = _target(state, None, command)
    if token.rotated_to is not None:
        raise Rejected("conflict")
    grant = Grant(**{**_asdict(token.grant), "expires": state.clock})
    return _change_grant(replace(state, clock=state.clock + TICK_S), command, None, token, grant)


def merged(grant: Grant, patch: dict[str, Any]) -> Grant:
    """The grant after a JSON merge patch (RFC 7396) of its representation."""
    document = {
        "description": grant.description,
        "scopes": list(grant.scopes),
        "metadata": json.loads(grant.metadata),
        "expires": grant.expires,
        "restrictions": {
            "addresses": grant.addresses and list(grant.addresses),
            "referrers": grant.referrers and list(grant.referrers),
            "rateLimit": grant.rate and {"maxRequests": grant.rate[0], "timeWindow": grant.rate[1]},
        },
    }
    result = _merge(document, patch)
    restrictions = result.get("restrictions") or {}
    rate = restrictions.get("rateLimit")
    return Grant(
        scopes=tuple(dict.fromkeys(result.get("scopes") or ())),
        account=grant.account,
        addresses=_tuple(restrictions.get("addresses")),
        referrers=_tuple(restrictions.get("referrers")),
        rate=None if rate is None else (rate.get("maxRequests", 0), rate.get("timeWindow", 0)),
        expires=result.get("expires"),
        description=result.get("description") or "",
        metadata=json.dumps(result.get("metadata"), sort_keys=True),
    )


def _merge(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _disable(state: State, command: Command, actor: Token | None, token: Token) -> tuple[State, Any]:
    members = chain(state, token.name)
    changed = [
        member
        for member in members
        if not member.revoked and member.disabled_by is None and not has_lapsed(state, member)
    ]
    _check_grace(state, actor, members)
    state = replace(state, disables=state.disables + 1)
    disabled = [replace(member, disabled_by=state.disables) for member in changed]
    state = _record(_put(state, *disabled), "token.disabled", disabled, actor)
    return _store_reply(state, command, actor, ("token", *view(state.tokens[token.name])))


def _enable(state: State, command: Command, actor: Token | None, token: Token) -> tuple[State, Any]:
    restored = [
        member
        for member in chain(state, token.name)
        if member.disabled_by is not None and member.disabled_by == token.disabled_by and not member.revoked
    ]
    _check_grace(state, actor, restored)
    _check_covers(actor, *(member.grant for member in restored))
    enabled = [replace(member, disabled_by=None) for member in restored]
    state = _record(_put(state, *enabled), "token.enabled", enabled, actor)
    return _store_reply(state, command, actor, ("token", *view(state.tokens[token.name])))


def _revoke(state: State, command: Command) -> tuple[State, Any]:
    actor = authorize(state, command)
    token = _target(state, actor, command, revoked=True)
    _check_revision(token, command)
    on_itself = actor is not None and actor.name == token.name
    members = self_revocation(state, token) if on_itself else chain(state, token.name)
    if command.only == "predecessors":
        names = [member.name for member in chain(state, token.name)]
        members = [member for member in members if names.index(member.name) < names.index(token.name)]
    covered = [member for member in members if not has_lapsed(state, member)]
    descendant_tokens = descendants(state, [member.name for member in members])
    revoked = covered + [
        member for member in descendant_tokens if command.descendants and not has_lapsed(state, member)
    ]
    if not on_itself:
        _check_grace(state, actor, revoked)
    else:
        _check_grace(state, actor, revoked[len(covered) :])
    after = state if command.dry_run else _end(state, revoked, actor)
    revoked_names = {member.name for member in revoked}
    living = sum(
        is_living(state, member) and member.name not in revoked_names for member in descendant_tokens
    )
    own = {member.name for member in chain(state, actor.name)} if actor is not None else set()
    value = (
        "revoked",
        not command.dry_run,
        tuple(member.name for member in covered),
        frozenset(member.name for member in revoked[len(covered) :]),
        living,
        frozenset(revoked_names & own),
    )
    return _store_reply(after, command, actor, value)


def self_revocation(state: State, token: Token) -> list[Token]:
    """The tokens that a self-revocation covers: the predecessors, the token, and its successors by self-rotation, transitively."""
    members = chain(state, token.name)
    position = members.index(token)
    end = position + 1
    while end < len(members) and members[end].creator == members[end - 1].name:
        end += 1
    return members[:end]


def _end(state: State, members: Iterable[Token], actor: Token | None) -> State:
    living = [replace(member, revoked=True) for member in members if not member.revoked]
    return _record(_put(state, *living), "token.revoked", living, actor)


def _revoke_all(state: State, command: Command) -> tuple[State, Any]:
    actor = authorize(state, command)
    if command.target not in state.accounts:
        raise Rejected("not_found")
    after, value = _end_account(state, command, actor)
    return _store_reply(after, command, actor, value)


def _end_account(state: State, command: Command, actor: Token | None) -> tuple[State, Any]:
    bound = [token for token in state.tokens.values() if token.grant.account == command.target]
    living = [token for token in bound if not token.revoked]
    _check_grace(state, actor, living)
    after = _end(state, living, actor)
    remaining = sum(
        is_living(after, after.tokens[token.name]) for token in descendants(state, [t.name for t in living])
    )
    return after, ("all_revoked", len(living), remaining)


def _delete_account(state: State, command: Command) -> tuple[State, Any]:
    actor = authorize(state, command)
    account = command.target or ""
    if account not in state.accounts:
        raise Rejected("not_found")
    after, value = _end_account(state, command, actor)
    after = replace(after, accounts=after.accounts - {account})
    after = _audit(after, "account.deleted", [account], actor)
    return _store_reply(after, command, actor, value)


def _add_account(state: State, command: Command) -> tuple[State, Any]:
    actor = authorize(state, command)
    account = command.target or ""
    if account in state.accounts:
        return _store_reply(state, command, actor, ("account", "existing"))
    after = replace(state, accounts=state.accounts | {account})
    after = _audit(after, "account.added", [account], actor)
    return _store_reply(after, command, actor, ("account", "new"))


# Sessions and use


def _sign_in(state: State, command: Command) -> tuple[State, Any]:
    actor = presented(state, command.caller)
    if actor is None:
        raise Rejected("invalid_token")
    if not covers_scope(actor.grant.scopes, "admin"):
        raise Rejected("insufficient_scope")
    if actor.grant.account is not None:
        raise Rejected("account_mismatch")
    if problem := _restriction_problem(actor.grant, command.caller):
        raise Rejected(problem)
    assert command.new is not None
    state = replace(state, sessions=state.sessions | {(command.new, actor.name)})
    return _audit(state, "session.started", [actor.name], actor), ("session",)


def _resume(state: State, command: Command) -> tuple[State, Any]:
    if presented(state, Caller(session=command.target)) is None:
        raise Rejected("invalid_token")
    return state, ("session",)


def _sign_out(state: State, command: Command) -> tuple[State, Any]:
    remaining = frozenset(pair for pair in state.sessions if pair[0] != command.target)
    return replace(state, sessions=remaining), ("signed_out",)


def _use(state: State, command: Command) -> tuple[State, Any]:
    """A request at ``/auth``."""
    token = presented(state, Caller(token=command.caller.token))
    if token is None:
        raise Rejected("invalid_token")
    if not covers_scope(token.grant.scopes, command.scope):
        raise Rejected("insufficient_scope")
    if token.grant.account not in (None, command.account):
        raise Rejected("account_mismatch")
    if problem := _restriction_problem(token.grant, command.caller):
        raise Rejected(problem)
    return state, ("used",)


def verdict(state: State, name: str) -> str:
    """The verdict on a token at ``/auth``, for a scope that it has and a client that meets its restrictions."""
    token = state.tokens.get(name)
    return "active" if token is not None and is_active(state, token) else "invalid_token"


_OPERATIONS: dict[str, Callable[[State, Command], tuple[State, Any]]] = {
    "create": _create,
    "edit": _edit,
    "rotate": _rotate,
    "revoke": _revoke,
    "revoke_all": _revoke_all,
    "add_account": _add_account,
    "delete_account": _delete_account,
    "import": _import,
    "expire": _expire,
    "sign_in": _sign_in,
    "resume": _resume,
    "sign_out": _sign_out,
    "use": _use,
}


# Functions of all operations


def view(token: Token) -> tuple[Any, ...]:
    """The representation of a token, with its expiry rounded to five minutes."""
    grant = token.grant
    expires = None if grant.expires is None else round(grant.expires / 300)
    return (
        token.name,
        tuple(sorted(grant.scopes)),
        grant.account,
        grant.addresses,
        grant.referrers,
        grant.rate,
        expires,
        grant.description,
        grant.metadata,
        token.disabled_by is not None,
        token.rotated_to,
        token.revision,
    )


def _asdict(grant: Grant) -> dict[str, Any]:
    return {name: getattr(grant, name) for name in Grant.__struct_fields__}


def _put(state: State, *tokens: Token) -> State:
    return replace(state, tokens={**state.tokens, **{token.name: token for token in tokens}})


def _record(state: State, action: str, tokens: list[Token], actor: Token | None) -> State:
    """Adds one audit row and one revision for each changed token. A new token's first revision is 1."""
    if action != "token.created":
        state = _put(state, *(replace(token, revision=token.revision + 1) for token in tokens))
    return _audit(state, action, [token.name for token in tokens], actor)


def _audit(state: State, action: str, names: Iterable[str], actor: Token | None) -> State:
    rows = [(action, name, "operator" if actor is None else actor.name) for name in names]
    return replace(state, audit=tuple(sorted([*state.audit, *rows])))


def _without_dead_sessions(state: State) -> State:
    """A session ends when its token becomes invalid, and enabling the token does not restore it."""
    living = frozenset(pair for pair in state.sessions if is_active(state, state.tokens[pair[1]]))
    return replace(state, sessions=living)


def _identity(state: State, command: Command) -> tuple[Any, ...] | None:
    if command.key is None or command.dry_run:
        return None
    actor = None if command.caller.operator else presented(state, command.caller)
    return (actor and actor.name, command.operation, command.key)


def _request(command: Command) -> str:
    """The fields that a repeated request must share with the first one: all but the caller, the new name and the key."""
    fields = {name: getattr(command, name) for name in Command.__struct_fields__}
    for name in ("caller", "new", "key"):
        del fields[name]
    fields["grant"] = _asdict(command.grant)
    return json.dumps(fields, sort_keys=True)


def _replayed(state: State, command: Command) -> tuple[State, Any] | None:
    """The stored reply, once the caller is authorized."""
    identity = _identity(state, command)
    stored = [reply for reply in state.replies if reply.identity == identity]
    if identity is None or not stored:
        return None
    is_same = stored[0].request == _request(command)
    try:
        authorize(state, command)
    except Rejected as rejected:
        raise Rejected(*rejected.codes, *(() if is_same else ("conflict",))) from None
    if not is_same:
        raise Rejected("conflict")
    value = stored[0].value
    return state, ("replayed", *value[1:]) if command.operation in {"create", "rotate"} else value


def _store_reply(state: State, command: Command, actor: Token | None, value: Any) -> tuple[State, Any]:
    if command.key is None or command.dry_run:
        return state, value
    identity = (actor and actor.name, command.operation, command.key)
    reply = StoredReply(identity, _request(command), value)
    return replace(state, replies=state.replies | {reply}), value

"""The steps of changes to tokens: what each checks, covers and writes, in a transaction that holds the locks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import MAX_DESCENDANTS_LISTED, Revoked, RevokeToken, TokenUpdate
from tallystick.tokens import rules
from tallystick_server.tokens.attenuation import exceeds
from tallystick_server.tokens.authority import Authority, Rejected
from tallystick_server.tokens.handlers.replies import bad_request, conflict, not_found
from tallystick_server.tokens.merging import NotMergeable, merged
from tallystick_server.tokens.operations import Rule
from tallystick_server.tokens.store import rows
from tallystick_server.tokens.store.rows import StoredToken
from tallystick_server.tokens.store.writes import Transaction


async def find_target(
    change: Transaction,
    *required: Rule,
    id: str | None = None,  # noqa: A002  # the field's name
    digest: str | None = None,
    key: str | None = None,
) -> StoredToken:
    """Finds the token to change, before anything is locked.

    Args:
        change: the transaction.
        required: the rules that must allow the actor to change it.
        id: its public id.
        digest: its digest.
        key: the key of its digest, as in change notices.

    Raises:
        Rejected: the token does not exist, the actor is not authorized, or the digest and the key belong to two tokens.
    """
    target = None
    if digest is not None or (id is not None and rules.is_token_id(id)):
        target = await change.find(id=id, digest=digest)
    by_key = await change.find_by_key(key) if key is not None else None
    is_ambiguous = target is not None and by_key is not None
    target = target or by_key
    for rule in required:
        change.authority.require(
            rule,
            account=account_of(rule, target) if target else None,
            of_itself=change.authority.is_holder(target),
        )
    if target is None:
        raise Rejected(not_found())
    if is_ambiguous:
        raise Rejected(conflict("this is a token and EmailEngine's id of another one: use the public id"))
    return target


def account_of(rule: Rule, target: StoredToken) -> str | None:
    """The account to authorize an operation on a token for; None for operations that an account-bound token may do only to
    itself.
    """
    return None if rule.is_bound_to_itself else target.token.account


async def read_locked(
    change: Transaction, unlocked: StoredToken
) -> tuple[Sequence[StoredToken], StoredToken]:
    """A token and its chain, read after the chain was locked."""
    chain = await change.chain(unlocked.chain)
    return chain, next(member for member in chain if member.token.id == unlocked.token.id)


def require_existing(target: StoredToken) -> None:
    """Raises:
    Rejected: it is revoked.
    """
    if target.token.revoked is not None:
        raise Rejected(not_found())


def require_revision(target: StoredToken, revisions: Sequence[int] | None) -> None:
    """Raises:
    Rejected: the change is meant for another revision.
    """
    if revisions is not None and target.token.revision not in revisions:
        raise Rejected(
            Failure(code="stale", message="the token has changed since it was read", current=target.token)
        )


async def edit(change: Transaction, authority: Authority, target: StoredToken, changes: TokenUpdate) -> None:
    if target.token.rotated_to is not None:
        raise Rejected(conflict("this token was rotated: change its successor"))
    before = rows.as_new_token(target.token)
    try:
        after = merged(before, changes)
    except NotMergeable as error:
        raise Rejected(bad_request(*error.problems)) from None
    # An unchanged expiry may have passed; only a new one must be in the future.
    candidate = after if after.expires != before.expires else msgspec.structs.replace(after, expires=None)
    reject(rules.problems(candidate, datetime.now(UTC), stored=target.token.restrictions))
    after = rules.canonical_token(after)
    # Both the old and the new token must be covered: otherwise an actor could narrow a token with more authority.
    authority.require_grant(before, after)
    if after == before:
        return
    await change.update(target.token, after)
    if not target.is_active or narrows(before, after):
        await change.end_sessions([target.token.id])


async def disable(
    change: Transaction, authority: Authority, chain: Sequence[StoredToken], target: StoredToken
) -> Sequence[str]:
    """Disables the whole chain, and returns the tokens that this disable covers."""
    covered = [member for member in chain if not member.is_over and not member.token.disabled]
    authority.require_not_replaced([target, *covered])
    before = [
        member
        for member in chain
        if member is target
        or (member.disabled_with is not None and member.disabled_with == target.disabled_with)
    ]
    if covered:
        await change.disable(_ids(covered), target.disabled_with)
        await change.end_sessions(_ids(covered))
    return _ids(
        member for member in chain if member in covered or (member in before and member.token.disabled)
    )


async def enable(
    change: Transaction, authority: Authority, chain: Sequence[StoredToken], target: StoredToken
) -> Sequence[str]:
    """Enables the tokens that the same disable covered, and returns them."""
    if not target.token.disabled:
        return []
    covered = [
        member
        for member in chain
        if member.token.revoked is None
        and member.token.disabled
        and (
            member is target
            or (member.disabled_with is not None and member.disabled_with == target.disabled_with)
        )
    ]
    authority.require_not_replaced(covered)
    authority.require_grant(*(rows.as_new_token(member.token) for member in covered))
    await change.enable(_ids(covered))
    return _ids(covered)


def coverage(
    chain: Sequence[StoredToken], target: StoredToken, *, of_itself: bool, only: str | None
) -> Sequence[StoredToken]:
    """The tokens of a chain that the revocation of one of them covers."""
    place = chain.index(target)
    if only == "predecessors":
        return chain[:place]
    if not of_itself:
        return chain
    # Only successors from its own rotations: a successor that another actor created belongs to that actor.
    end = place
    while end + 1 < len(chain) and chain[end].rotated_by == chain[end].token.id:
        end += 1
    return chain[: end + 1]


async def revoke(
    change: Transaction,
    authority: Authority,
    chain: Sequence[StoredToken],
    covered: Sequence[StoredToken],
    descendants: Sequence[StoredToken],
    *,
    request: RevokeToken,
) -> Revoked:
    """Revokes the covered tokens, the chain of the acting token last."""
    holder = authority.holder
    own = holder.chain if holder else None
    to_revoke = [member for member in (*descendants, *covered) if not member.is_over]
    to_revoke.sort(key=lambda member: member.chain == own)
    if to_revoke and not request.dry_run:
        await change.revoke(_ids(to_revoke))
        await change.end_sessions(_ids(to_revoke))
    revoked_ids = set(_ids(to_revoke))
    revoked_descendants = [
        member for member in descendants if member.token.revoked is not None or member.token.id in revoked_ids
    ]
    living = 0
    if not request.descendants:
        living = await change.count_living_descendants(_ids(covered), [chain[0].chain])
    return Revoked(
        deleted=not request.dry_run,
        covered=tuple(
            member.token.id
            for member in covered
            if member.token.revoked is not None or member.token.id in revoked_ids
        ),
        descendants=tuple(_ids(revoked_descendants)[:MAX_DESCENDANTS_LISTED]),
        living_descendants=living,
        own_chain=tuple(
            member.token.id
            for member in (*revoked_descendants, *covered)
            if member.chain == own and (member.token.revoked is not None or member.token.id in revoked_ids)
        ),
        changed=bool(to_revoke) and not request.dry_run,
    )


async def revoke_account(change: Transaction, rule: Rule, account: str) -> tuple[int, int]:
    """Revokes every token of an account, and returns their number and the number of their living descendants.

    Raises:
        Rejected: the account does not exist, or the actor is not authorized.
    """
    if not await change.lock_account(account, to_change=True):
        raise Rejected(not_found())
    chains = await change.chains_of_account(account)
    authority = await change.lock(*chains)
    authority.require(rule, account=account)
    members = await change.members(chains)
    to_revoke = [member for member in members if member.token.revoked is None]
    authority.require_not_replaced(member for member in to_revoke if not authority.is_holder(member))
    to_revoke.sort(key=lambda member: authority.holder is not None and member.chain == authority.holder.chain)
    if to_revoke:
        await change.revoke(_ids(to_revoke))
        await change.end_sessions(_ids(to_revoke))
    return len(to_revoke), await change.count_living_descendants(_ids(members), chains)


async def descendants(change: Transaction, covered: Sequence[StoredToken]) -> Sequence[StoredToken]:
    """The tokens created by the covered ones, directly or indirectly, each with its chain."""
    if not covered:
        return []
    return await change.members(await change.descendants(_ids(covered), [covered[0].chain]))


def narrows(before: NewToken, after: NewToken) -> bool:
    """Whether an edit reduces what a token may do. The rate limit is left out: it is checked with each request."""
    starts_later = after.not_before is not None and after.not_before != before.not_before
    limits = msgspec.structs.replace(before.restrictions, rate_limit=after.restrictions.rate_limit)
    return starts_later or bool(exceeds(after, msgspec.structs.replace(before, restrictions=limits)))


def limited_holder(authority: Authority) -> StoredToken | None:
    """The acting token, if the tokens that it creates share its rate limit."""
    holder = authority.holder
    return holder if holder is not None and holder.token.restrictions.rate_limit is not None else None


def _ids(tokens: Any) -> list[str]:
    return [stored.token.id for stored in tokens]


def reject(problems: Sequence[FieldError]) -> None:
    """Raises:
    Rejected: there are problems.
    """
    if problems:
        raise Rejected(bad_request(*problems))

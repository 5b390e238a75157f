"""Creates, shows, changes and revokes tokens."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.records import Token
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    FIND_REJECTED_REQUESTS,
    GET_LOG,
    GET_TOKEN,
    GET_USE,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    AllRevoked,
    CreatedToken,
    CreateToken,
    EditedToken,
    EditToken,
    FindRejectedRequests,
    GetLog,
    GetToken,
    GetUse,
    ListTokens,
    RejectedRequests,
    RevokeAll,
    Revoked,
    RevokeToken,
    RotateToken,
    TokenLog,
    TokenPage,
    UseHistory,
    only_account,
)
from tallystick.rpc.server import Handlers
from tallystick.tokens import rules
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tallystick_server.tokens import imports, operations, transitions
from tallystick_server.tokens.authority import MAX_LIVING_SECRETS, Authority, Rejected
from tallystick_server.tokens.handlers.paging import listing_problems, log_place, place_of
from tallystick_server.tokens.handlers.replies import bad_request, conflict, fitting, not_found
from tallystick_server.tokens.handlers.unit_of_work import (
    NO_SUCH_ACCOUNT,
    UnitOfWork,
    from_edge,
    from_operator,
    on_both_subjects,
)
from tallystick_server.tokens.store import rows
from tallystick_server.tokens.store.rows import StoredToken
from tallystick_server.tokens.store.writes import Transaction


class Policy(NamedTuple):
    """Bounds that an installation sets.

    Args:
        self_rotation_max_grace_s: the longest grace period of a token that rotates itself, in seconds.
        max_tokens_per_creator: how many living tokens one token may have created.
    """

    self_rotation_max_grace_s: int = 24 * 3600
    max_tokens_per_creator: int = 100_000


class TokenHandlers:
    """Args:
    unit: in which changes run.
    policy: what the installation allows.
    """

    def __init__(self, unit: UnitOfWork, policy: Policy) -> None:
        self._unit = unit
        self._store = unit.store
        self._policy = policy

    def all(self) -> Handlers:
        return on_both_subjects(
            {
                CREATE_TOKEN: self.create_token,
                EDIT_TOKEN: self.edit_token,
                ROTATE_TOKEN: self.rotate_token,
                REVOKE_TOKEN: self.revoke_token,
                REVOKE_ALL: self.revoke_all,
                GET_TOKEN: self.get_token,
                LIST_TOKENS: self.list_tokens,
                GET_LOG: self.get_log,
                GET_USE: self.get_use,
                FIND_REJECTED_REQUESTS: self.find_rejected_requests,
            }
        )

    async def create_token(self, request: CreateToken) -> CreatedToken | Failure:
        new_token = rules.in_utc(request.token)
        problems = rules.problems(new_token, datetime.now(UTC))

        async def work(change: Transaction) -> CreatedToken:
            change.authority.require(operations.CREATE, account=new_token.account)
            # The name of none is not looked up: it may be anything.
            is_lockable = new_token.account is not None and rules.is_account(new_token.account)
            has_account = not is_lockable or await change.lock_account(new_token.account or "")
            authority = await change.lock()
            authority.require(operations.CREATE, account=new_token.account)
            transitions.reject([*problems, *([] if has_account else [NO_SUCH_ACCOUNT])])
            authority.require_right_to_create()
            authority.require_grant(new_token)
            if request.first_only and (authority.holder is not None or not await change.is_first()):
                raise Rejected(conflict("there are tokens already"))
            await self._require_room(change, authority)
            record = TokenRecord(id=new_id("tok_"), digest=request.digest, token=new_token, hint=request.hint)
            return CreatedToken(
                token=await change.insert(record, limited_by=transitions.limited_holder(authority))
            )

        return await self._unit.change(CREATE_TOKEN, operations.CREATE, request, work)

    async def account_faults(self, operation: Operation[Any, Any], raw: Any) -> Sequence[FieldError]:
        """What is wrong with the account of a new token, in a request that does not fit its type for other reasons."""
        ways = {CREATE_TOKEN.subject: from_edge, CREATE_TOKEN.by_operator.subject: from_operator}
        way = ways.get(operation.subject)
        if way is None:
            return ()
        try:
            request = msgspec.convert(raw, _AccountOfToken).request
        except msgspec.ValidationError:
            return ()
        reply = await way(self.create_token)(request)
        faults = reply.errors if isinstance(reply, Failure) else ()
        return [
            FieldError(field="token.account", message=fault.message)
            for fault in faults
            if fault.field == "account"
        ]

    async def edit_token(self, request: EditToken) -> EditedToken | Failure:
        names = {
            name for name, value in msgspec.structs.asdict(request.changes).items() if value is not UNSET
        }
        audited_rule = operations.EDIT
        required_rules = [audited_rule] if names != {"disabled"} else []
        if "disabled" in names:
            audited_rule = operations.DISABLE if request.changes.disabled else operations.ENABLE
            required_rules.append(audited_rule)

        async def work(change: Transaction) -> EditedToken:
            unlocked = await transitions.find_target(change, *required_rules, id=request.id)
            authority = await change.lock(unlocked.chain)
            chain, target = await transitions.read_locked(change, unlocked)
            for rule in required_rules:
                authority.require(
                    rule, account=transitions.account_of(rule, target), of_itself=authority.is_holder(target)
                )
            transitions.require_existing(target)
            transitions.require_revision(target, request.revisions)
            if names != {"disabled"}:
                authority.require_not_replaced([target])
                await transitions.edit(change, authority, target, request.changes)
            covered: Sequence[str] | None = None
            if audited_rule is operations.DISABLE:
                covered = await transitions.disable(change, authority, chain, target)
            elif audited_rule is operations.ENABLE:
                covered = await transitions.enable(change, authority, chain, target)
            edited = await change.find(id=request.id)
            if edited is None:
                raise RuntimeError("a token that is locked is gone")
            return EditedToken(
                **msgspec.structs.asdict(edited.token), covered=UNSET if covered is None else tuple(covered)
            )

        return await self._unit.change(EDIT_TOKEN, audited_rule, request, work)

    async def rotate_token(self, request: RotateToken) -> CreatedToken | Failure:
        if not 0 <= request.grace <= rules.MAX_GRACE_S:
            return bad_request(FieldError(field="grace", message=f"0 to {rules.MAX_GRACE_S} seconds"))

        async def work(change: Transaction) -> CreatedToken:
            unlocked = await transitions.find_target(change, operations.ROTATE, id=request.id)
            authority = await change.lock(unlocked.chain)
            chain, target = await transitions.read_locked(change, unlocked)
            of_itself = authority.is_holder(target)
            authority.require(operations.ROTATE, of_itself=of_itself)
            transitions.require_existing(target)
            transitions.require_revision(target, request.revisions)
            if target.token.rotated_to is not None:
                raise Rejected(conflict("this token was rotated already"))
            if target.is_expired:
                raise Rejected(conflict("this token has expired"))
            authority.require_not_replaced([target])
            # Who rotates a token holds its successor's secret.
            new_token = rows.as_new_token(target.token)
            authority.require_grant(new_token)
            if of_itself:
                self._require_modest_rotation(chain, request.grace)
            record = TokenRecord(
                id=new_id("tok_"),
                digest=request.digest,
                token=new_token,
                hint=request.hint,
                disabled=target.token.disabled,
            )
            limited_by = transitions.limited_holder(authority) or target
            token = await change.rotate(target, record, request.grace, family=limited_by.family)
            return CreatedToken(token=token)

        return await self._unit.change(ROTATE_TOKEN, operations.ROTATE, request, work)

    async def revoke_token(self, request: RevokeToken) -> Revoked | Failure:
        if (request.id is None) == (request.digest is None):
            return bad_request(FieldError(field="id", message="either an id or a digest"))
        rule = operations.REVOKE_DESCENDANTS if request.descendants else operations.REVOKE

        async def work(change: Transaction) -> Revoked:
            key = request.digest if request.or_key else None
            unlocked = await transitions.find_target(
                change, rule, id=request.id, digest=request.digest, key=key
            )
            if request.descendants:
                await change.lock_descendants(unlocked.chain)
            else:
                await change.lock(unlocked.chain)
            authority = change.authority
            chain, target = await transitions.read_locked(change, unlocked)
            of_itself = authority.is_holder(target)
            authority.require(rule, account=target.token.account, of_itself=of_itself)
            transitions.require_revision(target, request.revisions)
            covered = transitions.coverage(chain, target, of_itself=of_itself, only=request.only)
            descendants = await transitions.descendants(change, covered) if request.descendants else []
            for descendant in descendants:
                authority.require(
                    rule, account=descendant.token.account, of_itself=authority.is_holder(descendant)
                )
            # A token in its grace period may still revoke itself, with what that covers.
            revokes_itself = of_itself and request.only is None
            authority.require_not_replaced([*([] if revokes_itself else covered), *descendants])
            return await transitions.revoke(change, authority, chain, covered, descendants, request=request)

        return await self._unit.change(REVOKE_TOKEN, rule, request, work)

    async def revoke_all(self, request: RevokeAll) -> AllRevoked | Failure:
        if not rules.is_account(request.account):
            return not_found()

        async def work(change: Transaction) -> AllRevoked:
            change.authority.require(operations.REVOKE_ALL, account=request.account)
            tokens, living = await transitions.revoke_account(change, operations.REVOKE_ALL, request.account)
            return AllRevoked(account=request.account, tokens=tokens, living_descendants=living)

        return await self._unit.change(REVOKE_ALL, operations.REVOKE_ALL, request, work)

    async def get_token(self, request: GetToken) -> Token | Failure:
        async def work(authority: Authority) -> Token | Failure:
            stored = await self._readable(authority, request.id, request.key)
            if stored is None or (stored.token.revoked is not None and not request.revoked):
                return not_found()
            return stored.token

        return await self._unit.read(request.actor, work)

    async def list_tokens(self, request: ListTokens) -> TokenPage | Failure:
        if problems := listing_problems(request):
            return bad_request(*problems)

        async def work(authority: Authority) -> TokenPage | Failure:
            authority.require(operations.LIST, account=request.account)
            total, page, pages, tokens, following = await self._store.list(request, place_of(request))
            reply = TokenPage(total=total, page=page, pages=pages, tokens=tuple(tokens), next=following)
            return fitting(reply, "pageSize", tokens)

        return await self._unit.read(request.actor, work)

    async def get_log(self, request: GetLog) -> TokenLog | Failure:
        async def work(authority: Authority) -> TokenLog | Failure:
            stored = await self._readable(authority, request.id, request.key)
            place = log_place(request.after)
            return (await self._store.log(stored.token.id, place) if stored else None) or not_found()

        return await self._unit.read(request.actor, work)

    async def get_use(self, request: GetUse) -> UseHistory | Failure:
        async def work(authority: Authority) -> UseHistory:
            authority.require(operations.SEARCH)
            return UseHistory(uses=await self._store.use(request.ids, request.hours))

        return await self._unit.read(request.actor, work)

    async def find_rejected_requests(self, request: FindRejectedRequests) -> RejectedRequests | Failure:
        if not 0 < len(request.request_id) <= rules.MAX_REQUEST_ID or "\0" in request.request_id:
            return bad_request(
                FieldError(field="requestId", message=f"1 to {rules.MAX_REQUEST_ID} characters")
            )

        async def work(authority: Authority) -> RejectedRequests:
            authority.require(operations.SEARCH)
            return RejectedRequests(
                refusals=tuple(await self._store.find_rejected_requests(request.request_id))
            )

        return await self._unit.read(request.actor, work)

    async def _readable(
        self,
        authority: Authority,
        id: str | None,  # noqa: A002  # the field's name
        key: str | None,
    ) -> StoredToken | None:
        """A token by its id or key, revoked or not.

        Raises:
            Rejected: it may not be shown.
        """
        stored = None
        if id is not None and rules.is_token_id(id):
            stored = await self._store.find(id)
        elif id is None and key is not None:
            stored = await self._store.find_by_key(key)
        authority.require(
            operations.SHOW,
            account=stored.token.account if stored else None,
            of_itself=authority.is_holder(stored),
        )
        return stored

    async def _require_room(self, change: Transaction, authority: Authority) -> None:
        """Raises:
        Rejected: the token has created as many living ones as it may.
        """
        max_tokens = self._policy.max_tokens_per_creator
        if (
            authority.holder is not None
            and await change.count_created(authority.holder.chain, max_tokens) >= max_tokens
        ):
            raise Rejected(
                conflict(f"this token has created {max_tokens} living tokens: revoke some of them first")
            )

    def _require_modest_rotation(self, chain: Sequence[StoredToken], grace_s: int) -> None:
        """Bounds what a token that rotates itself leaves behind.

        Args:
            chain: its chain before the rotation.
            grace_s: how long its secret stays valid, in seconds.

        Raises:
            Rejected: it would leave more.
        """
        max_grace_s = self._policy.self_rotation_max_grace_s
        if grace_s > max_grace_s:
            raise Rejected(
                bad_request(
                    FieldError(
                        field="grace", message=f"0 to {max_grace_s} seconds for a token that rotates itself"
                    )
                )
            )
        older = sum(member.token.revoked is None and not member.is_expired for member in chain) - 1
        if older + (1 if grace_s else 0) + 1 > MAX_LIVING_SECRETS:
            raise Rejected(
                conflict(
                    f"{MAX_LIVING_SECRETS} secrets of this token are valid: wait for the end of a grace period"
                )
            )


class _AccountOfToken(msgspec.Struct):
    """A `CreateToken` of which everything else may be wrong."""

    actor: Actor
    token: imports.NamedAccount

    @property
    def request(self) -> CreateToken:
        return only_account(self.token.account, self.actor)

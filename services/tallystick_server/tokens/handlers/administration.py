"""What the tokens service does for clients and operators who manage tokens and accounts.

Every operation runs through `_change` or `_read`, which find out who acts; `tokens.authority` judges by the
table in `tallystick_server.tokens.operations`. What an edge says about the actor is a credential to look up, never a right.
"""

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET

from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    GET_ACCOUNT,
    GET_ACCOUNT_LOG,
    LIST_ACCOUNTS,
    AccountDeleted,
    AccountLog,
    AccountPage,
    AddAccount,
    AddedAccount,
    DeleteAccount,
    GetAccount,
    GetAccountLog,
    ListAccounts,
)
from tallystick.contracts.imports import (
    EXPORT_TOKEN,
    IMPORT_TOKENS,
    MAX_IMPORT,
    Exported,
    ExportToken,
    Imported,
    ImportTokens,
)
from tallystick.contracts.messages import MAX_PAGE, MAX_PAGE_SIZE, FieldError
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.records import Account, NewToken, Token
from tallystick.contracts.registry import ADMINISTRATIVE
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    FIND_REFUSALS,
    GET_LOG,
    GET_TOKEN,
    GET_USE,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    AllRevoked,
    CreateToken,
    EditedToken,
    EditToken,
    FindRefusals,
    FoundRefusals,
    GetLog,
    GetToken,
    GetUse,
    ListTokens,
    Made,
    RevokeAll,
    Revoked,
    RevokeToken,
    RotateToken,
    TokenLog,
    TokenPage,
    UseHistory,
    only_account,
)
from tallystick.metrics.recorder import Measures
from tallystick.rpc.server import Handler, Handlers
from tallystick.tokens import rules
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tallystick_server.runtime import postgres
from tallystick_server.tokens import imports, operations, transitions
from tallystick_server.tokens.authority import MAX_LIVING_SECRETS, Authority, Rejected
from tallystick_server.tokens.handlers.replies import bad_request, conflict, fitting, not_found
from tallystick_server.tokens.leases import Leases
from tallystick_server.tokens.operations import Rule
from tallystick_server.tokens.store import cursors, rows
from tallystick_server.tokens.store.cursors import LogPlace, NotACursor, Place
from tallystick_server.tokens.store.queries import FIRST, Rejection, Store
from tallystick_server.tokens.store.rows import StoredToken
from tallystick_server.tokens.store.writes import AlreadyExists, KeyReused, NoSuchAccount, Transaction

log = logging.getLogger(__name__)

AUDITED_CODES = frozenset(
    {
        "insufficient_scope",
        "account_mismatch",
        "address_not_allowed",
        "referrer_not_allowed",
        "exceeds_authority",
    }
)
"""Why a change is rejected that its actor was not authorized to make."""

R = TypeVar("R", bound=msgspec.Struct)

NO_SUCH_ACCOUNT = FieldError(field="account", message="no such account")

_KEY = re.compile(rf"[\x21-\x7e]{{1,{rules.MAX_IDEMPOTENCY_KEY}}}", re.ASCII)


class Policy(NamedTuple):
    """Bounds that an installation sets.

    Args:
        self_rotation_max_grace_s: the longest grace period of a token that rotates itself, in seconds.
        max_tokens_per_creator: how many living tokens one token may have created.
    """

    self_rotation_max_grace_s: int = 24 * 3600
    max_tokens_per_creator: int = 100_000


class Administration:
    """Args:
    store: where tokens are.
    leases: who has to be notified when they change.
    announced: called after a change was committed, so that its event is sent at once.
    policy: what the installation allows.
    measures: where rejected attempts are counted that the audit does not take.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        announced: Callable[[], None],
        policy: Policy,
        measures: Measures,
    ) -> None:
        self._store = store
        self._leases = leases
        self._announced = announced
        self._policy = policy
        self._measures = measures

    def all(self) -> Handlers:
        """Every operation on the edges' subject, where the actor is a credential, and on the operator's."""
        handlers: Mapping[Operation[Any, Any], Handler] = {
            CREATE_TOKEN: self.create_token,
            EDIT_TOKEN: self.edit_token,
            ROTATE_TOKEN: self.rotate_token,
            REVOKE_TOKEN: self.revoke_token,
            REVOKE_ALL: self.revoke_all,
            GET_TOKEN: self.get_token,
            LIST_TOKENS: self.list_tokens,
            GET_LOG: self.get_log,
            GET_USE: self.get_use,
            FIND_REFUSALS: self.find_refusals,
            ADD_ACCOUNT: self.add_account,
            GET_ACCOUNT: self.get_account,
            LIST_ACCOUNTS: self.list_accounts,
            GET_ACCOUNT_LOG: self.get_account_log,
            DELETE_ACCOUNT: self.delete_account,
        }
        return {
            **{operation: from_edge(handlers[operation]) for operation in ADMINISTRATIVE},
            **{operation.by_operator: from_operator(handlers[operation]) for operation in ADMINISTRATIVE},
            IMPORT_TOKENS: from_operator(self.import_tokens),
            EXPORT_TOKEN: from_operator(self.export_token),
        }

    # Tokens

    async def create_token(self, request: CreateToken) -> Made | Failure:
        wanted = rules.in_utc(request.token)
        problems = rules.problems(wanted, datetime.now(UTC))

        async def work(change: Transaction) -> Made:
            change.authority.require(operations.CREATE, account=wanted.account)
            # The name of none is not looked up: it may be anything.
            is_lockable = wanted.account is not None and rules.is_account(wanted.account)
            has_account = not is_lockable or await change.lock_account(wanted.account or "")
            authority = await change.lock()
            authority.require(operations.CREATE, account=wanted.account)
            transitions.reject([*problems, *([] if has_account else [NO_SUCH_ACCOUNT])])
            authority.require_right_to_create()
            authority.require_grant(wanted)
            if request.first_only and (authority.holder is not None or not await change.is_first()):
                raise Rejected(conflict("there are tokens already"))
            await self._require_room(change, authority)
            record = TokenRecord(id=new_id("tok_"), digest=request.digest, token=wanted, hint=request.hint)
            return Made(token=await change.insert(record, limited_by=transitions.limited_holder(authority)))

        return await self._change(CREATE_TOKEN, operations.CREATE, request, work)

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
            FieldError(field="token.account", message=each.message)
            for each in faults
            if each.field == "account"
        ]

    async def edit_token(self, request: EditToken) -> EditedToken | Failure:
        names = {
            name for name, value in msgspec.structs.asdict(request.changes).items() if value is not UNSET
        }
        rule = operations.EDIT
        required = [rule] if names != {"disabled"} else []
        if "disabled" in names:
            rule = operations.DISABLE if request.changes.disabled else operations.ENABLE
            required.append(rule)

        async def work(change: Transaction) -> EditedToken:
            found = await transitions.find_target(change, *required, id=request.id)
            authority = await change.lock(found.chain)
            chain, target = await transitions.locked(change, found)
            for each in required:
                authority.require(
                    each, account=transitions.account_of(each, target), of_itself=authority.is_holder(target)
                )
            transitions.require_existing(target)
            transitions.require_revision(target, request.revisions)
            if names != {"disabled"}:
                authority.require_not_replaced([target])
                await transitions.edit(change, authority, target, request.changes)
            covered: Sequence[str] | None = None
            if rule is operations.DISABLE:
                covered = await transitions.disable(change, authority, chain, target)
            elif rule is operations.ENABLE:
                covered = await transitions.enable(change, authority, chain, target)
            edited = await change.find(id=request.id)
            if edited is None:
                raise RuntimeError("a token that is locked is gone")
            return EditedToken(
                **msgspec.structs.asdict(edited.token), covered=UNSET if covered is None else tuple(covered)
            )

        return await self._change(EDIT_TOKEN, rule, request, work)

    async def rotate_token(self, request: RotateToken) -> Made | Failure:
        if not 0 <= request.grace <= rules.MAX_GRACE_S:
            return bad_request(FieldError(field="grace", message=f"0 to {rules.MAX_GRACE_S} seconds"))

        async def work(change: Transaction) -> Made:
            found = await transitions.find_target(change, operations.ROTATE, id=request.id)
            authority = await change.lock(found.chain)
            chain, target = await transitions.locked(change, found)
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
            wanted = rows.wanted(target.token)
            authority.require_grant(wanted)
            if of_itself:
                self._require_modest_rotation(chain, request.grace)
            record = TokenRecord(
                id=new_id("tok_"),
                digest=request.digest,
                token=wanted,
                hint=request.hint,
                disabled=target.token.disabled,
            )
            limited_by = transitions.limited_holder(authority) or target
            token = await change.rotate(target, record, request.grace, family=limited_by.family)
            return Made(token=token)

        return await self._change(ROTATE_TOKEN, operations.ROTATE, request, work)

    async def revoke_token(self, request: RevokeToken) -> Revoked | Failure:
        if (request.id is None) == (request.digest is None):
            return bad_request(FieldError(field="id", message="either an id or a digest"))
        rule = operations.REVOKE_DESCENDANTS if request.descendants else operations.REVOKE

        async def work(change: Transaction) -> Revoked:
            key = request.digest if request.or_key else None
            found = await transitions.find_target(change, rule, id=request.id, digest=request.digest, key=key)
            if request.descendants:
                await change.lock_descendants(found.chain)
            else:
                await change.lock(found.chain)
            authority = change.authority
            chain, target = await transitions.locked(change, found)
            of_itself = authority.is_holder(target)
            authority.require(rule, account=target.token.account, of_itself=of_itself)
            transitions.require_revision(target, request.revisions)
            covered = transitions.coverage(chain, target, of_itself=of_itself, only=request.only)
            descendants = await transitions.descendants(change, covered) if request.descendants else []
            for each in descendants:
                authority.require(rule, account=each.token.account, of_itself=authority.is_holder(each))
            # A token in its grace period may still revoke itself, with what that covers.
            revokes_itself = of_itself and request.only is None
            authority.require_not_replaced([*([] if revokes_itself else covered), *descendants])
            return await transitions.revoke(change, authority, chain, covered, descendants, request=request)

        return await self._change(REVOKE_TOKEN, rule, request, work)

    async def revoke_all(self, request: RevokeAll) -> AllRevoked | Failure:
        if not rules.is_account(request.account):
            return not_found()

        async def work(change: Transaction) -> AllRevoked:
            change.authority.require(operations.REVOKE_ALL, account=request.account)
            tokens, living = await transitions.revoke_account(change, operations.REVOKE_ALL, request.account)
            return AllRevoked(account=request.account, tokens=tokens, living_descendants=living)

        return await self._change(REVOKE_ALL, operations.REVOKE_ALL, request, work)

    async def get_token(self, request: GetToken) -> Token | Failure:
        async def work(authority: Authority) -> Token | Failure:
            found = await self._readable(authority, request.id, request.key)
            if found is None or (found.token.revoked is not None and not request.revoked):
                return not_found()
            return found.token

        return await self._read(request.actor, work)

    async def get_log(self, request: GetLog) -> TokenLog | Failure:
        async def work(authority: Authority) -> TokenLog | Failure:
            found = await self._readable(authority, request.id, request.key)
            place = _log_place(request.after)
            return (await self._store.log(found.token.id, place) if found else None) or not_found()

        return await self._read(request.actor, work)

    async def get_use(self, request: GetUse) -> UseHistory | Failure:
        async def work(authority: Authority) -> UseHistory:
            authority.require(operations.SEARCH)
            return UseHistory(uses=await self._store.use(request.ids, request.hours))

        return await self._read(request.actor, work)

    async def find_refusals(self, request: FindRefusals) -> FoundRefusals | Failure:
        if not 0 < len(request.request_id) <= rules.MAX_REQUEST_ID or "\0" in request.request_id:
            return bad_request(
                FieldError(field="requestId", message=f"1 to {rules.MAX_REQUEST_ID} characters")
            )

        async def work(authority: Authority) -> FoundRefusals:
            authority.require(operations.SEARCH)
            return FoundRefusals(refusals=tuple(await self._store.refusals_to(request.request_id)))

        return await self._read(request.actor, work)

    async def list_tokens(self, request: ListTokens) -> TokenPage | Failure:
        if problems := _listing_problems(request):
            return bad_request(*problems)

        async def work(authority: Authority) -> TokenPage | Failure:
            authority.require(operations.LIST, account=request.account)
            total, page, pages, tokens, following = await self._store.list(request, _place(request))
            reply = TokenPage(total=total, page=page, pages=pages, tokens=tuple(tokens), next=following)
            return fitting(reply, "pageSize", tokens)

        return await self._read(request.actor, work)

    async def import_tokens(self, request: ImportTokens) -> Imported | Failure:
        """All records or none, unless rejected ones are to be skipped; what exists already stays as it is."""
        if len(request.records) > MAX_IMPORT:
            return bad_request(FieldError(field="records", message=f"over {MAX_IMPORT}"))
        try:
            async with self._store.change(request.actor) as change:
                reply, problems = await imports.import_records(change, request, datetime.now(UTC))
                if not request.skip_rejected:
                    transitions.reject(problems)
                _undo_dry_run(dry_run=request.dry_run, reply=reply)
        except Rejected as rejected:
            return rejected.failure
        except _DryRun as dry_run:
            return dry_run.reply  # type: ignore[return-value]  # of this import
        await self._notify(change)
        return reply

    async def export_token(self, request: ExportToken) -> Exported | Failure:
        if not rules.is_token_id(request.id):
            return not_found()
        record = await self._store.export(request.id)
        return Exported(record=record) if record else not_found()

    # Accounts

    async def add_account(self, request: AddAccount) -> AddedAccount | Failure:
        if not rules.is_account(request.account):
            return bad_request(FieldError(field="account", message=rules.ACCOUNT_FAULT))
        if len(request.name) > rules.MAX_DESCRIPTION or "\0" in request.name:
            return bad_request(
                FieldError(field="name", message=f"over {rules.MAX_DESCRIPTION} characters, or a NUL")
            )

        async def work(change: Transaction) -> AddedAccount:
            change.authority.require(operations.ADD_ACCOUNT, account=request.account)
            account, new = await change.add_account(request.account, request.name)
            authority = await change.lock()
            authority.require(operations.ADD_ACCOUNT, account=request.account)
            return AddedAccount(**msgspec.structs.asdict(account), state="new" if new else "existing")

        return await self._change(ADD_ACCOUNT, operations.ADD_ACCOUNT, request, work)

    async def get_account(self, request: GetAccount) -> Account | Failure:
        async def work(authority: Authority) -> Account | Failure:
            authority.require(operations.SHOW_ACCOUNT, account=request.account)
            if not rules.is_account(request.account):
                return not_found()
            return await self._store.account(request.account) or not_found()

        return await self._read(request.actor, work)

    async def list_accounts(self, request: ListAccounts) -> AccountPage | Failure:
        if problems := _listing_problems(request):
            return bad_request(*problems)

        async def work(authority: Authority) -> AccountPage | Failure:
            authority.require(operations.LIST_ACCOUNTS)
            total, page, pages, accounts, following = await self._store.accounts(request, _place(request))
            reply = AccountPage(total=total, page=page, pages=pages, accounts=tuple(accounts), next=following)
            return fitting(reply, "pageSize", accounts)

        return await self._read(request.actor, work)

    async def get_account_log(self, request: GetAccountLog) -> AccountLog | Failure:
        async def work(authority: Authority) -> AccountLog | Failure:
            authority.require(operations.SHOW_ACCOUNT, account=request.account)
            if not rules.is_account(request.account):
                return not_found()
            place = _log_place(request.after)
            return await self._store.account_log(request.account, place) or not_found()

        return await self._read(request.actor, work)

    async def delete_account(self, request: DeleteAccount) -> AccountDeleted | Failure:
        if not rules.is_account(request.account):
            return not_found()

        async def work(change: Transaction) -> AccountDeleted:
            change.authority.require(operations.DELETE_ACCOUNT, account=request.account)
            tokens, living = await transitions.revoke_account(
                change, operations.DELETE_ACCOUNT, request.account
            )
            await change.delete_account(request.account, tokens)
            return AccountDeleted(
                account=request.account, deleted=True, tokens=tokens, living_descendants=living
            )

        return await self._change(DELETE_ACCOUNT, operations.DELETE_ACCOUNT, request, work)

    # What all operations have in common

    async def _change(
        self,
        operation: Operation[Any, R],
        rule: Rule,
        request: Any,
        work: Callable[[Transaction], Awaitable[R]],
    ) -> R | Failure:
        """Runs a change in a transaction, once for each Idempotency-Key; a rejection undoes all of it and is audited."""
        change: Transaction | None = None
        try:
            async with self._store.change(request.actor) as change:
                reply = await _once(change, operation, rule, request, work)
                _undo_dry_run(dry_run=getattr(request, "dry_run", False), reply=reply)
        except Rejected as rejected:
            holder = change.authority.holder if change else None
            if holder is not None and rejected.failure.code in AUDITED_CODES:
                await self._audit(_rejection(holder, rule, request, rejected.failure.code))
            return rejected.failure
        except _DryRun as dry_run:
            return dry_run.reply  # type: ignore[return-value]  # of this operation
        except KeyReused:
            return conflict("this Idempotency-Key came with another request before")
        except AlreadyExists:
            return conflict("this token exists already")
        except NoSuchAccount:
            return bad_request(NO_SUCH_ACCOUNT)
        await self._notify(change)
        return reply

    async def _audit(self, rejection: Rejection) -> None:
        """Stores a rejected attempt in the audit, or counts it. Whether that works makes no difference to the reply."""
        try:
            is_stored = await self._store.audit_rejection(rejection)
        except (*postgres.UNAVAILABLE, *postgres.MALFORMED) as error:
            log.warning("a rejected attempt was not audited: %s", type(error).__name__)
            is_stored = False
        if not is_stored:
            self._measures.count("tallystick_rejections_not_audited_total")

    async def _read(self, actor: Actor, work: Callable[[Authority], Awaitable[R | Failure]]) -> R | Failure:
        """Answers a question of somebody who may ask it."""
        try:
            return await work(await self._store.authority(actor))
        except Rejected as rejected:
            return rejected.failure

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
        found = None
        if id is not None and rules.is_token_id(id):
            found = await self._store.find(id)
        elif id is None and key is not None:
            found = await self._store.find_by_key(key)
        authority.require(
            operations.SHOW,
            account=found.token.account if found else None,
            of_itself=authority.is_holder(found),
        )
        return found

    async def _notify(self, committed: Transaction) -> None:
        """Notifies the edges, and has the events sent."""
        await self._leases.announce(committed.changed)
        self._announced()

    async def _require_room(self, change: Transaction, authority: Authority) -> None:
        """Raises:
        Rejected: the token has created as many living ones as it may.
        """
        most = self._policy.max_tokens_per_creator
        if authority.holder is not None and await change.count_created(authority.holder.chain, most) >= most:
            raise Rejected(
                conflict(f"this token has created {most} living tokens: revoke some of them first")
            )

    def _require_modest_rotation(self, chain: Sequence[StoredToken], grace_s: int) -> None:
        """Bounds what a token that rotates itself leaves behind.

        Args:
            chain: its chain before the rotation.
            grace_s: how long its secret stays valid, in seconds.

        Raises:
            Rejected: it would leave more.
        """
        longest = self._policy.self_rotation_max_grace_s
        if grace_s > longest:
            raise Rejected(
                bad_request(
                    FieldError(
                        field="grace", message=f"0 to {longest} seconds for a token that rotates itself"
                    )
                )
            )
        older = sum(each.token.revoked is None and not each.is_expired for each in chain) - 1
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


def from_edge(handler: Handler) -> Handler:
    """The handler for what an edge asks on behalf of a client, which has to have shown a credential."""

    async def handle(request: Any) -> msgspec.Struct:
        actor: Actor = request.actor
        if (actor.token is None) == (actor.session is None) or actor.name is not None:
            return bad_request(FieldError(field="actor", message="either a token or a session"))
        return await handler(request)

    return handle


def from_operator(handler: Handler) -> Handler:
    """The handler for what an operator asks, whom NATS has authenticated."""

    async def handle(request: Any) -> msgspec.Struct:
        actor: Actor = request.actor
        if not actor.name or "\0" in actor.name or actor.token is not None or actor.session is not None:
            return bad_request(FieldError(field="actor", message="the operator's name and no credential"))
        return await handler(request)

    return handle


class _DryRun(Exception):
    """Leaves a transaction so that nothing of it is kept, with what it would have answered."""

    def __init__(self, reply: msgspec.Struct) -> None:
        super().__init__()
        self.reply = reply


def _undo_dry_run(*, dry_run: bool, reply: msgspec.Struct) -> None:
    """Raises:
    _DryRun: nothing is to be written.
    """
    if dry_run:
        raise _DryRun(reply)


def _rejection(holder: StoredToken, rule: Rule, request: Any, code: str) -> Rejection:
    """What the audit keeps of a rejected attempt."""
    token_id: str | None = getattr(request, "id", None)
    new: NewToken | None = getattr(request, "token", None)
    account: str | None = new.account if new is not None else getattr(request, "account", None)
    return Rejection(
        holder=holder,
        actor=request.actor,
        action=rule.rejected_action,
        token=token_id if token_id is not None and rules.is_token_id(token_id) else None,
        # Of the others it is the new secret's.
        digest=request.digest if isinstance(request, RevokeToken) else None,
        details={
            "code": code,
            "operation": rule.name,
            **({} if account is None else {"account": account}),
        },
    )


async def _once(
    change: Transaction,
    operation: Operation[Any, R],
    rule: Rule,
    request: Any,
    work: Callable[[Transaction], Awaitable[R]],
) -> R:
    """What the work answers, or answered to the same Idempotency-Key before."""
    key: str | None = request.idempotency_key
    if key is None:
        return await work(change)
    if not _KEY.fullmatch(key):
        raise Rejected(
            bad_request(
                FieldError(
                    field="Idempotency-Key",
                    message=f"1 to {rules.MAX_IDEMPOTENCY_KEY} visible ASCII characters",
                )
            )
        )
    before = await change.replay(operation.name, key, _fingerprint(request))
    if before is None:
        reply = await work(change)
        await change.remember(operation.name, key, reply)
        return reply
    # The wait for the first request may have been long: who acts is judged again.
    authority = await change.lock()
    if authority.holder is not None:
        token, digest = authority.holder.token, getattr(request, "digest", None)
        of_itself = getattr(request, "id", None) == token.id or digest == request.actor.token
        authority.require(rule, account=token.account, of_itself=of_itself)
    reply = msgspec.json.decode(before, type=operation.reply)
    if isinstance(reply, Made):
        return msgspec.structs.replace(reply, replayed=True)
    return reply


def _fingerprint(request: Any) -> bytes:
    """What makes two requests the same: everything but the fresh secret's traces and who asks over which way."""
    fields: Mapping[str, Any] = msgspec.structs.asdict(request)
    left_out = {"digest", "hint", "actor", "idempotency_key"}
    # What is left out of a request is left out here, so that a new field does not make an older request another.
    asked = {name: value for name, value in fields.items() if name not in left_out and value is not None}
    if isinstance(request, RevokeToken):
        asked["digest"] = request.digest  # here it names the token
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).digest()


def _place(request: ListTokens | ListAccounts) -> Place | None:
    """Where the page begins that is asked for by a cursor.

    Raises:
        Rejected: the cursor is not valid.
    """
    try:
        return cursors.place(request)
    except NotACursor as error:
        raise Rejected(bad_request(FieldError(field="after", message=str(error)))) from None


def _log_place(after: str | None) -> LogPlace:
    """Before which entries the page of a log begins.

    Raises:
        Rejected: the cursor is not valid.
    """
    try:
        return FIRST if after is None else cursors.decode(after, LogPlace)
    except NotACursor as error:
        raise Rejected(bad_request(FieldError(field="after", message=str(error)))) from None


def _listing_problems(request: ListTokens | ListAccounts) -> list[FieldError]:
    problems = _paging_problems(request)
    for field in ("query", "account", "scope", "rotated_to", "created_by"):
        text: str | None = getattr(request, field, None)
        if text is not None and (len(text) > rules.MAX_DESCRIPTION or "\0" in text):
            name = next(each for each in msgspec.structs.fields(request) if each.name == field).encode_name
            problems.append(
                FieldError(field=name, message=f"over {rules.MAX_DESCRIPTION} characters, or a NUL")
            )
    return problems


def _paging_problems(request: Any) -> list[FieldError]:
    problems = []
    if not 0 <= request.page <= MAX_PAGE:
        problems.append(FieldError(field="page", message=f"0 to {MAX_PAGE}"))
    if request.page and request.after is not None:
        problems.append(FieldError(field="page", message="not with after, which says where the page begins"))
    if not 1 <= request.page_size <= MAX_PAGE_SIZE:
        problems.append(FieldError(field="pageSize", message=f"1 to {MAX_PAGE_SIZE}"))
    return problems

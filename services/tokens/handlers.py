"""What the tokens service answers to each request."""

import asyncio
import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from services.tokens import imports, rows, rules
from services.tokens.attenuation import exceeds
from services.tokens.changes import AlreadyExists, KeyReused, NoSuchAccount, Transaction
from services.tokens.leases import Leases
from services.tokens.limits import Limits
from services.tokens.store import Store
from shared import batches
from shared import contracts as c
from shared.contracts import Failure, FieldError, Operation
from shared.ids import new_id
from shared.judgement import Demand, judge
from shared.rpc import Handlers
from shared.token_record import TokenRecord

MAX_GRACE_S = 30 * 24 * 3600

R = TypeVar("R", bound=msgspec.Struct)

_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


class TokensHandlers:
    """Args:
    store: where tokens are.
    leases: who has to be told when they change.
    limits: what is left of their rate limits.
    announced: called after a change was committed, so that its event is sent at once.
    """

    def __init__(self, store: Store, leases: Leases, limits: Limits, announced: Callable[[], None]) -> None:
        self._store = store
        self._leases = leases
        self._limits = limits
        self._announced = announced

    def all(self) -> Handlers:
        return {
            c.VERIFY: self.verify,
            c.VERIFY_MANY: self.verify_many,
            c.TAKE_QUOTA: self.take_quota,
            c.RETURN_QUOTA: self.return_quota,
            c.REPORT_USE: self.report_use,
            c.CREATE_TOKEN: self.create_token,
            c.UPDATE_TOKEN: self.update_token,
            c.ROTATE_TOKEN: self.rotate_token,
            c.REVOKE_TOKEN: self.revoke_token,
            c.REVOKE_ALL: self.revoke_all,
            c.GET_TOKEN: self.get_token,
            c.GET_LOG: self.get_log,
            c.GET_USE: self.get_use,
            c.FIND_REFUSALS: self.find_refusals,
            c.LIST_TOKENS: self.list_tokens,
            c.IMPORT_TOKENS: self.import_tokens,
            c.EXPORT_TOKEN: self.export_token,
            c.ADD_ACCOUNT: self.add_account,
            c.GET_ACCOUNT: self.get_account,
            c.LIST_ACCOUNTS: self.list_accounts,
            c.DELETE_ACCOUNT: self.delete_account,
            c.TOKENS_STATS: self.stats,
            c.SETTLE: self.settle,
            c.RENEW_LEASE: self._leases.renew,
            c.RELEASE_LEASE: self.release_lease,
            c.GET_CHANGES: self._leases.changes,
        }

    # Checking

    async def verify(self, request: c.VerifyToken) -> c.Verdict:
        verdict = await self._store.verdict(request.digest)
        asked = (request.scope, request.account, request.address, request.referrer)
        if verdict.token is None or asked == (None, None, None, None):
            return verdict
        demand = Demand(
            scope=request.scope,
            account=request.account,
            any_account=request.scope is None and request.account is None,
            address=request.address,
            referrer=request.referrer,
        )
        if refusal := judge(verdict.token, demand):
            return msgspec.structs.replace(verdict, code=refusal)
        if verdict.token.restrictions.rate_limit is None:
            return verdict
        quota = await self._limits.take(c.TakeQuota(id=verdict.token.id))
        if quota is None:
            return await self.verify(request)  # it was edited just now
        return msgspec.structs.replace(
            verdict, quota=quota, code="active" if quota.granted else "rate_limited"
        )

    async def verify_many(self, request: c.VerifyMany) -> c.Verdicts | Failure:
        verdicts = tuple(await asyncio.gather(*map(self.verify, request.requests)))
        return _fitting(c.Verdicts(verdicts=verdicts), "requests", verdicts)

    async def take_quota(self, request: c.TakeQuota) -> c.Quota | Failure:
        return await self._limits.take(request) or not_found()

    async def return_quota(self, request: c.ReturnQuota) -> c.ReturnedQuota:
        return await self._limits.give_back(request)

    async def report_use(self, request: c.ReportUse) -> c.Taken | Failure:
        if not all(map(rules.may_be_logged, request.refusals)):
            return bad_request(FieldError(field="refusals", message="a text is too long for a token's log"))
        await self._store.report(request.uses, request.refusals)
        return c.Taken()

    # How edges keep what they know true

    async def settle(self, request: c.Settle) -> c.Settled:
        return await self._leases.settle(request.seq)

    async def release_lease(self, request: c.ReleaseLease) -> c.Taken:
        await self._leases.release(request.edge)
        return c.Taken()

    # Managing

    async def create_token(self, request: c.CreateToken) -> c.Made | Failure:
        wanted = rules.in_utc(request.token)
        if problems := rules.problems(wanted, datetime.now(UTC)):
            return bad_request(*problems)

        async def work(change: Transaction) -> c.Made:
            if request.first_only and not await change.is_first():
                raise _Refused(Failure(code="conflict", message="there are tokens already"))
            maker = await self._within_authority(change, request.actor, wanted)
            record = TokenRecord(id=new_id("tok_"), digest=request.digest, token=wanted, hint=request.hint)
            limited_by = maker.id if maker and maker.restrictions.rate_limit else None
            return c.Made(token=await change.insert(record, limited_by=limited_by))

        return await self._carry_out(c.CREATE_TOKEN, request, work)

    async def update_token(self, request: c.UpdateToken) -> c.Token | Failure:
        async def work(change: Transaction) -> c.Token:
            token = await _existing(change, request.id)
            changes = {
                name: value
                for name, value in msgspec.structs.asdict(request.changes).items()
                if value is not UNSET
            }
            if token.rotated_to is not None and changes != {"disabled": True}:
                raise _Refused(
                    Failure(code="conflict", message="this token was rotated: change its successor")
                )
            disabled = changes.pop("disabled", token.disabled)
            wanted = rules.in_utc(msgspec.structs.replace(rows.wanted(token), **changes))
            # An expiry that is kept may have passed; only a new one has to lie ahead.
            judged = wanted if "expires" in changes else msgspec.structs.replace(wanted, expires=None)
            if problems := rules.problems(judged, datetime.now(UTC), stored=token.restrictions):
                raise _Refused(bad_request(*problems))
            # Neither what it becomes nor what it is: else whoever may give less could take more away.
            await self._within_authority(change, request.actor, rows.wanted(token))
            await self._within_authority(change, request.actor, wanted)
            return await change.update(token.id, wanted, disabled=disabled)

        return await self._carry_out(c.UPDATE_TOKEN, request, work)

    async def rotate_token(self, request: c.RotateToken) -> c.Made | Failure:
        if not 0 <= request.grace <= MAX_GRACE_S:
            return bad_request(FieldError(field="grace", message=f"0 to {MAX_GRACE_S} seconds"))

        async def work(change: Transaction) -> c.Made:
            token = await _existing(change, request.id)
            if token.rotated_to is not None:
                raise _Refused(Failure(code="conflict", message="this token was rotated already"))
            if token.expires is not None and token.expires <= datetime.now(UTC):
                raise _Refused(Failure(code="conflict", message="this token has expired"))
            wanted = rows.wanted(token)
            # Who rotates a token holds its successor's secret.
            await self._within_authority(change, request.actor, wanted)
            record = TokenRecord(
                id=new_id("tok_"),
                digest=request.digest,
                token=wanted,
                hint=request.hint,
                disabled=token.disabled,
            )
            return c.Made(token=await change.rotate(token, record, request.grace))

        return await self._carry_out(c.ROTATE_TOKEN, request, work)

    async def revoke_token(self, request: c.RevokeToken) -> c.Revoked | Failure:
        if request.id is not None and not rules.is_token_id(request.id):
            return not_found()

        async def work(change: Transaction) -> c.Revoked:
            await self._authority(change, request.actor)
            if not await change.revoke(id=request.id, digest=request.digest):
                raise _Refused(not_found())
            return c.Revoked(deleted=True)

        return await self._carry_out(c.REVOKE_TOKEN, request, work)

    async def revoke_all(self, request: c.RevokeAll) -> c.AllRevoked | Failure:
        if not rules.is_account(request.account) or await self._store.account(request.account) is None:
            return not_found()

        async def work(change: Transaction) -> c.AllRevoked:
            await self._authority(change, request.actor)
            tokens = await change.revoke_all(request.account)
            return c.AllRevoked(account=request.account, tokens=tokens)

        return await self._carry_out(c.REVOKE_ALL, request, work)

    async def get_token(self, request: c.GetToken) -> c.Token | Failure:
        if not rules.is_token_id(request.id):
            return not_found()
        return await self._store.get(request.id, revoked=request.revoked) or not_found()

    async def get_log(self, request: c.GetLog) -> c.TokenLog | Failure:
        if not rules.is_token_id(request.id):
            return not_found()
        return await self._store.log(request.id) or not_found()

    async def get_use(self, request: c.GetUse) -> c.UseHistory:
        return c.UseHistory(uses=await self._store.use(request.ids, request.hours))

    async def find_refusals(self, request: c.FindRefusals) -> c.FoundRefusals | Failure:
        if not 0 < len(request.request_id) <= rules.MAX_REQUEST_ID or "\0" in request.request_id:
            return bad_request(
                FieldError(field="requestId", message=f"1 to {rules.MAX_REQUEST_ID} characters")
            )
        return c.FoundRefusals(refusals=tuple(await self._store.refusals_to(request.request_id)))

    async def list_tokens(self, request: c.ListTokens) -> c.TokenPage | Failure:
        if problems := _listing_problems(request):
            return bad_request(*problems)
        total, tokens = await self._store.list(request)
        page = c.TokenPage(
            total=total, page=request.page, pages=math.ceil(total / request.page_size), tokens=tuple(tokens)
        )
        return _fitting(page, "pageSize", tokens)

    async def import_tokens(self, request: c.ImportTokens) -> c.Imported | Failure:
        """All records or none, unless rejected ones are to be skipped; what exists already stays as it is."""
        if len(request.records) > c.MAX_IMPORT:
            return bad_request(FieldError(field="records", message=f"over {c.MAX_IMPORT}"))
        try:
            async with self._store.change(request.actor) as change:
                reply, problems = await imports.import_records(change, request, datetime.now(UTC))
                if not request.skip_rejected:
                    _refuse(problems)
                _undo_dry_run(request, reply)
        except _Refused as refused:
            return refused.failure
        except _DryRun as dry_run:
            return dry_run.reply
        await self._tell(change)
        return reply

    async def export_token(self, request: c.ExportToken) -> c.Exported | Failure:
        if not rules.is_token_id(request.id):
            return not_found()
        record = await self._store.export(request.id)
        return c.Exported(record=record) if record else not_found()

    # Accounts

    async def add_account(self, request: c.AddAccount) -> c.AddedAccount | Failure:
        if not rules.is_account(request.account):
            return bad_request(
                FieldError(field="account", message="1 to 128 characters that a URL path may hold")
            )
        if len(request.name) > rules.MAX_DESCRIPTION or "\0" in request.name:
            return bad_request(
                FieldError(field="name", message=f"over {rules.MAX_DESCRIPTION} characters, or a NUL")
            )

        async def work(change: Transaction) -> c.AddedAccount:
            await self._authority(change, request.actor)
            account, new = await change.add_account(request.account, request.name)
            return c.AddedAccount(**msgspec.structs.asdict(account), state="new" if new else "existing")

        return await self._carry_out(c.ADD_ACCOUNT, request, work)

    async def get_account(self, request: c.GetAccount) -> c.Account | Failure:
        if not rules.is_account(request.account):
            return not_found()
        return await self._store.account(request.account) or not_found()

    async def list_accounts(self, request: c.ListAccounts) -> c.AccountPage | Failure:
        if problems := _listing_problems(request):
            return bad_request(*problems)
        total, accounts = await self._store.accounts(request)
        page = c.AccountPage(
            total=total,
            page=request.page,
            pages=math.ceil(total / request.page_size),
            accounts=tuple(accounts),
        )
        return _fitting(page, "pageSize", accounts)

    async def delete_account(self, request: c.DeleteAccount) -> c.AccountDeleted | Failure:
        if not rules.is_account(request.account):
            return not_found()

        async def work(change: Transaction) -> c.AccountDeleted:
            await self._authority(change, request.actor)
            tokens = await change.delete_account(request.account)
            if tokens is None:
                raise _Refused(not_found())
            return c.AccountDeleted(account=request.account, deleted=True, tokens=tokens)

        return await self._carry_out(c.DELETE_ACCOUNT, request, work)

    async def stats(self, _: c.AskTokensStats) -> c.TokensStats:
        return c.TokensStats(
            accounts=await self._store.count_accounts(), postgres=await self._store.version()
        )

    # What all changes have in common

    async def _carry_out(
        self,
        operation: Operation[Any, R],
        request: Any,
        work: Callable[[Transaction], Awaitable[R]],
    ) -> R | Failure:
        """Runs a change in a transaction, once for each Idempotency-Key; a refusal undoes all of it."""
        try:
            async with self._store.change(request.actor) as change:
                reply = await _once(change, operation, request, work)
        except _Refused as refused:
            return refused.failure
        except KeyReused:
            return Failure(code="conflict", message="this Idempotency-Key came with another request before")
        except AlreadyExists:
            return Failure(code="conflict", message="this token exists already")
        except NoSuchAccount:
            return bad_request(FieldError(field="account", message="no such account"))
        await self._tell(change)
        return reply

    async def _tell(self, committed: Transaction) -> None:
        """Tells the edges, and has the events sent."""
        await self._leases.announce(committed.changed)
        self._announced()

    async def _authority(self, change: Transaction, actor: c.Actor) -> c.Token | None:
        """The token that authorizes a change, if it still does; None for an operator, who may do everything."""
        if actor.token is None:
            return None
        maker = await change.maker()
        if maker is None:
            raise _Refused(Failure(code="invalid_token"))
        return maker

    async def _within_authority(
        self, change: Transaction, actor: c.Actor, wanted: c.NewToken
    ) -> c.Token | None:
        maker = await self._authority(change, actor)
        if maker is not None and (excess := exceeds(maker, wanted)):
            raise _Refused(
                Failure(
                    code="exceeds_authority",
                    message="a token cannot give what it does not have",
                    errors=tuple(excess),
                )
            )
        return maker


class _Refused(Exception):
    """Leaves a transaction so that nothing of it stays, with what is answered."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class _DryRun(Exception):
    """Leaves a transaction so that nothing of it stays, with what it would have answered."""

    def __init__(self, reply: c.Imported) -> None:
        super().__init__()
        self.reply = reply


def _undo_dry_run(request: c.ImportTokens, reply: c.Imported) -> None:
    """Raises:
    _DryRun: nothing is to be written.
    """
    if request.dry_run:
        raise _DryRun(reply)


def _refuse(problems: list[FieldError]) -> None:
    """Raises:
    _Refused: there are problems.
    """
    if problems:
        raise _Refused(bad_request(*problems))


def bad_request(*errors: FieldError) -> Failure:
    # An import may have more faults than one message holds; then the first ones are reported.
    reported = next(batches.cut(errors, batches.MAX_MESSAGE_BYTES - 1024), [])
    message = "some fields are not as they should be"
    if len(reported) < len(errors):
        message += f"; {len(errors) - len(reported)} more are left out here"
    return Failure(code="bad_request", message=message, errors=tuple(reported))


def _fitting(reply: R, field: str, items: Sequence[Any]) -> R | Failure:
    """The reply. If it is more than one NATS message holds, it would get lost: then a rejection that says how many
    items a request may ask for instead.

    Args:
        reply: what is answered.
        field: of the request, what decides how many items there are.
        items: what the reply holds.
    """
    if batches.fits(reply):
        return reply
    largest = max(len(msgspec.json.encode(item)) for item in items)
    number = max(1, (batches.MAX_MESSAGE_BYTES - 1024) // (largest + 1))
    return bad_request(FieldError(field=field, message=f"more than one answer holds: ask for {number}"))


def not_found() -> Failure:
    return Failure(code="not_found", message="there is none")


async def _once(
    change: Transaction,
    operation: Operation[Any, R],
    request: Any,
    work: Callable[[Transaction], Awaitable[R]],
) -> R:
    """What the work answers, or answered to the same Idempotency-Key before."""
    key: str | None = request.idempotency_key
    if key is None:
        return await work(change)
    if not _KEY.fullmatch(key):
        raise _Refused(
            bad_request(FieldError(field="Idempotency-Key", message="1 to 255 visible ASCII characters"))
        )
    before = await change.replay(operation.name, key, _fingerprint(request))
    if before is None:
        reply = await work(change)
        await change.remember(operation.name, key, reply)
        return reply
    reply = msgspec.json.decode(before, type=operation.reply)
    if isinstance(reply, c.Made):
        return msgspec.structs.replace(reply, replayed=True)
    return reply


async def _existing(change: Transaction, id: str) -> c.Token:  # noqa: A002  # the field's name
    token = await change.token(id) if rules.is_token_id(id) else None
    if token is None:
        raise _Refused(not_found())
    return token


def _fingerprint(request: Any) -> bytes:
    """What makes two requests the same: everything but the fresh secret's traces and who asks over which way."""
    fields: Mapping[str, Any] = msgspec.structs.asdict(request)
    asked = {name: fields[name] for name in fields.keys() - {"digest", "hint", "actor", "idempotency_key"}}
    if isinstance(request, c.RevokeToken):
        asked["digest"] = request.digest  # here it names the token
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).digest()


def _listing_problems(request: c.ListTokens | c.ListAccounts) -> list[FieldError]:
    problems = _paging_problems(request)
    for field in ("query", "account", "scope", "rotated_to"):
        text: str | None = getattr(request, field, None)
        if text is not None and (len(text) > rules.MAX_DESCRIPTION or "\0" in text):
            problems.append(
                FieldError(field=field, message=f"over {rules.MAX_DESCRIPTION} characters, or a NUL")
            )
    return problems


def _paging_problems(request: Any) -> list[FieldError]:
    problems = []
    if not 0 <= request.page <= c.MAX_PAGE:
        problems.append(FieldError(field="page", message=f"0 to {c.MAX_PAGE}"))
    if not 1 <= request.page_size <= c.MAX_PAGE_SIZE:
        problems.append(FieldError(field="pageSize", message=f"1 to {c.MAX_PAGE_SIZE}"))
    return problems

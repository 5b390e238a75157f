"""What the tokens service answers to each request."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.tokens import rules
from services.tokens.store import AlreadyExists, NoSuchAccount, Store
from shared import contracts as c
from shared.contracts import Failure, FieldError
from shared.ids import new_id
from shared.rpc import Handlers
from shared.token_record import TokenRecord

MAX_PAGE_SIZE = 1000


class TokensHandlers:
    """Args:
    store: where tokens are.
    changed: called after a change was committed, so that it is announced at once.
    """

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        self._store = store
        self._changed = changed

    def all(self) -> Handlers:
        return {
            c.VERIFY: self.verify,
            c.CREATE_TOKEN: self.create_token,
            c.GET_TOKEN: self.get_token,
            c.LIST_TOKENS: self.list_tokens,
            c.REVOKE_TOKEN: self.revoke_token,
            c.ADD_ACCOUNT: self.add_account,
            c.GET_ACCOUNT: self.get_account,
            c.LIST_ACCOUNTS: self.list_accounts,
            c.DELETE_ACCOUNT: self.delete_account,
            c.TOKENS_STATS: self.stats,
        }

    async def verify(self, request: c.VerifyToken) -> c.Verdict:
        return await self._store.verdict(request.digest)

    async def create_token(self, request: c.CreateToken) -> c.Token | Failure:
        token = msgspec.structs.replace(
            request.token,
            not_before=rules.utc(request.token.not_before),
            expires=rules.utc(request.token.expires),
        )
        if problems := rules.problems(token, datetime.now(UTC)):
            return bad_request(*problems)
        record = TokenRecord(id=new_id("tok_"), digest=request.digest, token=token, hint=request.hint)
        try:
            async with self._store.change(request.actor) as change:
                if request.first_only and not await change.is_first():
                    return Failure(code="conflict", message="there are tokens already")
                created = await change.insert(record)
        except AlreadyExists:
            return Failure(code="conflict", message="this token exists already")
        except NoSuchAccount:
            return bad_request(FieldError(field="account", message="no such account"))
        self._changed()
        return created

    async def get_token(self, request: c.GetToken) -> c.Token | Failure:
        return await self._store.get(request.id) or not_found()

    async def list_tokens(self, request: c.ListTokens) -> c.TokenPage | Failure:
        if problems := _paging_problems(request):
            return bad_request(*problems)
        total, tokens = await self._store.list(request)
        return c.TokenPage(
            total=total, page=request.page, pages=math.ceil(total / request.page_size), tokens=tuple(tokens)
        )

    async def revoke_token(self, request: c.RevokeToken) -> c.Revoked | Failure:
        started = datetime.now(UTC)
        async with self._store.change(request.actor) as change:
            if not await change.revoke(id=request.id, digest=request.digest):
                return not_found()
        self._changed()
        # Every check asks PostgreSQL, so there is no edge left to tell.
        return c.Revoked(
            deleted=True, edges=0, seconds=round((datetime.now(UTC) - started).total_seconds(), 6)
        )

    async def add_account(self, request: c.AddAccount) -> c.AddedAccount | Failure:
        if not rules.is_account(request.account):
            return bad_request(
                FieldError(field="account", message="1 to 128 characters that a URL path may hold")
            )
        if len(request.name) > rules.MAX_DESCRIPTION or "\0" in request.name:
            return bad_request(
                FieldError(field="name", message=f"over {rules.MAX_DESCRIPTION} characters, or a NUL")
            )
        async with self._store.change(request.actor) as change:
            account, new = await change.add_account(request.account, request.name)
        self._changed()
        return c.AddedAccount(**msgspec.structs.asdict(account), state="new" if new else "existing")

    async def get_account(self, request: c.GetAccount) -> c.Account | Failure:
        return await self._store.account(request.account) or not_found()

    async def list_accounts(self, request: c.ListAccounts) -> c.AccountPage | Failure:
        if problems := _paging_problems(request):
            return bad_request(*problems)
        total, accounts = await self._store.accounts(request)
        return c.AccountPage(
            total=total,
            page=request.page,
            pages=math.ceil(total / request.page_size),
            accounts=tuple(accounts),
        )

    async def delete_account(self, request: c.DeleteAccount) -> c.AccountDeleted | Failure:
        async with self._store.change(request.actor) as change:
            tokens = await change.delete_account(request.account)
        if tokens is None:
            return not_found()
        self._changed()
        return c.AccountDeleted(account=request.account, deleted=True, tokens=tokens)

    async def stats(self, _: c.AskTokensStats) -> c.TokensStats:
        return c.TokensStats(
            accounts=await self._store.count_accounts(), postgres=await self._store.version()
        )


def bad_request(*errors: FieldError) -> Failure:
    return Failure(code="bad_request", message="some fields are not as they should be", errors=errors)


def not_found() -> Failure:
    return Failure(code="not_found", message="there is none")


def _paging_problems(request: Any) -> list[FieldError]:
    problems = []
    if not 0 <= request.page <= 1_000_000:
        problems.append(FieldError(field="page", message="0 to 1000000"))
    if not 1 <= request.page_size <= MAX_PAGE_SIZE:
        problems.append(FieldError(field="pageSize", message=f"1 to {MAX_PAGE_SIZE}"))
    return problems

"""Adds, shows and deletes accounts."""

import msgspec

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
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import Account
from tallystick.rpc.server import Handlers
from tallystick.tokens import rules
from tallystick_server.tokens import operations, transitions
from tallystick_server.tokens.authority import Authority
from tallystick_server.tokens.handlers.paging import listing_problems, log_place, place_of
from tallystick_server.tokens.handlers.replies import bad_request, fitting, not_found
from tallystick_server.tokens.handlers.unit_of_work import UnitOfWork, on_both_subjects
from tallystick_server.tokens.store.writes import Transaction


class AccountHandlers:
    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit
        self._store = unit.store

    def all(self) -> Handlers:
        return on_both_subjects(
            {
                ADD_ACCOUNT: self.add_account,
                GET_ACCOUNT: self.get_account,
                LIST_ACCOUNTS: self.list_accounts,
                GET_ACCOUNT_LOG: self.get_account_log,
                DELETE_ACCOUNT: self.delete_account,
            }
        )

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

        return await self._unit.change(ADD_ACCOUNT, operations.ADD_ACCOUNT, request, work)

    async def get_account(self, request: GetAccount) -> Account | Failure:
        async def work(authority: Authority) -> Account | Failure:
            authority.require(operations.SHOW_ACCOUNT, account=request.account)
            if not rules.is_account(request.account):
                return not_found()
            return await self._store.account(request.account) or not_found()

        return await self._unit.read(request.actor, work)

    async def list_accounts(self, request: ListAccounts) -> AccountPage | Failure:
        if problems := listing_problems(request):
            return bad_request(*problems)

        async def work(authority: Authority) -> AccountPage | Failure:
            authority.require(operations.LIST_ACCOUNTS)
            total, page, pages, accounts, following = await self._store.accounts(request, place_of(request))
            reply = AccountPage(total=total, page=page, pages=pages, accounts=tuple(accounts), next=following)
            return fitting(reply, "pageSize", accounts)

        return await self._unit.read(request.actor, work)

    async def get_account_log(self, request: GetAccountLog) -> AccountLog | Failure:
        async def work(authority: Authority) -> AccountLog | Failure:
            authority.require(operations.SHOW_ACCOUNT, account=request.account)
            if not rules.is_account(request.account):
                return not_found()
            place = log_place(request.after)
            return await self._store.account_log(request.account, place) or not_found()

        return await self._unit.read(request.actor, work)

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

        return await self._unit.change(DELETE_ACCOUNT, operations.DELETE_ACCOUNT, request, work)

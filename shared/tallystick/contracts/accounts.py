"""Accounts."""

from typing import Literal

from tallystick.contracts.audit import Change, RejectedAttempt
from tallystick.contracts.messages import Cursor, Message
from tallystick.contracts.operation import AdministrativeRequest, Operation
from tallystick.contracts.records import Account


class AddedAccount(Account, frozen=True):
    """``state``: whether the account is new or existed already."""

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
        after: only older entries: the ``next`` of the previous page.
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

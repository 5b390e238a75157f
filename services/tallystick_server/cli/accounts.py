"""`tallystick accounts ...`: the accounts that tokens can be bound to, over NATS."""

import click

from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    GET_ACCOUNT,
    GET_ACCOUNT_LOG,
    LIST_ACCOUNTS,
    AccountPage,
    AddAccount,
    DeleteAccount,
    GetAccount,
    GetAccountLog,
    ListAccounts,
)
from tallystick_server.cli.connection import ask, change, operator
from tallystick_server.cli.lists import in_pages, show_pages
from tallystick_server.cli.output import as_ascii, show_record


@click.group()
def accounts() -> None:
    """List, add and delete accounts."""


@accounts.command("list")
@click.option("--query", "-q", help="only those with this in account or name")
@in_pages
def list_accounts(
    *, query: str | None, page: int, page_size: int, after: str | None, show_all: bool, as_json: bool
) -> None:
    """List accounts by name."""

    def show(account_page: AccountPage) -> None:
        for account in account_page.accounts:
            click.echo(as_ascii(account) if as_json else f"{account.account}  {account.name!r}")

    request = ListAccounts(page=page, page_size=page_size, query=query, after=after, actor=operator())
    show_pages(LIST_ACCOUNTS, request, show, noun="accounts", show_all=show_all, as_json=as_json)


@accounts.command()
@click.argument("account")
def show(account: str) -> None:
    """Show an account."""
    show_record(ask(GET_ACCOUNT, GetAccount(account=account, actor=operator())))


@accounts.command()
@click.argument("account")
@click.option("--after", help="older entries: the `next` of the ones before")
def log(account: str, after: str | None) -> None:
    """Show when an account was added and deleted; a deleted account's too."""
    show_record(ask(GET_ACCOUNT_LOG, GetAccountLog(account=account, after=after, actor=operator())))


@accounts.command()
@click.argument("account")
@click.option("--name", default="", help="what people call it")
def add(account: str, name: str) -> None:
    """Add an account. An existing account is left unchanged."""
    show_record(ask(ADD_ACCOUNT, AddAccount(account=account, name=name, actor=operator())))


@accounts.command()
@click.argument("account")
@click.confirmation_option(prompt="Delete the account and revoke all its tokens?")
def delete(account: str) -> None:
    """Delete an account and revoke its tokens."""
    deleted, everywhere = change(DELETE_ACCOUNT, DeleteAccount(account=account, actor=operator()))
    click.echo(
        f"{account!r} is deleted; {deleted.tokens} tokens are rejected on all {everywhere.edges} edges "
        f"after {everywhere.seconds * 1000:.0f} ms"
    )

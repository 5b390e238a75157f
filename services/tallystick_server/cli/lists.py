"""What all lists have in common: pages, and following them to the end."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec
from nats.aio.client import Client

from tallystick.contracts.accounts import AccountPage, ListAccounts
from tallystick.contracts.operation import Failure, Operation
from tallystick.contracts.tokens import ListTokens, TokenPage
from tallystick.rpc.call import call
from tallystick_server.cli.connection import or_fail, with_client

LARGEST_PAGE = 200
"""The page size with --all."""

F = TypeVar("F", bound=Callable[..., Any])


P = TypeVar("P", TokenPage, AccountPage)


def in_pages(command: F) -> F:
    """The options of a list."""
    for option in reversed(
        [
            click.option("--page", default=0, show_default=True, help="which page; the first is 0"),
            click.option("--page-size", default=20, show_default=True, help="how many on a page"),
            click.option("--after", help="go on after a page: the cursor that was printed with it"),
            click.option("--all", "show_all", is_flag=True, help="every page, one after the other"),
            click.option("--json", "as_json", is_flag=True, help="print the whole records, a line each"),
        ]
    ):
        command = option(command)
    return command


def show_pages(
    operation: Operation[Any, P],
    request: ListTokens | ListAccounts,
    show: Callable[[P], None],
    *,
    noun: str,
    show_all: bool,
    as_json: bool,
) -> None:
    """Prints a page of a list, or all from there on.

    Args:
        operation: asks for a page.
        request: the page to print.
        show: prints the items of a page.
        noun: what the list is of.
        show_all: follow the cursors to the end. Nothing that is added or removed meanwhile moves the rest.
        as_json: the output is for a program.
    """
    if show_all and request.page:
        raise click.UsageError("either --page or --all")
    if show_all:
        request = msgspec.structs.replace(request, page_size=LARGEST_PAGE)
    page = or_fail(with_client(lambda client: _follow(client, operation, request, show, show_all=show_all)))
    if not as_json:
        where = "" if show_all else f", page {page.page + 1} of {max(page.pages, 1)}"
        click.echo(f"{page.total} {noun}{where}", err=True)
    if page.next is not None:
        click.echo(f"there are more: --all, or --after {page.next}", err=True)


async def _follow(
    client: Client,
    operation: Operation[Any, P],
    request: ListTokens | ListAccounts,
    show: Callable[[P], None],
    *,
    show_all: bool,
) -> P | Failure:
    """Shows pages, and returns the last one."""
    while True:
        page = await call(client, operation.by_operator, request)
        if isinstance(page, Failure):
            if (
                not show_all
                or request.page_size == 1
                or [error.field for error in page.errors] != ["pageSize"]
            ):
                return page
            # The page exceeds the limit of a message.
            request = msgspec.structs.replace(request, page_size=request.page_size // 2)
            continue
        show(page)
        if not show_all or page.next is None:
            return page
        request = msgspec.structs.replace(request, after=page.next)

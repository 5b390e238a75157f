"""`tallystick tokens ...`: managing access tokens over NATS."""

import sys
from datetime import datetime

import click
import msgspec

from services.cli.connection import ask, fail, operator
from shared import contracts as c
from shared import token_value
from shared.lifecycle import EX_DATAERR


@click.group()
def tokens() -> None:
    """Issue, list and revoke access tokens."""


@tokens.command()
@click.option("--scope", "-s", "scopes", multiple=True, required=True, help="what it may do; may be repeated")
@click.option("--description", "-d", default="", help="what it is for")
@click.option("--account", "-a", help="the only account it works for")
@click.option("--expires", help="when it ends, as in 2027-01-31T00:00:00Z")
@click.option("--json", "as_json", is_flag=True, help="print the whole record")
def issue(
    scopes: tuple[str, ...], description: str, account: str | None, expires: str | None, *, as_json: bool
) -> None:
    """Make a token and show it, this once."""
    value = token_value.mint()
    token = c.NewToken(description=description, scopes=scopes, account=account, expires=_time(expires))
    made = ask(
        c.CREATE_TOKEN,
        c.CreateToken(
            token=token,
            digest=token_value.digest(value) or "",
            hint=token_value.hint(value),
            actor=operator(),
        ),
    ).token
    if as_json:
        click.echo(msgspec.json.encode({"token": value, **msgspec.to_builtins(made)}).decode())
    elif sys.stdout.isatty():
        click.echo(f"{made.id}  {', '.join(made.scopes)}\n\n  {value}\n\nIt is not shown again.")
    else:
        click.echo(value)


@tokens.command("list")
@click.option("--account", "-a", help="only this account's")
@click.option("--query", "-q", help="only those with this in id, description or account")
@click.option("--page", default=0, show_default=True)
@click.option("--page-size", default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print the whole records, a line each")
def list_tokens(account: str | None, query: str | None, page: int, page_size: int, *, as_json: bool) -> None:
    """List tokens, newest first."""
    found = ask(c.LIST_TOKENS, c.ListTokens(page=page, page_size=page_size, query=query, account=account))
    for token in found.tokens:
        if as_json:
            click.echo(msgspec.json.encode(token).decode())
        else:
            # Shown as Python would quote it: a description may hold anything, a terminal obeys some of it.
            click.echo(f"{token.id}  {token.hint}…  {','.join(token.scopes)}  {token.description!r}")
    if not as_json:
        click.echo(f"{found.total} tokens, page {found.page + 1} of {max(found.pages, 1)}", err=True)


@tokens.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Revoke a token for good, by its id."""
    if token_value.looks_like_a_secret(token_id):
        fail(
            "that looks like a token; name it by its id (tok_...): arguments are seen by other programs",
            EX_DATAERR,
        )
    revoked = ask(c.REVOKE_TOKEN, c.RevokeToken(id=token_id, actor=operator()))
    click.echo(f"{token_id} is refused on all {revoked.edges} edges after {revoked.seconds * 1000:.0f} ms")


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return msgspec.convert(text, c.Time)
    except msgspec.ValidationError:
        raise click.BadParameter(
            "a time with its zone, as in 2027-01-31T00:00:00Z", param_hint="--expires"
        ) from None

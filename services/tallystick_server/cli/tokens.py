"""`tallystick tokens ...`: managing access tokens over NATS."""

import sys
from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar, get_args

import click
import msgspec

from tallystick.coherence.propagation import Creation
from tallystick.contracts.imports import EXPORT_TOKEN, ExportToken
from tallystick.contracts.records import NewToken, RateLimit, Restrictions
from tallystick.contracts.sessions import MAKE_SIGN_IN_LINK
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    GET_LOG,
    GET_TOKEN,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    CreateToken,
    EditToken,
    GetLog,
    GetToken,
    ListTokens,
    RevokeAll,
    RevokeToken,
    RotateToken,
    TokenOrder,
    TokenPage,
    TokenState,
)
from tallystick.tokens import format as token_format
from tallystick_server.cli.arguments import FieldOption, Metadata, Rate, Time, TokenCommand, TokenId, update
from tallystick_server.cli.connection import ask, change, create, http, operator
from tallystick_server.cli.lists import in_pages, show_pages
from tallystick_server.cli.output import as_ascii, fail, show_record
from tallystick_server.cli.token_import import import_tokens
from tallystick_server.edge.dashboard import login_link
from tallystick_server.runtime.lifecycle import EX_DATAERR, EX_TEMPFAIL

CLEARABLE = ("metadata", "expires", "not-before", "addresses", "referrers", "rate-limit")

F = TypeVar("F", bound=Callable[..., Any])


def what_it_may(command: F) -> F:
    """The options that `create` and `edit` share."""
    for option in reversed(
        [
            click.option("--description", "-d", help="description of the token's purpose"),
            click.option("--metadata", cls=FieldOption, type=Metadata(), help="a JSON object of your own"),
            click.option(
                "--expires", cls=FieldOption, type=Time(), help="when it ends, as in 2027-01-31T00:00:00Z"
            ),
            click.option("--not-before", cls=FieldOption, type=Time(), help="when it begins"),
            click.option(
                "--address", "addresses", multiple=True, help="a network it works from; may be repeated"
            ),
            click.option(
                "--referrer", "referrers", multiple=True, help="a page it works from; may be repeated"
            ),
            click.option(
                "--rate-limit",
                cls=FieldOption,
                type=Rate(),
                help="as in 100/60: requests in a window of seconds",
            ),
        ]
    ):
        command = option(command)
    return command


token_id = click.argument("token_id", type=TokenId())
as_json = click.option("--json", "as_json", is_flag=True, help="print the whole record")


@click.group()
def tokens() -> None:
    """Create, list, edit and revoke access tokens."""


tokens.add_command(import_tokens)


@tokens.command("create", cls=TokenCommand)
@click.option(
    "--scope",
    "-s",
    "scopes",
    cls=FieldOption,
    multiple=True,
    required=True,
    help="scope to grant; may be repeated",
)
@click.option("--account", "-a", help="the only account it works for")
@what_it_may
@as_json
def create_token(
    *,
    scopes: tuple[str, ...],
    description: str | None,
    addresses: tuple[str, ...],
    referrers: tuple[str, ...],
    rate_limit: RateLimit | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Create a token and print it, once."""
    secret = token_format.new_secret()
    restrictions = Restrictions(
        addresses=addresses or None, referrers=referrers or None, rate_limit=rate_limit
    )
    created = create(
        CREATE_TOKEN,
        CreateToken(
            token=NewToken(scopes=scopes, description=description or "", restrictions=restrictions, **fields),
            digest=secret.digest,
            hint=secret.hint,
            actor=operator(),
        ),
    )
    _show_secret(created, secret.value, as_json=as_json)


# The name that EmailEngine has for it.
issue = copy(create_token)
issue.short_help = "The same as create."
tokens.add_command(issue, "issue")


@tokens.command("list")
@click.option("--account", "-a", help="only this account's")
@click.option(
    "--query", "-q", help="only those with this in id, description or account, this hint, or EmailEngine's id"
)
@click.option("--state", type=click.Choice(get_args(TokenState)), help="only those in this state")
@click.option("--scope", "-s", help="only those that were given this scope or one below it")
@click.option("--created-by", type=TokenId(), help="only those that this token created")
@click.option("--unused-since", type=Time(), help="only those neither used nor created since this time")
@click.option(
    "--order",
    type=click.Choice(get_args(TokenOrder)),
    default="created",
    show_default=True,
    help="newest first, last used first, next to expire first (expired ones last), or by description",
)
@in_pages
def list_tokens(*, show_all: bool, as_json: bool, **filters: Any) -> None:
    """List tokens, newest first. Revoked tokens are listed only with --state revoked."""

    def show(token_page: TokenPage) -> None:
        for token in token_page.tokens:
            if as_json:
                click.echo(as_ascii(token))
            else:
                # Shown as Python would quote it: a description may hold anything, a terminal obeys some of it.
                click.echo(f"{token.id}  {token.hint}…  {','.join(token.scopes)}  {token.description!r}")

    request = ListTokens(actor=operator(), **filters)
    show_pages(LIST_TOKENS, request, show, noun="tokens", show_all=show_all, as_json=as_json)


@tokens.command()
@token_id
def show(token_id: str) -> None:
    """Show a token's record, a revoked one's too."""
    show_record(ask(GET_TOKEN, GetToken(id=token_id, revoked=True, actor=operator())))


@tokens.command()
@token_id
@click.option("--after", help="older entries: the `next` of the ones before")
def log(token_id: str, after: str | None) -> None:
    """Show the latest changes of a token with their details, and its rejected requests."""
    show_record(ask(GET_LOG, GetLog(id=token_id, after=after, actor=operator())))


@tokens.command(cls=TokenCommand)
@token_id
@click.option(
    "--scope", "-s", "scopes", multiple=True, help="scope that replaces the current ones; may be repeated"
)
@what_it_may
@click.option("--clear", multiple=True, type=click.Choice(CLEARABLE), help="take this away; may be repeated")
@click.option("--disable/--enable", "disabled", default=None)
def edit(token_id: str, **options: Any) -> None:
    """Change the given fields of a token and leave the rest."""
    changes = update(options)
    show_record(ask(EDIT_TOKEN, EditToken(id=token_id, changes=changes, actor=operator())))


@tokens.command()
@token_id
@click.option("--grace", default=0, show_default=True, help="seconds for which the old secret stays valid")
@as_json
def rotate(token_id: str, grace: int, *, as_json: bool) -> None:
    """Create a token's successor and print its secret, once."""
    secret = token_format.new_secret()
    created = create(
        ROTATE_TOKEN,
        RotateToken(
            id=token_id,
            grace=grace,
            digest=secret.digest,
            hint=secret.hint,
            actor=operator(),
        ),
    )
    _show_secret(created, secret.value, as_json=as_json)


@tokens.command()
@click.argument("token_id", type=TokenId(), required=False)
@click.option("--account", "-a", help="all tokens of this account instead")
@click.option("--end-grace", is_flag=True, help="only the older secrets that this token replaced")
@click.option(
    "--with-descendants", is_flag=True, help="every token that was created with it, directly or not, as well"
)
@click.option("--dry-run", is_flag=True, help="change nothing, and list what would be revoked")
def revoke(
    token_id: str | None, account: str | None, *, end_grace: bool, with_descendants: bool, dry_run: bool
) -> None:
    """Revoke a token and its rotation chain for good, by its id, or all tokens of an account."""
    if (token_id is None) == (account is None):
        raise click.UsageError("name a token's id, or --account")
    if account is not None:
        if end_grace or with_descendants or dry_run:
            raise click.UsageError("--account takes no other option")
        account_tokens, everywhere = change(REVOKE_ALL, RevokeAll(account=account, actor=operator()))
        what = f"{account_tokens.tokens} tokens of {account!r} are"
        living = account_tokens.living_descendants
    else:
        revoked, everywhere = change(
            REVOKE_TOKEN,
            RevokeToken(
                id=token_id,
                only="predecessors" if end_grace else None,
                descendants=with_descendants,
                dry_run=dry_run,
                actor=operator(),
            ),
        )
        for revoked_id in (*revoked.covered, *revoked.descendants):
            click.echo(revoked_id)
        what = f"{len(revoked.covered) + len(revoked.descendants)} tokens are"
        living = revoked.living_descendants
    if dry_run:
        click.echo("nothing was changed: these would be revoked", err=True)
    else:
        click.echo(
            f"{what} rejected on all {everywhere.edges} edges after {everywhere.seconds * 1000:.0f} ms"
        )
    if living:
        click.echo(
            f"{living} tokens that were created with them are still valid: see "
            "'tallystick tokens list --created-by ID', or revoke --with-descendants",
            err=True,
        )


@tokens.command("login-link")
@token_id
@click.option(
    "--minutes",
    type=click.IntRange(1, 24 * 60),
    default=10,
    show_default=True,
    help="how long the link is valid",
)
@click.option("--url", help="URL of the edge, if it is not on this machine")
def print_login_link(token_id: str, *, minutes: int, url: str | None) -> None:
    """Print a one-time link that signs in to the dashboard as this token."""
    link = login_link.new(token_id, operator(), seconds=minutes * 60)
    ask(MAKE_SIGN_IN_LINK, link.request)
    click.echo(f"{(url or http()).rstrip('/')}{login_link.path(link.secret)}")


@tokens.command()
@token_id
def export(token_id: str) -> None:
    """Print a token's record with its hash and without its secret, for TALLYSTICK_PREPARED_TOKEN or import."""
    exported = ask(EXPORT_TOKEN, ExportToken(id=token_id, actor=operator()))
    click.echo(msgspec.json.encode(exported.record).decode())


@tokens.command()
@click.argument("file", type=click.File("rb"), default="-")
def inspect(file: Any) -> None:
    """Check the syntax of a token from a file or standard input. It is not looked up, so it may be invalid all the same."""
    value = file.read(token_format.MAX_LENGTH + 2).decode("latin-1").strip()
    if token_format.is_ours(value):
        click.echo("a well-formed Tallystick token")
    elif token_format.digest(value) is not None:
        click.echo("not a Tallystick token; may be an imported one")
        sys.exit(1)
    else:
        click.echo("not a token: mistyped, truncated, or something else")
        sys.exit(EX_DATAERR)


def _show_secret(created: Creation, value: str, *, as_json: bool) -> None:
    token = created.reply.token if created.reply else None
    if as_json:
        record: dict[str, Any] = msgspec.to_builtins(token) if token else {"committed": "unknown"}
        click.echo(as_ascii({**record, "settled": created.propagation is not None, "token": value}))
    elif token and sys.stdout.isatty():
        click.echo(f"{token.id}  {', '.join(token.scopes)}\n\n  {value}\n\nIt is not shown again.")
    else:
        click.echo(value)
    if token is None:
        fail("the reply was lost, so the token may not exist: check it before you use it", EX_TEMPFAIL)
    if created.propagation is None:
        click.echo("not every edge has confirmed this yet; it takes a lease at most", err=True)

"""The program `tallystick`: the only place that reads the environment and the command line.

What a command needs is imported when it runs, so that each process loads no more than its own service.
"""

# ruff: noqa: PLC0415
import asyncio
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import click

from tallystick.contracts.record_fields import NotARecord
from tallystick.errors import Unavailable
from tallystick.tokens import format as token_format
from tallystick_server.cli.lazy import Lazy, LazyGroup
from tallystick_server.cli.output import fail
from tallystick_server.runtime import lifecycle, settings
from tallystick_server.runtime.lifecycle import EX_CONFIG, EX_DATAERR, EX_SOFTWARE, EX_UNAVAILABLE


class Program(LazyGroup):
    lazy: ClassVar[Mapping[str, Lazy]] = {
        name: Lazy(f"tallystick_server.cli.{name}", name, summary)
        for name, summary in (
            ("accounts", "List, add and delete accounts."),
            ("counting", "Show whether events are counted, and resume counting."),
            ("psql", "Run psql on the database of the running 'tallystick up'."),
            ("services", "Give services of yours NATS users of their own."),
            ("tokens", "Create, list, edit and revoke access tokens."),
        )
    }


@click.group(cls=Program)
@click.version_option(package_name="tallystick")
def program() -> None:
    """Tallystick: access tokens for APIs, checked at the edge and counted exactly."""


@program.command()
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="where everything is kept  [default: ./data]"
)
@click.option("--host", help="the address to listen on  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="the port to listen on  [default: 3000]")
@click.option(
    "--workers", type=click.IntRange(1, 256), help="how many processes serve requests  [default: 1]"
)
@click.option(
    "--nats-port",
    type=click.IntRange(1, 65535),
    help="NATS's port on loopback  [default: the data folder's own]",
)
def up(
    data_dir: Path | None, host: str | None, port: int | None, workers: int | None, nats_port: int | None
) -> None:
    """Start everything on this machine: PostgreSQL, NATS and all services."""
    from tallystick.tokens import record as token_record
    from tallystick_server.cli.settings import Settings as CommandSettings
    from tallystick_server.edge.settings import Settings
    from tallystick_server.local.data_dir import AlreadyRunning, NotOurs
    from tallystick_server.local.processes import CannotDropRoot
    from tallystick_server.local.up import Options, up as start

    _set_up_logs("up")
    _forget_other_servers()
    edge = settings.load(Settings, {**os.environ, "TALLYSTICK_NATS_URL": "decided by up"})
    edge.trusted_networks()
    if prepared := settings.read("prepared_token", os.environ):
        token_record.decode(prepared)
    if certificate := edge.certificate_files():
        certificate.load().close()
    own = settings.load(CommandSettings, os.environ)
    options = Options(
        data_dir=data_dir or Path(own.data_dir),
        host=host or edge.host,
        port=port or edge.port,
        workers=workers or edge.workers,
        nats_port=nats_port or own.nats_port,
        https=certificate is not None,
    )
    try:
        sys.exit(asyncio.run(lifecycle.run(partial(start, options), grace_s=15)))
    except (AlreadyRunning, CannotDropRoot, NotOurs) as error:
        fail(str(error), EX_UNAVAILABLE)


@program.command()
@click.argument("service", type=click.Choice(["edge", "tokens", "metrics"]))
def serve(service: str) -> None:
    """Run one service, set by TALLYSTICK_... variables."""
    import uvloop

    _set_up_logs(service)
    match service:
        case "edge":
            from tallystick_server.edge import server
            from tallystick_server.edge.settings import Settings as EdgeSettings

            server.run(settings.load(EdgeSettings, os.environ))
        case "tokens":
            from tallystick_server.tokens import app as tokens_app
            from tallystick_server.tokens.settings import Settings as TokensSettings

            work = partial(tokens_app.run, settings.load(TokensSettings, os.environ))
            sys.exit(uvloop.run(lifecycle.run(work)))
        case "metrics":
            from tallystick_server.metrics import app as metrics_app
            from tallystick_server.metrics.settings import Settings as MetricsSettings

            work = partial(metrics_app.run, settings.load(MetricsSettings, os.environ))
            sys.exit(uvloop.run(lifecycle.run(work)))


@program.command()
@click.argument("service", type=click.Choice(["tokens", "metrics"]))
def migrate(service: str) -> None:
    """Bring a service's schema up to date, as its start does too."""
    from tallystick_server.metrics.store import schema as metrics_schema
    from tallystick_server.runtime import postgres
    from tallystick_server.tokens.store import schema as tokens_schema

    _set_up_logs("migrate")
    url = settings.read("database_url", os.environ)
    if not url:
        raise settings.SettingsError("TALLYSTICK_DATABASE_URL is not set")
    bring_up_to_date = {"tokens": tokens_schema.bring_up_to_date, "metrics": metrics_schema.bring_up_to_date}[
        service
    ]

    async def once() -> None:
        async with postgres.pool(url, schema=service, wait_s=10) as pool, pool.acquire() as opened:
            for migration in await bring_up_to_date(opened):
                click.echo(f"{service}: applied {migration.number:04d} {migration.name}")
        click.echo(f"{service}: up to date")

    asyncio.run(once())


@program.command("nats-url")
@click.option(
    "--role",
    default="service",
    show_default=True,
    help="the NATS user: operator, events-operator (JetStream), service, or a service that was added",
)
@click.option("--json", "as_json", is_flag=True, help="print servers, user, password and inboxPrefix as JSON")
def nats_url(role: str, as_json: bool) -> None:  # noqa: FBT001  # click names it
    """Print where the running Tallystick's NATS is, with the credentials of one of its users."""
    import msgspec

    from tallystick_server.cli.services import login as login_of

    login = login_of(role)
    click.echo(msgspec.json.encode(login).decode() if as_json else login.url)


def _set_up_logs(service: str) -> None:
    from tallystick_server.runtime import logging as logs

    logs.set_up(service, settings.load(logs.Settings, os.environ))


def _forget_other_servers() -> None:
    """The shell's variables for PostgreSQL and NATS mean other servers than the ones that `up` starts."""
    for name in list(os.environ):
        if name.startswith(("PG", "NATS_")):
            del os.environ[name]


def _check_environment() -> None:
    if not any(name.startswith(settings.PREFIX) for name in os.environ):
        return
    from tallystick_server.cli.settings import Settings as CommandSettings
    from tallystick_server.edge.settings import Settings as EdgeSettings
    from tallystick_server.metrics.settings import Settings as MetricsSettings
    from tallystick_server.runtime.logging import Settings as LogSettings
    from tallystick_server.tokens.settings import Settings as TokensSettings

    kinds = (EdgeSettings, TokensSettings, MetricsSettings, CommandSettings, LogSettings)
    settings.check_known(kinds, os.environ)


def _reject_tokens(arguments: list[str]) -> None:
    """Before anything reads or repeats them."""
    if any(token_format.is_ours(argument.rpartition("=")[2]) for argument in arguments):
        fail(
            "a token has no place among arguments, which others see: name it by its id (tok_...), never by the token "
            "itself, or give it in a file or on standard input",
            EX_DATAERR,
        )


def main() -> None:
    """Runs the command line and turns what may go wrong into one line and an exit code (sysexits.h)."""
    lifecycle.run_below_init()
    try:
        _check_environment()
        _reject_tokens(sys.argv[1:])
        program()
    except settings.SettingsError as error:
        fail(str(error), EX_CONFIG)
    except NotARecord as error:
        fail(f"the prepared token is no token record: {error}", EX_DATAERR)
    except (Unavailable, OSError) as error:
        fail(str(error), EX_UNAVAILABLE)
    except Exception as error:
        if not _is_of_database(error):
            raise
        fail(str(error), EX_SOFTWARE)


def _is_of_database(error: Exception) -> bool:
    import asyncpg

    from tallystick_server.runtime.postgres import MigrationChanged, SchemaTooNew

    return isinstance(error, (SchemaTooNew, MigrationChanged, asyncpg.PostgresError))


if __name__ == "__main__":
    main()

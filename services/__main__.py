"""The program `tallystick`: the only place that reads the environment and the command line.

What a command needs is imported when it runs, so that each process loads no more than its own service.
"""

# ruff: noqa: PLC0415
import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import asyncpg
import click
import msgspec
import uvloop

from services.cli import connection, counting, services
from services.cli.accounts import accounts
from services.cli.psql import psql
from services.cli.tokens import tokens
from shared import VERSION, lifecycle, logs, postgres, settings, token_record, token_value
from shared.lifecycle import EX_CONFIG, EX_DATAERR, EX_SOFTWARE, EX_UNAVAILABLE


@click.group()
@click.version_option(VERSION)
def program() -> None:
    """Tallystick: access tokens for APIs, checked at the edge and counted exactly."""


program.add_command(tokens)
program.add_command(accounts)
program.add_command(services.services)
program.add_command(psql)
program.add_command(counting.counting)


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
    from deploy.data_folder import AlreadyRunning, NotOurs
    from deploy.embedded.processes import CannotDropRoot
    from deploy.up import Options
    from deploy.up import up as start
    from services.edge.settings import Settings

    _set_up_logs("up")
    _forget_other_servers()
    edge = settings.load(Settings, {**os.environ, "TALLYSTICK_NATS_URL": "decided by up"})
    edge.trusted_networks()
    if prepared := settings.read("prepared_token", os.environ):
        token_record.decode(prepared)
    if certificate := edge.certificate_files():
        certificate.load().close()
    own = settings.load(connection.Settings, os.environ)
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
        connection.fail(str(error), EX_UNAVAILABLE)


@program.command()
@click.argument("service", type=click.Choice(["edge", "tokens", "metrics"]))
def serve(service: str) -> None:
    """Run one service, set by TALLYSTICK_... variables."""
    _set_up_logs(service)
    match service:
        case "edge":
            from services.edge import server
            from services.edge.settings import Settings as EdgeSettings

            server.run(settings.load(EdgeSettings, os.environ))
        case "tokens":
            from services.tokens import app as tokens_app
            from services.tokens.settings import Settings as TokensSettings

            work = partial(tokens_app.run, settings.load(TokensSettings, os.environ))
            sys.exit(uvloop.run(lifecycle.run(work)))
        case "metrics":
            from services.metrics import app as metrics_app
            from services.metrics.settings import Settings as MetricsSettings

            work = partial(metrics_app.run, settings.load(MetricsSettings, os.environ))
            sys.exit(uvloop.run(lifecycle.run(work)))


@program.command()
@click.argument("service", type=click.Choice(["tokens", "metrics"]))
def migrate(service: str) -> None:
    """Bring a service's schema up to date, as its start does too."""
    from services.metrics import store as metrics_store
    from services.tokens import store as tokens_store

    _set_up_logs("migrate")
    url = settings.read("database_url", os.environ)
    if not url:
        raise settings.SettingsError("TALLYSTICK_DATABASE_URL is not set")
    bring_up_to_date = {"tokens": tokens_store.bring_up_to_date, "metrics": metrics_store.bring_up_to_date}[
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
    login = services.login(role)
    click.echo(msgspec.json.encode(login).decode() if as_json else login.url)


def _set_up_logs(service: str) -> None:
    logs.set_up(service, settings.load(logs.Settings, os.environ))


def _forget_other_servers() -> None:
    """The shell's variables for PostgreSQL and NATS mean other servers than the ones that `up` starts."""
    for name in list(os.environ):
        if name.startswith(("PG", "NATS_")):
            del os.environ[name]


def _check_environment() -> None:
    from services.edge.settings import Settings as EdgeSettings
    from services.metrics.settings import Settings as MetricsSettings
    from services.tokens.settings import Settings as TokensSettings

    kinds = (EdgeSettings, TokensSettings, MetricsSettings, connection.Settings, logs.Settings)
    settings.check_known(kinds, os.environ)


def _refuse_tokens(arguments: list[str]) -> None:
    """Before anything reads or repeats them."""
    if any(token_value.is_ours(argument.rpartition("=")[2]) for argument in arguments):
        connection.fail(
            "a token has no place among arguments, which others see: name it by its id (tok_...), never by the token "
            "itself, or give it in a file or on standard input",
            EX_DATAERR,
        )


def main() -> None:
    """Runs the command line and turns what may go wrong into one line and an exit code (sysexits.h)."""
    lifecycle.run_below_init()
    try:
        _check_environment()
        _refuse_tokens(sys.argv[1:])
        program()
    except settings.SettingsError as error:
        connection.fail(str(error), EX_CONFIG)
    except token_record.NotARecord as error:
        connection.fail(f"the prepared token is no token record: {error}", EX_DATAERR)
    except (lifecycle.Unavailable, OSError) as error:
        connection.fail(str(error), EX_UNAVAILABLE)
    except (postgres.SchemaTooNew, postgres.MigrationChanged, asyncpg.PostgresError) as error:
        connection.fail(str(error), EX_SOFTWARE)


if __name__ == "__main__":
    main()

"""`tallystick psql`: a session with the embedded PostgreSQL of a running `up`."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import click

from tallystick_server.cli import connection
from tallystick_server.cli.output import fail
from tallystick_server.local import postgres
from tallystick_server.local.data_dir import DataFolder
from tallystick_server.runtime.lifecycle import EX_UNAVAILABLE


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--role",
    type=click.Choice(["postgres", *postgres.ROLES]),
    default="postgres",
    show_default=True,
    help="the PostgreSQL role: the superuser, or a service's, which sees only its own schema",
)
@click.option("--write", is_flag=True, help="allow changes; without it, transactions are read-only")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL ARGUMENTS]...")
def psql(role: str, write: bool, arguments: tuple[str, ...]) -> NoReturn:  # noqa: FBT001  # click names it
    """Run psql on the database of the running 'tallystick up'.

    For example: tallystick psql -c "select * from tokens.audit order by id desc limit 10"

    Without arguments it is interactive. Arguments after -- go to psql unread.
    """
    connection.running()
    folder = DataFolder(connection.data_dir())
    program = _program()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {
        "PGHOST": str(_socket(folder.postgres)),
        "PGPORT": str(postgres.PORT),
        "PGDATABASE": postgres.DATABASE,
        "PGUSER": role,
        # Only this user can read the environment of a process, and everybody its arguments.
        "PGPASSWORD": folder.credentials().postgres[role],
        "PGAPPNAME": "tallystick psql",
    }
    if not write:
        environment["PGOPTIONS"] = "-c default_transaction_read_only=on"
    os.execve(program, [program, *arguments], environment)  # noqa: S606  # its own program, without a shell


def _program() -> str:
    """The psql that came with our dependencies, else the system's."""
    try:
        own = postgres.program("psql")
    except FileNotFoundError:
        own = ""
    program = own if Path(own).is_file() else shutil.which("psql")
    if program is None:
        fail("psql not found: install PostgreSQL's client programs", EX_UNAVAILABLE)
    return program


def _socket(data: Path) -> Path:
    """The folder of the server's socket, from the lock file that the server writes: its fifth line."""
    try:
        return Path((data / "postmaster.pid").read_text().splitlines()[4])
    except (OSError, IndexError):
        fail("PostgreSQL is not running; 'tallystick up' starts it again", EX_UNAVAILABLE)

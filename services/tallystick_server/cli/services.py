"""`tallystick services ...`: NATS users for services that verify tokens and report events."""

import asyncio

import click
import msgspec
from nats.errors import Error as NatsError

from tallystick import connection as bus
from tallystick.contracts import publishers
from tallystick.errors import Unavailable
from tallystick_server.cli import connection
from tallystick_server.cli.output import fail
from tallystick_server.local.data_dir import DataFolder, NotOurs
from tallystick_server.runtime.lifecycle import EX_DATAERR, EX_UNAVAILABLE
from tallystick_server.runtime.nats_permissions import USERS, inbox_prefix

FOR_OTHERS = ("operator", "events-operator", "service")
"""The users that are not for one of Tallystick's own services."""
RELOAD_S = 10.0
"""Maximum time until a running NATS accepts a user that was added."""


@click.group()
def services() -> None:
    """Give services of yours NATS users of their own."""


@services.command()
@click.argument("name")
def add(name: str) -> None:
    """Add a NATS user for a service and print its URL.

    The service may verify tokens, and publish events whose source is NAME or begins with NAME and a dot.
    """
    if not publishers.is_name(name) or name in USERS:
        fail(
            f"{name!r} cannot be a service's name: lower-case letters, digits, '-' and '_', beginning with a letter, "
            f"at most 32, and none of {', '.join(USERS)}",
            EX_DATAERR,
        )
    folder = _folder()
    added = folder.add_service(name)
    if not folder.reload():
        click.echo(
            f"{name}: added; 'tallystick nats-url --role {name}' prints its URL once 'tallystick up' runs"
        )
        return
    where = login(name).url
    if added:
        _wait_until_known(where, name)
    click.echo(where)


@services.command("list")
def list_services() -> None:
    """Print the services that were added, one on each line."""
    for name in sorted(_folder().credentials().nats.keys() - USERS.keys()):
        click.echo(name)


@services.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a service's NATS user and close its connections."""
    folder = _folder()
    if name in USERS or not folder.remove_service(name):
        fail(f"no service {name!r} was added", EX_DATAERR)
    folder.reload()
    click.echo(f"{name}: removed")


class NatsLogin(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The settings of a NATS client, each on its own, since some clients ignore the credentials in a URL.

    Args:
        servers: ``nats://host:port`` of each server.
        user: the NATS user.
        password: the user's password.
        inbox_prefix: of the subjects on which the client receives replies; the user may subscribe to no other.
    """

    servers: tuple[str, ...]
    user: str
    password: str
    inbox_prefix: str

    @property
    def url(self) -> str:
        return self.servers[0].replace("://", f"://{self.user}:{self.password}@")


def login(role: str) -> NatsLogin:
    """The login of a user to the NATS of the running `up`; exits 65 if the user does not exist."""
    running = connection.running()
    password = _folder().credentials().nats.get(role)
    if password is None or (role in USERS and role not in FOR_OTHERS):
        fail(f"no NATS user {role!r} for others: 'tallystick services add {role}' adds a service", EX_DATAERR)
    return NatsLogin(
        servers=(f"nats://{running.nats}",), user=role, password=password, inbox_prefix=inbox_prefix(role)
    )


def _folder() -> DataFolder:
    folder = DataFolder(connection.data_dir())
    if not folder.path.is_dir():
        fail(f"{folder.path} is not there: start 'tallystick up' first", EX_UNAVAILABLE)
    try:
        folder.is_new()
    except NotOurs as error:
        fail(str(error), EX_UNAVAILABLE)
    return folder


def _wait_until_known(where: str, name: str) -> None:
    """Returns when NATS accepts the new user."""

    async def connected() -> None:
        async with asyncio.timeout(RELOAD_S):
            while True:
                try:
                    async with bus.connect(where, name, wait_s=1):
                        return
                except (Unavailable, NatsError, OSError):
                    await asyncio.sleep(0.05)

    try:
        asyncio.run(connected())
    except TimeoutError:
        fail(f"{name} was added, but NATS does not know it yet; see log/nats.log", EX_UNAVAILABLE)

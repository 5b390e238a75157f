"""Connects to the running Tallystick, and sends requests on behalf of the operator."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.coherence import propagation
from tallystick.coherence.propagation import Creation, Propagation, call_and_wait
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.tokens import CreatedToken, CreateToken, RotateToken
from tallystick.errors import Unavailable
from tallystick.rpc.call import call
from tallystick_server.cli.output import fail
from tallystick_server.cli.settings import Settings
from tallystick_server.local.data_dir import DataFolder, Running
from tallystick_server.runtime import settings
from tallystick_server.runtime.lifecycle import EX_DATAERR, EX_UNAVAILABLE

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")


def data_dir() -> Path:
    return Path(settings.load(Settings, os.environ).data_dir)


def running() -> Running:
    """The `up` that runs on the data folder; exits 69 if none runs."""
    up = DataFolder(data_dir()).running()
    if up is None:
        fail(
            f"no Tallystick runs on {data_dir()}: start one with 'tallystick up', or set "
            "TALLYSTICK_DATA_DIR or TALLYSTICK_NATS_URL",
            EX_UNAVAILABLE,
        )
    return up


def nats_url() -> str:
    return settings.read("nats_url", os.environ) or running().operator_url


def http() -> str:
    """The edge's base URL; empty if the NATS URL is set, since that does not determine it."""
    return "" if settings.read("nats_url", os.environ) else running().http


def operator() -> Actor:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have them
        user = f"uid{os.getuid()}"
    return Actor(name=f"cli:{user}")


def ask(operation: Operation[Q, R], request: Q) -> R:
    """Sends a request and returns the reply. A failure is printed and ends the program. A change has propagated when
    this returns.
    """
    if operation.settles:
        return change(operation, request)[0]

    async def once(client: Client) -> R | Failure:
        return await call(client, operation.by_operator, request)

    return or_fail(with_client(once))


def change(operation: Operation[Q, R], request: Q) -> tuple[R, Propagation]:
    """Makes a change, and returns the reply and its propagation."""

    async def once(client: Client) -> tuple[R, Propagation] | Failure:
        return await call_and_wait(client, operation.by_operator, request)

    return or_fail(with_client(once))


def create(operation: Operation[Any, CreatedToken], request: CreateToken | RotateToken) -> Creation:
    """Creates a token. The caller must show its secret even if a later step fails."""

    async def once(client: Client) -> Creation | Failure:
        return await propagation.create(client, operation.by_operator, request)

    return or_fail(with_client(once))


def try_change(operation: Operation[Q, R], request: Q) -> R | Failure:
    """Makes a change, and returns the reply after its propagation, or the rejection."""

    async def once(client: Client) -> R | Failure:
        result = await call_and_wait(client, operation.by_operator, request)
        return result if isinstance(result, Failure) else result[0]

    return with_client(once)


def inquire(work: Callable[[Client], Awaitable[T]]) -> T | None:
    """Runs a query against the services; None if they cannot be reached, which is not an error here."""
    if not settings.read("nats_url", os.environ) and DataFolder(data_dir()).running() is None:
        return None
    try:
        return asyncio.run(_connected(work))
    except Unavailable:
        return None


def or_fail(reply: T | Failure) -> T:
    if isinstance(reply, Failure):
        for error in reply.errors:
            print(f"{error.field}: {error.message}", file=sys.stderr)
        fail(
            reply.message or reply.code,
            EX_UNAVAILABLE if reply.code in {"unavailable", "overloaded"} else EX_DATAERR,
        )
    return reply


def with_client(work: Callable[[Client], Awaitable[T]]) -> T:
    try:
        return asyncio.run(_connected(work))
    except Unavailable as error:
        fail(str(error), EX_UNAVAILABLE)


async def _connected(work: Callable[[Client], Awaitable[T]]) -> T:
    async with bus.connect(
        nats_url(),
        "operator",
        None,
        wait_s=2,
        authority=settings.read("nats_ca", os.environ),
    ) as client:
        return await work(client)

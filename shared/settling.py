"""Carries out a change and returns when it is true everywhere."""

import time
from typing import NamedTuple, TypeVar

import msgspec
from nats.aio.client import Client

from shared import rpc
from shared.contracts import SETTLE, Failure, Operation, Settle

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class Everywhere(NamedTuple):
    """How many edges acknowledged a change, and how long it took from the request to the last of them."""

    edges: int
    seconds: float


async def carry_out(client: Client, operation: Operation[Q, R], request: Q) -> tuple[R, Everywhere] | Failure:
    """Asks for a change, and waits until no edge relies on anything older: at most as long as a lease lasts.

    A failure after the commit says ``unavailable``: whether the change is made is open then, as with any answer
    that got lost, and asking for the same again settles it.
    """
    started = time.monotonic()
    settle = SETTLE.by_operator if operation.subject == operation.by_operator.subject else SETTLE
    reply = await rpc.call(client, operation, request)
    if isinstance(reply, Failure):
        return reply
    seq: int | None = None
    while True:
        settled = await rpc.call(client, settle, Settle(seq=seq))
        if isinstance(settled, Failure):
            return settled
        if settled.settled:
            return reply, Everywhere(settled.edges, round(time.monotonic() - started, 6))
        seq = settled.seq

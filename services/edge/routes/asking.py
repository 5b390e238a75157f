"""What all routes need to ask the other services on behalf of a request."""

from typing import TypeVar

import msgspec
from nats.aio.client import Client

from services.edge.errors import Refused
from services.edge.gate import HttpRequest, gate_of, token_of
from shared import rpc, settling
from shared.contracts import Actor, Failure, Operation
from shared.settling import Everywhere

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


async def ask(request: HttpRequest, operation: Operation[Q, R], question: Q) -> R:
    """The reply.

    Raises:
        Refused: the service said no, or nothing.
    """
    client: Client = request.app.state.client
    reply = await rpc.call(client, operation, question)
    if isinstance(reply, Failure):
        raise Refused.of(reply)
    return reply


async def change(request: HttpRequest, operation: Operation[Q, R], question: Q) -> tuple[R, Everywhere]:
    """The reply to a change that is true at every edge by now.

    Raises:
        Refused: the service said no, or nothing.
    """
    done = await settling.carry_out(request.app.state.client, operation, question)
    if isinstance(done, Failure):
        raise Refused.of(done)
    return done


def actor(request: HttpRequest) -> Actor:
    """Who asks, for the audit and for what may be given."""
    token = token_of(request)
    return Actor(
        name=token.id,
        token=token.id,
        address=gate_of(request).address_of(request.scope),
        request_id=request.scope["state"]["request_id"],
    )


def idempotency_key(request: HttpRequest) -> str | None:
    """The Idempotency-Key header.

    Raises:
        Refused: there are several.
    """
    keys = request.headers.getall("idempotency-key", [])
    if len(keys) > 1:
        raise Refused("bad_request", "one Idempotency-Key at most")
    return keys[0] if keys else None

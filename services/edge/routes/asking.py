"""What all routes need to ask the other services on behalf of a request."""

from typing import Any, TypeVar

import msgspec
from litestar import Request
from nats.aio.client import Client

from services.edge.errors import Refused
from services.edge.gate import token_of
from shared import rpc
from shared.contracts import Actor, Failure, Operation

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)
HttpRequest = Request[Any, Any, Any]


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


def actor(request: HttpRequest) -> Actor:
    token = token_of(request)
    return Actor(name=token.id, token=token.id, address=request.client.host if request.client else None)

"""Makes a change and waits until it has propagated; creates a token without ever losing its secret."""

import asyncio
import time
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from nats.aio.client import Client

from tallystick.contracts.operation import Failure, Operation
from tallystick.contracts.propagation import SETTLE, Settle
from tallystick.contracts.tokens import CreatedToken, CreateToken, RotateToken
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.rpc.call import call
from tallystick.rpc.server import CLOCKS_S

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

LOOK_UP_S = 0.1


class Propagation(NamedTuple):
    """How many edges acknowledged a change, and how long it took from the request to the last of them."""

    edges: int
    seconds: float


class Creation(NamedTuple):
    """A token was created, or may have been: the holder of the secret must show it.

    Args:
        made: the reply; None if it is unknown whether the token exists.
        everywhere: None if some cache has not confirmed yet that the old secret has changed.
    """

    reply: CreatedToken | None
    propagation: Propagation | None


async def call_and_wait(
    client: Client, operation: Operation[Q, R], request: Q
) -> tuple[R, Propagation] | Failure:
    """Requests a change, and waits until no edge uses anything older: at most for the duration of a lease.

    A failure after the commit is ``unavailable``: its outcome is unknown, as with any lost reply. A retry of the same
    request settles it.
    """
    started = time.monotonic()
    reply = await call(client, operation, request)
    if isinstance(reply, Failure):
        return reply
    propagation = await _settle(client, operation, started)
    return propagation if isinstance(propagation, Failure) else (reply, propagation)


async def create(
    client: Client, operation: Operation[Any, CreatedToken], request: CreateToken | RotateToken
) -> Creation | Failure:
    """Creates a token. A failure means that the token does not exist: if the reply was lost, the token is looked up by
    its digest until the request can no longer be carried out.

    Args:
        client: the connection.
        operation: `CREATE_TOKEN` or `ROTATE_TOKEN`, on either subject.
        request: the request, with the digest of the new secret.
    """
    started = time.monotonic()
    reply: CreatedToken | Failure = await call(client, operation, request)
    created: CreatedToken | None
    if not isinstance(reply, Failure):
        created = reply
    elif not reply.outcome_unknown:
        return reply
    else:
        result = await _look_up(client, operation, request.digest, started)
        if result == "not there":
            return reply
        created = None if result == "unknown" else result
    if not operation.settles:
        return Creation(created, Propagation(0, round(time.monotonic() - started, 6)))
    propagation = await _settle(client, operation, started)
    return Creation(created, None if isinstance(propagation, Failure) else propagation)


async def _look_up(
    client: Client, operation: Operation[Any, CreatedToken], digest: str, started: float
) -> CreatedToken | Literal["not there", "unknown"]:
    """The token, if it exists; ``not there`` if it does not and will not.

    A request is carried out until its deadline and the difference of the clocks have passed, and its transaction then
    takes as long again at most.
    """
    ends = started + 2 * operation.timeout_s + CLOCKS_S + 0.5
    while True:
        verdict = await call(client, VERIFY, VerifyToken(digest=digest))
        is_over = time.monotonic() >= ends
        if not isinstance(verdict, Failure):
            if verdict.token is not None:
                return CreatedToken(token=verdict.token)
            if verdict.refused is not None:
                return "unknown"
            if is_over:
                return "not there"
        elif is_over:
            return "unknown"
        await asyncio.sleep(LOOK_UP_S)


async def _settle(client: Client, operation: Operation[Q, R], started: float) -> Propagation | Failure:
    settle = SETTLE.by_operator if operation.subject == operation.by_operator.subject else SETTLE
    seq: int | None = None
    while True:
        reply = await call(client, settle, Settle(seq=seq))
        if isinstance(reply, Failure):
            return reply
        if reply.settled:
            return Propagation(reply.edges, round(time.monotonic() - started, 6))
        seq = reply.seq

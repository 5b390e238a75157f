"""What the cache and the rate limits need of NATS, and how a connection provides it. A simulation provides its own."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tallystick.contracts.operation import Failure, Operation, Q, R
from tallystick.rpc.call import call
from tallystick.rpc.hedged import Hedged

M = TypeVar("M", bound=msgspec.Struct)


class Transport(Protocol):
    @property
    def is_connected(self) -> bool:
        """Whether a subscription made now reaches the server."""

    async def call(self, operation: Operation[Q, R], request: Q) -> R | Failure:
        """Sends a request once. A reply that does not come in time is a `Failure`, never an exception."""

    async def call_hedged(self, operation: Operation[Q, R], request: Q) -> R | Failure:
        """The same, sent again until a replica answers: only for idempotent requests."""

    async def publish(self, subject: str, message: msgspec.Struct) -> None:
        """Sends a message if it can be sent now, and drops it otherwise."""

    async def subscribe(self, subject: str, kind: type[M], handle: Callable[[M], Awaitable[None]]) -> None:
        """Has each message of a subject handled, in order. One that is not of this kind is ignored."""


class NatsTransport:
    """A `Transport` over a NATS connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hedged = Hedged(client)

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected

    async def call(self, operation: Operation[Q, R], request: Q) -> R | Failure:
        return await call(self._client, operation, request)

    async def call_hedged(self, operation: Operation[Q, R], request: Q) -> R | Failure:
        return await self._hedged.call(operation, request)

    async def publish(self, subject: str, message: msgspec.Struct) -> None:
        with suppress(NatsError, OSError):
            await self._client.publish(subject, msgspec.json.encode(message))

    async def subscribe(self, subject: str, kind: type[M], handle: Callable[[M], Awaitable[None]]) -> None:
        async def receive(message: Msg) -> None:
            try:
                content = msgspec.json.decode(message.data, type=kind)
            except msgspec.MsgspecError:
                return
            await handle(content)

        await self._client.subscribe(subject, cb=receive)

"""Pulls the messages of a JetStream consumer in batches: complete, in order, and the next batch is on its way while one
is counted.

``fetch`` of nats-py awaits each message separately and requests more only when it is called, which costs more than
counting. It also continues after a delivered message was lost with a connection, and takes an event with a header named
``Status`` for a status message of the server.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from tallystick_server.metrics.events import Message
from tallystick_server.runtime.postgres import UNAVAILABLE

MAX_BYTES = 8 << 20
"""Maximum size of one batch. Every message is smaller, so that each request makes progress."""
LINGER_S = 2.0
"""How long the server holds a request that it cannot fill."""
OVER = ("No Messages", "Request Timeout", "Batch Completed", "Message Size Exceeds MaxBytes")
"""Descriptions with which the server ends a request that is done."""


class Interrupted(Exception):
    """The consumer is gone, or a message that it delivered was lost: it has to be created again."""


NOT_NOW: tuple[type[Exception], ...] = (*UNAVAILABLE, NatsError, APIError, Interrupted)
"""Raised while NATS or PostgreSQL is unavailable. Counting resumes from the stored position."""


class Delivered(NamedTuple):
    """Args:
    message: as it stands in the stream.
    reply: the subject that acknowledges it.
    place: its number among the messages of this consumer, without gaps.
    pending: how many messages follow it in the stream.
    """

    message: Message
    reply: str
    place: int
    pending: int


def delivered(received: Msg) -> Delivered:
    """Parses the reply subject (ADR-15), which has two more tokens from newer servers."""
    words = received.reply.split(".")
    seq, place, stored, pending = words[5:9] if len(words) == 9 else words[7:11]
    at = datetime.fromtimestamp(int(stored) / 1e9, UTC)
    message = Message(int(seq), received.subject, received.data, at)
    return Delivered(message, received.reply, int(place), int(pending))


class Delivery:
    """Args:
    client: the connection to NATS.
    consumer: its stream and name, as ``STREAM.CONSUMER``. Nothing else pulls from it.
    batch: maximum number of messages in a batch.
    """

    def __init__(self, client: Client, consumer: str, batch: int) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer}"
        self._batch = batch
        self.inbox = client.new_inbox()
        self._requests = 0
        self._waiting: deque[Delivered] = deque()
        self._ready = asyncio.Event()
        self._place = 0
        self._expected = 0
        self._requested_at = 0.0
        self._clock = asyncio.get_running_loop().time
        self._failure = ""

    async def take(self, timeout_s: float) -> list[Delivered]:
        """The messages that have arrived, at most a batch; none if none arrived in time.

        Raises:
            Interrupted: a message was lost. No message after it was returned.
            nats.errors.Error: NATS is unavailable.
        """
        await self._request_batch()
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            if self._clock() - self._requested_at > LINGER_S + 1:
                self._fail("a request was lost")
        if self._failure:
            raise Interrupted(self._failure)
        batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        if not self._waiting:
            self._ready.clear()
        await self._request_batch()
        return batch

    async def acknowledge(self, last: Delivered) -> None:
        """Acknowledges a message and all before it."""
        await self._client.publish(last.reply)

    async def receive(self, message: Msg) -> None:
        if not message.reply:  # a status message; those of the stream have a subject for the acknowledgement
            self._receive_status(message.subject, (message.headers or {}).get("Description", ""))
            return
        arrived = delivered(message)
        self._place += 1
        if arrived.place != self._place:
            self._fail("a message was lost")
        if self._failure:
            return
        self._waiting.append(arrived)
        self._expected -= 1
        if not arrived.pending or self._expected <= 0 or len(self._waiting) >= self._batch:
            self._ready.set()

    def _receive_status(self, request: str, description: str) -> None:
        if description not in OVER:
            self._fail(description or "no answer")
        elif request == self._request:
            self._expected = 0
            self._ready.set()

    @property
    def _request(self) -> str:
        return f"{self.inbox}.{self._requests}"

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._ready.set()

    async def _request_batch(self) -> None:
        """Requests the next batch, unless one is on its way."""
        if self._expected > 0:
            return
        self._requests += 1
        self._expected, self._requested_at = self._batch, self._clock()
        request = {"batch": self._batch, "max_bytes": MAX_BYTES, "expires": int(LINGER_S * 1e9)}
        await self._client.publish(self._subject, msgspec.json.encode(request), reply=self._request)


@asynccontextmanager
async def delivery(client: Client, consumer: str, batch: int) -> AsyncIterator[Delivery]:
    """Pulls messages from a consumer for as long as the block runs."""
    messages = Delivery(client, consumer, batch)
    subscription = await client.subscribe(f"{messages.inbox}.*", cb=messages.receive)
    try:
        yield messages
    finally:
        with suppress(NatsError):
            await subscription.unsubscribe()

"""What a JetStream consumer delivers: complete, in order, and the next batch on its way while one is counted.

nats-py's own ``fetch`` waits for each message by itself and asks for more only when it is called, which costs more than
counting does. It also goes on when something that was delivered got lost with a connection, and it takes an event whose
sender gave it a header named ``Status`` for word from the server.
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
"""What one request may bring. The next message is always smaller, so that it always brings something."""
LINGER_S = 2.0
"""How long a request waits on the server for its messages."""
OVER = ("No Messages", "Request Timeout", "Batch Completed", "Message Size Exceeds MaxBytes")
"""What the server says of a request that has brought what it could."""


class Interrupted(Exception):
    """The consumer is gone, or something it delivered did not arrive: it has to be created again."""


NOT_NOW: tuple[type[Exception], ...] = (*UNAVAILABLE, NatsError, APIError, Interrupted)
"""What counting meets when NATS or PostgreSQL is away: it goes on from what is stored."""


class Delivered(NamedTuple):
    """Args:
    message: as it stands in the stream.
    reply: where to acknowledge it.
    place: among all that this consumer delivered; they follow each other without holes.
    pending: how many messages the stream holds after it.
    """

    message: Message
    reply: str
    place: int
    pending: int


def delivered(received: Msg) -> Delivered:
    """Reads what the server wrote into the reply subject (ADR-15), which newer servers write in a longer form."""
    words = received.reply.split(".")
    seq, place, stored, pending = words[5:9] if len(words) == 9 else words[7:11]
    at = datetime.fromtimestamp(int(stored) / 1e9, UTC)
    message = Message(int(seq), received.subject, received.data, at)
    return Delivered(message, received.reply, int(place), int(pending))


class Delivery:
    """Args:
    client: the connection to NATS.
    consumer: its name and its stream's, as ``STREAM.CONSUMER``. One that was made for this.
    batch: at most so many messages at once.
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
        self._asked = 0.0
        self._clock = asyncio.get_running_loop().time
        self._wrong = ""

    async def take(self, timeout_s: float) -> list[Delivered]:
        """What there is: at most a batch, and nothing if nothing came in time.

        Raises:
            Interrupted: see there. Nothing that follows the loss was handed out.
            nats.errors.Error: NATS is away.
        """
        await self._ask()
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            if self._clock() - self._asked > LINGER_S + 1:
                self._fail("a request got lost")
        if self._wrong:
            raise Interrupted(self._wrong)
        batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        if not self._waiting:
            self._ready.clear()
        await self._ask()
        return batch

    async def acknowledge(self, last: Delivered) -> None:
        """This and all before it."""
        await self._client.publish(last.reply)

    async def received(self, message: Msg) -> None:
        if not message.reply:  # what stands in the stream comes with a subject for its acknowledgement
            self._said(message.subject, (message.headers or {}).get("Description", ""))
            return
        arrived = delivered(message)
        self._place += 1
        if arrived.place != self._place:
            self._fail("a message got lost on its way")
        if self._wrong:
            return
        self._waiting.append(arrived)
        self._expected -= 1
        if not arrived.pending or self._expected <= 0 or len(self._waiting) >= self._batch:
            self._ready.set()

    def _said(self, request: str, what: str) -> None:
        if what not in OVER:
            self._fail(what or "no answer")
        elif request == self._request:
            self._expected = 0
            self._ready.set()

    @property
    def _request(self) -> str:
        return f"{self.inbox}.{self._requests}"

    def _fail(self, what: str) -> None:
        self._wrong = self._wrong or what
        self._ready.set()

    async def _ask(self) -> None:
        """Has the server send a batch more, unless one is expected."""
        if self._expected > 0:
            return
        self._requests += 1
        self._expected, self._asked = self._batch, self._clock()
        wanted = {"batch": self._batch, "max_bytes": MAX_BYTES, "expires": int(LINGER_S * 1e9)}
        await self._client.publish(self._subject, msgspec.json.encode(wanted), reply=self._request)


@asynccontextmanager
async def delivery(client: Client, consumer: str, batch: int) -> AsyncIterator[Delivery]:
    made = Delivery(client, consumer, batch)
    subscription = await client.subscribe(f"{made.inbox}.*", cb=made.received)
    try:
        yield made
    finally:
        with suppress(NatsError):
            await subscription.unsubscribe()

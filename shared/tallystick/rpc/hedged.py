"""Hedged calls: requests that are sent again until one replica answers."""

import asyncio
from contextlib import suppress

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tallystick.contracts.operation import Failure, Operation
from tallystick.rpc.call import Q, R, decode_reply

HEDGE_S = 0.05


class Hedged:
    """Sends a request again every 50 ms, with the same reply subject, until one replica answers. For requests that may
    be carried out twice.

    A call costs half of what nats-py's own requests do: one future and one timer.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._n = 0

    async def call(self, operation: Operation[Q, R], request: Q) -> R | Failure:
        """As `call` does."""
        loop = asyncio.get_running_loop()
        payload = msgspec.json.encode(request)
        if not self._inbox:
            if not self._client.is_connected:
                return Failure(code="unavailable", message="not connected to NATS")
            # Not earlier: nats-py loses subscriptions that are made before it first connects.
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(f"{self._inbox}.*", cb=self._hear)
        self._n += 1
        reply = f"{self._inbox}.{self._n}"
        future = self._waiting[reply] = loop.create_future()
        ends = loop.time() + operation.timeout_s
        timer: asyncio.TimerHandle | None = None

        def resend() -> None:
            nonlocal timer
            if loop.time() >= ends:
                if not future.done():
                    future.set_exception(TimeoutError())
                return
            timer = loop.call_later(HEDGE_S, resend)
            publishing = asyncio.ensure_future(self._publish(operation.subject, payload, reply))
            publishing.add_done_callback(lambda _: None)

        try:
            await self._client.publish(operation.subject, payload, reply=reply)
            timer = loop.call_later(HEDGE_S, resend)
            return decode_reply(await future, operation)
        except (NatsError, OSError, TimeoutError):
            return Failure(code="unavailable", message="no reply over NATS in time")
        finally:
            if timer is not None:
                timer.cancel()
            del self._waiting[reply]

    async def _publish(self, subject: str, payload: bytes, reply: str) -> None:
        with suppress(NatsError, OSError):
            await self._client.publish(subject, payload, reply=reply)

    async def _hear(self, message: Msg) -> None:
        future = self._waiting.get(message.subject)
        if future is not None and not future.done():
            future.set_result(message)

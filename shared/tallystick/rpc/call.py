"""The client side of request-reply over NATS: typed, bounded in time and size. A rejection is a value."""

import logging
import time
from contextlib import suppress
from typing import TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, Error as NatsError, NoRespondersError, OutboundBufferLimitError
from nats.micro.request import ERROR_CODE_HEADER

from tallystick.contracts.operation import Failure, Operation
from tallystick.rpc import tracing

log = logging.getLogger(__name__)

DEADLINE_HEADER = "Tallystick-Deadline"
"""Unix time in milliseconds after which a request that changes something must not be carried out any more."""
Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


async def call(client: Client, operation: Operation[Q, R], request: Q) -> R | Failure:
    """Sends a request and returns the reply or the failure. A missing reply is ``unavailable``; a request over the
    operation's limit is not sent, and is a ``bad_request``.
    """
    headers = tracing.headers()
    if operation.mutates:
        headers[DEADLINE_HEADER] = str(int((time.time() + operation.timeout_s) * 1000))
    payload = msgspec.json.encode(request)
    if len(payload) > operation.max_bytes:
        return Failure(code="bad_request", message=f"over {operation.max_bytes} bytes")
    try:
        if operation.service == "metrics":
            message = await _request_metrics(client, operation, payload, headers)
        else:
            message = await client.request(
                operation.subject, payload, timeout=operation.timeout_s, headers=headers or None
            )
    except NoRespondersError:
        return Failure(code="unavailable", message="no service answers on this NATS subject")
    except (OutboundBufferLimitError, ConnectionClosedError):
        return Failure(code="unavailable", message="not connected to NATS")
    except (NatsError, OSError, TimeoutError):
        return Failure(code="unavailable", message="no reply over NATS in time", outcome_unknown=True)
    return decode_reply(message, operation)


async def _request_metrics(
    client: Client, operation: Operation[Q, R], payload: bytes, headers: dict[str, str]
) -> Msg:
    """Receives the reply in the part of the inbox that the metrics service may publish to. The rest of the inbox
    receives verdicts, which only the tokens service may publish.
    """
    prefix, _, unique = client.new_inbox().rpartition(".")
    inbox = f"{prefix}.metrics.{unique}"
    replies = await client.subscribe(inbox)
    try:
        await client.publish(operation.subject, payload, reply=inbox, headers=headers or None)
        return await replies.next_msg(operation.timeout_s)
    finally:
        with suppress(NatsError, OSError):
            await replies.unsubscribe()


def decode_reply(message: Msg, operation: Operation[Q, R]) -> R | Failure:
    """The reply or the failure in a message."""
    try:
        if message.headers and message.headers.get("Status") == "503":
            return Failure(code="unavailable", message="no service answers on this NATS subject")
        if message.headers and ERROR_CODE_HEADER in message.headers:
            return msgspec.json.decode(message.data, type=Failure)
        return msgspec.json.decode(message.data, type=operation.reply)
    except msgspec.MsgspecError:
        log.error("a reply on %s does not match its contract", operation.subject)  # noqa: TRY400
        return Failure(code="unavailable", message="the reply could not be decoded", outcome_unknown=True)

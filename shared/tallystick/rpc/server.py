"""The server side of request-reply over NATS: typed, and bounded in time and number.

A failure is answered as NATS services do (ADR-32): the headers ``Nats-Service-Error`` and
``Nats-Service-Error-Code``, with a `Failure` as the body.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import nats.micro
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER, Request
from nats.micro.service import EndpointConfig, EndpointStats, ServiceConfig

from tallystick import VERSION, connection as bus
from tallystick.contracts import validation
from tallystick.contracts.input_limits import without_input
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure, Operation
from tallystick.rpc import batches, tracing
from tallystick.rpc.call import DEADLINE_HEADER

log = logging.getLogger(__name__)
CLOCKS_S = 2.0
"""The default maximum clock skew, in seconds: with more, a request in time counts as late."""
_CODES = {
    "bad_request": "400",
    "invalid_token": "401",
    "insufficient_scope": "403",
    "account_mismatch": "403",
    "address_not_allowed": "403",
    "referrer_not_allowed": "403",
    "exceeds_authority": "403",
    "not_found": "404",
    "conflict": "409",
    "stale": "412",
    "overloaded": "503",
    "unavailable": "503",
}
_KINDS = {
    "bad_request": "bad_request",
    "overloaded": "overloaded",
    "unavailable": "failed",
    "internal": "failed",
}
"""The statistic of each failure code; any other code counts as ``rejected``."""
Handler = Callable[[Any], Awaitable[msgspec.Struct]]
Handlers = Mapping[Operation[Any, Any], Handler]
Inquire = Callable[[Operation[Any, Any], Any], Awaitable[Sequence[FieldError]]]
"""What else is wrong with a decoded request that does not fit its type, as far as only the service can tell."""


async def _ask_nothing(operation: Operation[Any, Any], raw: Any) -> Sequence[FieldError]:
    del operation, raw
    return ()


@asynccontextmanager
async def serve(
    client: Client,
    name: str,
    description: str,
    handlers: Handlers,
    *,
    unavailable: tuple[type[Exception], ...] = (),
    malformed: tuple[type[Exception], ...] = (),
    inquire: Inquire = _ask_nothing,
    limit: int = 256,
    clocks_s: float = CLOCKS_S,
) -> AsyncIterator["Server"]:
    """Answers the operations for as long as the block runs; several processes share the work by queue group.

    Args:
        client: the connection.
        name: the service's name, in ``$SRV`` answers and as the queue group.
        description: the description that ``nats micro list`` shows.
        handlers: for each operation a function from request to reply (or `Failure`).
        unavailable: exceptions that mean that a dependency is unavailable; any other is logged and answered
            ``internal``.
        malformed: exceptions that mean that a value in the request is invalid.
        inquire: adds to the faults of a request that does not match its type.
        limit: how many requests are handled at once; more are answered ``overloaded``.
        clocks_s: how far the callers' clocks may be behind this one's, in seconds.
    """
    server = Server(unavailable, malformed, inquire, limit=limit, clocks_s=clocks_s)
    config = ServiceConfig(
        name=name, version=VERSION, description=description, queue_group=name, stats_handler=server.stats
    )
    service = await nats.micro.add_service(client, config)
    try:
        for operation, handler in handlers.items():
            await service.add_endpoint(
                EndpointConfig(
                    name=operation.name,
                    subject=operation.subject,
                    handler=server.endpoint(operation, handler),
                    metadata={},
                )
            )
        await bus.subscribed(client)
        yield server
    finally:
        # Stop accepting requests, then finish the pending ones: nats-py's drain does not wait for our tasks.
        if client.is_connected:
            await service.stop()
        await server.finish()
        if client.is_connected:
            await client.flush(1)


class Statistics:
    """What ``$SRV.STATS`` says about one endpoint.

    ``nats.micro`` has its own numbers, which are not ours: it measures how long a request takes until it has a task, and
    counts the exceptions that a handler raises, and these raise none.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.last_error = ""
        self.processing_ns = 0
        self.counts = dict.fromkeys(
            (
                "answered",
                "rejected",
                "bad_request",
                "late",
                "failed",
                "overloaded",
                "no_reply",
                "from_jetstream",
            ),
            0,
        )

    @property
    def in_hand(self) -> int:
        return self.requests - sum(self.counts.values())

    def finish(self, began_ns: int, code: str | None, kind: str | None = None) -> None:
        """Counts a request that has been answered or dropped.

        Args:
            began_ns: when it was received, by ``time.perf_counter_ns``.
            code: of the `Failure` that it was answered with; None after a success.
            kind: one of ``counts``, where the code does not say it.
        """
        self.counts[kind or ("answered" if code is None else _KINDS.get(code, "rejected"))] += 1
        self.processing_ns += time.perf_counter_ns() - began_ns
        if code is not None:
            self.errors += 1
            self.last_error = f"{_status(code)}:{code}"

    def replace(self, stats: EndpointStats) -> dict[str, int]:
        """Puts these numbers in the place of the library's, and returns the rest, for the field ``data``."""
        stats.num_requests = self.requests
        stats.num_errors = self.errors
        stats.last_error = self.last_error
        stats.processing_time = self.processing_ns
        stats.average_processing_time = self.processing_ns // max(self.requests, 1)
        return {**self.counts, "in_hand": self.in_hand}


class Server:
    """The requests in hand. Each runs in a task of its own, since nats-py hands them over one at a time."""

    def __init__(
        self,
        unavailable: tuple[type[Exception], ...],
        malformed: tuple[type[Exception], ...],
        inquire: Inquire,
        *,
        limit: int,
        clocks_s: float,
    ) -> None:
        self._inquire = inquire
        self._clocks_s = clocks_s
        self._unavailable = unavailable
        self._malformed = malformed
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self.statistics: dict[str, Statistics] = {}
        """By the operation's name."""

    def stats(self, endpoint: EndpointStats) -> dict[str, int]:
        return self.statistics[endpoint.name].replace(endpoint)

    def endpoint(
        self, operation: Operation[Any, Any], handler: Handler
    ) -> Callable[[Request], Awaitable[None]]:
        decoder = msgspec.json.Decoder(operation.request)
        statistics = self.statistics[operation.name] = Statistics()

        async def handle(request: Request, began_ns: int) -> None:
            tracing.received(request.headers)
            if operation.mutates and self._is_late(request):
                log.warning(
                    "%s arrived after its deadline and was rejected: check the machines' clocks",
                    operation.name,
                )
                reply: msgspec.Struct = Failure(
                    code="unavailable", message="the request arrived after its deadline"
                )
                statistics.finish(began_ns, await _answer(request, reply), "late")
                return
            reply = await self._reply(request, operation, decoder, handler)
            statistics.finish(began_ns, await _answer(request, reply))

        async def take(request: Request) -> None:
            began_ns = time.perf_counter_ns()
            statistics.requests += 1
            if not request._msg.reply:  # noqa: SLF001  # nats.micro has no name for it
                statistics.finish(began_ns, "bad_request", "no_reply")
            elif _is_from_jetstream(request._msg):  # noqa: SLF001
                if not request._msg.reply.startswith("$JS."):  # noqa: SLF001
                    await _answer(
                        request, Failure(code="bad_request", message="a header that only NATS may set")
                    )
                statistics.finish(began_ns, "bad_request", "from_jetstream")
            elif len(self._tasks) >= self._limit:
                reply = Failure(code="overloaded", message="too many pending requests")
                statistics.finish(began_ns, await _answer(request, reply))
            else:
                task = asyncio.create_task(handle(request, began_ns))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return take

    async def finish(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    async def _reply(
        self,
        request: Request,
        operation: Operation[Any, Any],
        decoder: msgspec.json.Decoder[Any],
        handler: Handler,
    ) -> msgspec.Struct:
        try:
            async with asyncio.timeout(operation.timeout_s):
                return await self._decode_and_handle(request.data, operation, decoder, handler)
        except TimeoutError:
            return Failure(
                code="unavailable", message="the deadline passed", outcome_unknown=operation.mutates
            )
        except self._unavailable as error:
            log.warning("%s: unavailable: %s", operation.name, type(error).__name__)
            return Failure(
                code="unavailable", message="a dependency is unavailable", outcome_unknown=operation.mutates
            )
        except self._malformed as error:
            log.warning("%s: invalid value: %s", operation.name, type(error).__name__)
            return Failure(code="bad_request", message="a value is out of range, or holds a NUL character")
        except Exception:
            log.exception("%s failed", operation.name)
            return Failure(
                code="internal",
                message="internal error: see the service's log",
                outcome_unknown=operation.mutates,
            )

    async def _decode_and_handle(
        self,
        data: bytes,
        operation: Operation[Any, Any],
        decoder: msgspec.json.Decoder[Any],
        handler: Handler,
    ) -> msgspec.Struct:
        if len(data) > operation.max_bytes:
            return Failure(code="bad_request", message=f"over {operation.max_bytes} bytes")
        try:
            decoded = decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            is_json = isinstance(error, msgspec.ValidationError)
            faults = tuple(await self._faults(data, operation)) if is_json else ()
            return Failure(code="bad_request", message=without_input(str(error)), errors=faults)
        return await handler(decoded)

    async def _faults(self, data: bytes, operation: Operation[Any, Any]) -> list[FieldError]:
        """Everything that is wrong with a request that is JSON; its decoder stops at the first fault."""
        try:
            raw = msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return []
        faults = validation.problems(raw, operation.request)
        return validation.with_others(faults, await self._inquire(operation, raw))

    def _is_late(self, request: Request) -> bool:
        deadline = (request.headers or {}).get(DEADLINE_HEADER, "")
        # Another language's caller may leave the deadline out; then its request is as good as its arrival.
        readable = deadline.isascii() and deadline.isdecimal() and len(deadline) < 20
        return readable and (time.time() - self._clocks_s) * 1000 > int(deadline)


def _is_from_jetstream(message: Msg) -> bool:
    """Whether JetStream delivered this message. JetStream acts with the permissions of its account, so a user without
    permission for this operation could have caused it: a stored event must not become a request.
    """
    return message.reply.startswith("$JS.") or any(
        # The NATS server adds this header for a service in another account.
        name.lower().startswith("nats-") and name.lower() != "nats-request-info"
        for name in message.headers or ()
    )


async def _answer(request: Request, reply: msgspec.Struct) -> str | None:
    """Sends the reply. Returns the code of the failure that was sent; None for a success."""
    headers = None
    code = reply.code if isinstance(reply, Failure) else None
    if code is not None:
        headers = {ERROR_CODE_HEADER: _status(code), ERROR_HEADER: code}
    payload = msgspec.json.encode(reply)
    if len(payload) > batches.MAX_MESSAGE_BYTES:
        log.error("a reply of %d bytes exceeds the limit of a message", len(payload))
        return await _answer(
            request, Failure(code="internal", message="the reply exceeds the limit of a message")
        )
    try:
        await request.respond(payload, headers=headers)
    except (NatsError, OSError) as error:
        log.warning("a reply could not be sent: %s", type(error).__name__)
        return "unavailable"
    return code


def _status(code: str) -> str:
    return _CODES.get(code, "500")

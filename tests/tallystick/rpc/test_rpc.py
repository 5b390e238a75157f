import asyncio
import contextvars
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.contracts.messages import Message
from tallystick.contracts.operation import Failure, Operation
from tallystick.rpc import tracing
from tallystick.rpc.call import DEADLINE_HEADER, call
from tallystick.rpc.server import CLOCKS_S, serve
from tallystick_server.runtime import logging as logs
from tests.support.polling import until_async

PAUSE_S = 0.05


class EchoRequest(Message, frozen=True):
    text: str


class EchoReply(Message, frozen=True):
    text: str


ECHO = Operation("tallystick.v1.tokens.echo", EchoRequest, EchoReply)
CHANGE = Operation("tallystick.v1.operator.echo", EchoRequest, EchoReply, mutates=True)


class DependencyDown(Exception):
    pass


@pytest.fixture
async def server_client(nats_server):
    """The NATS connection of the server."""
    async with bus.connect(nats_server.tokens, "tokens", wait_s=10) as client:
        yield client


async def echo(request: EchoRequest) -> EchoReply | Failure:
    match request.text:
        case "fail":
            raise ValueError("a secret in an exception")
        case "away":
            raise DependencyDown
        case "no":
            return Failure(code="not_found", message="no")
        case "long":
            return EchoReply(text="x" * 2_000_000)
        case "pause":
            await asyncio.sleep(PAUSE_S)
        case "slow":
            await asyncio.Event().wait()
    return EchoReply(text=request.text)


@pytest.fixture
async def server(server_client):
    async with serve(
        server_client, "echo", "answers", {ECHO: echo, CHANGE: echo}, unavailable=(DependencyDown,), limit=4
    ) as running:
        yield running


async def test_a_reply_is_typed_and_a_failure_is_a_value(server, operator):
    assert await call(operator, ECHO, EchoRequest(text="hello")) == EchoReply(text="hello")
    failure = await call(operator, ECHO, EchoRequest(text="no"))
    assert isinstance(failure, Failure)
    assert failure.code == "not_found"


async def test_a_failure_has_the_error_headers_of_nats_services(server, operator):
    message = await operator.request(ECHO.subject, b'{"text":"no"}', timeout=10)
    assert message.headers == {"Nats-Service-Error": "not_found", "Nats-Service-Error-Code": "404"}


async def test_the_reply_to_an_exception_does_not_contain_its_text(server, operator):
    message = await operator.request(ECHO.subject, b'{"text":"fail"}', timeout=10)
    assert b"secret" not in message.data
    assert msgspec.json.decode(message.data)["code"] == "internal"


async def test_a_request_that_cannot_be_decided_is_unavailable(server, operator):
    for text in ("away", "slow"):
        failure = await call(operator, ECHO, EchoRequest(text=text))
        assert isinstance(failure, Failure)
        assert failure.code == "unavailable"


async def test_a_call_without_responders_is_unavailable_at_once(operator):
    started = time.monotonic()
    failure = await call(operator, ECHO, EchoRequest(text="x"))
    assert isinstance(failure, Failure)
    assert failure.code == "unavailable"
    assert time.monotonic() - started < ECHO.timeout_s


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"text":1}', b"{}", b"[" * 60_000, b'"' + b"x" * 65_536 + b'"'],
)
async def test_a_malformed_request_is_a_bad_request(server, operator, payload):
    message = await operator.request(ECHO.subject, payload, timeout=10)
    assert msgspec.json.decode(message.data)["code"] == "bad_request"


async def test_unknown_fields_are_ignored(server, operator):
    message = await operator.request(ECHO.subject, b'{"text":"x","new":1}', timeout=10)
    assert message.data == b'{"text":"x"}'


async def test_a_request_without_a_reply_subject_is_counted(server, operator):
    await operator.publish(ECHO.subject, b'{"text":"x"}')
    await until_async(lambda: server.statistics[ECHO.name].counts["no_reply"] == 1)
    stats = await statistics(operator, ECHO.name)
    assert (stats["num_requests"], stats["num_errors"], stats["last_error"]) == (1, 1, "400:bad_request")


async def reply_to_a_change_late_by(operator: Client, late_s: float):
    headers = {DEADLINE_HEADER: str(int((time.time() - late_s) * 1000))}
    message = await operator.request(CHANGE.subject, b'{"text":"x"}', timeout=1, headers=headers)
    return msgspec.json.decode(message.data)


async def test_a_change_after_its_deadline_is_not_carried_out(server, operator):
    reply = await reply_to_a_change_late_by(operator, CLOCKS_S + 1)
    assert reply["code"] == "unavailable"
    stats = await statistics(operator, CHANGE.name)
    assert stats["data"] == {**NO_REQUESTS, "late": 1, "in_hand": 0}
    assert (stats["num_errors"], stats["last_error"]) == (1, "503:unavailable")


async def test_a_small_clock_skew_is_tolerated(server, operator):
    assert await reply_to_a_change_late_by(operator, CLOCKS_S - 1) == {"text": "x"}


async def test_the_request_id_and_the_trace_are_propagated(server, operator):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    tracing.begin("req_1", trace)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logs.formatter("tokens", "json").format(record))  # type: ignore[method-assign]
    logging.getLogger("tallystick.rpc").addHandler(handler)
    try:
        await operator.request(ECHO.subject, b'{"text":"fail"}', timeout=1, headers=tracing.headers())
    finally:
        logging.getLogger("tallystick.rpc").removeHandler(handler)
    (line,) = map(msgspec.json.decode, lines)
    assert (line["request"], line["trace"]) == ("req_1", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert "Traceback" in line["exception"]


@pytest.mark.parametrize("trace", ["x\ny", "00-" + "0" * 31, "", "é" * 55])
def test_an_invalid_trace_is_not_propagated(trace):
    contextvars.copy_context().run(check_invalid_trace, trace)


def check_invalid_trace(trace: str) -> None:
    tracing.begin("req_2", trace)
    assert tracing.headers() == {tracing.REQUEST_HEADER: "req_2"}


async def send(client: Client, text: str) -> EchoReply | Failure:
    return await call(client, ECHO, EchoRequest(text=text))


async def test_above_the_limit_a_request_is_overloaded(server, operator):
    pending = [asyncio.create_task(send(operator, "slow")) for _ in range(4)]
    await until_async(lambda: server.statistics[ECHO.name].in_hand == 4)
    failure = await call(operator, ECHO, EchoRequest(text="x"))
    assert isinstance(failure, Failure)
    assert failure.code == "overloaded"
    await asyncio.gather(*pending)
    stats = await statistics(operator, ECHO.name)
    assert (stats["num_requests"], stats["num_errors"]) == (5, 5)
    assert stats["data"] == {**NO_REQUESTS, "overloaded": 1, "failed": 4, "in_hand": 0}


async def test_services_can_be_discovered(server, operator):
    for verb in ("PING", "INFO", "STATS"):
        message = await operator.request(f"$SRV.{verb}.echo", timeout=10)
        reply = msgspec.json.decode(message.data)
        assert (reply["name"], reply["metadata"]) == ("echo", {})
        # ADR-32 requires an object for metadata, which may be empty, and no null.
        assert all(endpoint.get("metadata", {}) == {} for endpoint in reply.get("endpoints", ()))


async def statistics(operator: Client, endpoint: str) -> dict[str, Any]:
    """The ``$SRV.STATS`` of one endpoint, once no request is in progress."""
    while True:
        reply = msgspec.json.decode((await operator.request("$SRV.STATS.echo", timeout=10)).data)
        (stats,) = (
            endpoint_stats for endpoint_stats in reply["endpoints"] if endpoint_stats["name"] == endpoint
        )
        if not stats["data"]["in_hand"]:
            return dict(stats)


NO_REQUESTS = dict.fromkeys(
    ("answered", "rejected", "bad_request", "late", "failed", "overloaded", "no_reply", "from_jetstream"), 0
)


@pytest.mark.parametrize(
    ("texts", "counts", "last_error"),
    [
        ([], {}, ""),
        (["x", "y"], {"answered": 2}, ""),
        (["no"] * 3 + ["x"], {"rejected": 3, "answered": 1}, "404:not_found"),
        (["fail", "x"], {"failed": 1, "answered": 1}, "500:internal"),
        (["no", "away"], {"failed": 1, "rejected": 1}, "503:unavailable"),
        (["away", "long"], {"failed": 2}, "500:internal"),
        (["fail", 1], {"failed": 1, "bad_request": 1}, "400:bad_request"),
    ],
    ids=str,
)
async def test_requests_and_errors_are_counted_by_endpoint(server, operator, texts, counts, last_error):
    """ADR-32: an error is a reply with the error headers, or no reply."""
    for text in texts:
        await operator.request(ECHO.subject, msgspec.json.encode({"text": text}), timeout=10)
    stats = await statistics(operator, ECHO.name)
    assert stats["num_requests"] == len(texts)
    assert stats["num_errors"] == len(texts) - counts.get("answered", 0)
    assert stats["last_error"] == last_error
    assert stats["data"] == {**NO_REQUESTS, **counts, "in_hand": 0}
    assert stats["average_processing_time"] == stats["processing_time"] // max(len(texts), 1)
    other = await statistics(operator, CHANGE.name)
    assert (other["num_requests"], other["num_errors"], other["processing_time"]) == (0, 0, 0)
    assert other["data"] == {**NO_REQUESTS, "in_hand": 0}


async def test_processing_time_ends_with_the_reply(server, operator):
    """It includes the handler, which `nats.micro` does not wait for."""
    for _ in range(2):
        await call(operator, ECHO, EchoRequest(text="pause"))
    stats = await statistics(operator, ECHO.name)
    assert 2 * PAUSE_S * 1e9 <= stats["processing_time"] < 1e10
    assert PAUSE_S * 1e9 <= stats["average_processing_time"] == stats["processing_time"] // 2


async def test_a_service_reports_its_start_time(server, operator):
    reply = msgspec.json.decode((await operator.request("$SRV.STATS.echo", timeout=10)).data)
    started = datetime.fromisoformat(reply["started"])
    assert started.utcoffset() == timedelta()
    assert timedelta(seconds=-1) < datetime.now(UTC) - started < timedelta(seconds=30)


async def test_a_second_and_a_late_reply_are_ignored(server_client, operator):
    requests = []

    async def reply_twice(message) -> None:
        requests.append(message)
        if b"late" not in message.data:
            await message.respond(b'{"text":"first"}')
            await message.respond(b'{"text":"second"}')

    await server_client.subscribe(ECHO.subject, cb=reply_twice)
    await bus.subscribed(server_client)
    late = await call(operator, ECHO, EchoRequest(text="late"))
    assert isinstance(late, Failure)
    await requests[0].respond(b'{"text":"late"}')
    for _ in range(3):
        assert await call(operator, ECHO, EchoRequest(text="x")) == EchoReply(text="first")

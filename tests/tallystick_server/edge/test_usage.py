"""Usage is reported in batches: at a steady pace, at any load, and in bounded memory while the service is unavailable."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given, strategies as st

from tallystick import connection as bus
from tallystick.coherence import usage as module
from tallystick.coherence.transport import NatsTransport
from tallystick.coherence.usage import Usage, as_message
from tallystick.contracts.metrics import EXPOSITION, AskExposition, Exposition
from tallystick.contracts.operation import Failure
from tallystick.contracts.verification import REPORT_USE, RejectedRequest, ReportUse, TokenUsage
from tallystick.rpc.call import call
from tallystick.rpc.server import serve
from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings
from tests.support.services import issue, lifespan

IPV6 = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
ROUTE = "/v1/accounts/{account}/" + "x" * 100
REQUEST = "req_" + "0" * 34


@pytest.fixture
async def edge(nats_server):
    async with bus.connect(nats_server.edge, "edge", wait_s=10) as client:
        yield client


@pytest.fixture
async def tokens(nats_server):
    async with bus.connect(nats_server.tokens, "tokens", wait_s=10) as client:
        yield client


async def test_a_token_in_constant_use_is_reported_once_per_flush(edge, tokens):
    usage = Usage()
    reported: list[int] = []

    async def take(message) -> None:
        reported.append(msgspec.json.decode(message.data, type=ReportUse).uses[0].count)
        usage.record_accepted("tok_a", "192.0.2.1")
        usage.record_accepted("tok_a", "192.0.2.1")
        await message.respond(b"{}")

    await tokens.subscribe(REPORT_USE.subject, cb=take)
    await bus.subscribed(tokens)
    usage.record_accepted("tok_a", "192.0.2.1")
    async with asyncio.timeout(20):
        for _ in range(3):
            await usage.flush(NatsTransport(edge))
    assert reported == [1, 2, 2]


async def test_undelivered_usage_is_bounded_and_its_excess_is_counted(edge, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOKENS", 10)
    monkeypatch.setattr(module, "MAX_REJECTED_REQUESTS", 10)
    usage = Usage()
    sent = 0
    for round_ in range(5):
        for number in range(8):
            token = f"tok_{round_}_{number}"
            usage.record_accepted(token, None)
            sent += 1
            if usage.count_rejection(token, "expired"):
                usage.report_rejection(token, "expired", None, "/auth", None)
            sent += 1
        await usage.flush(NatsTransport(edge))
    uses, refusals = usage._uses, usage._rejected_requests
    assert (len(uses), len(refusals)) == (10, 10)
    assert usage.dropped + sum(use.count for use in uses.values()) + len(refusals) == sent


TEXT = st.one_of(
    st.sampled_from((IPV6, ROUTE, REQUEST, "\x01" * 128, "€" * 500, "\0", "")), st.text(max_size=300)
)
ITEMS = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.text(max_size=40),
        TEXT,
        st.sampled_from(("used", "rate_limited", "expired")),
        TEXT,
    ),
    max_size=40,
)


@given(items=ITEMS)
def test_every_report_is_within_the_limit_and_nothing_is_lost_or_duplicated(items):
    usage = Usage()
    uses: Counter[str] = Counter()
    refusals: Counter[tuple[str, str, str]] = Counter()
    for repeat, name, address, result, route in items:
        for number in range(repeat):
            token = f"{name}_{number}"
            if result == "used":
                usage.record_accepted(token, address)
                uses[token] += 1
            elif usage.count_rejection(token, result):
                usage.report_rejection(token, result, address, route, REQUEST)
                refusals[token, result, route] += 1
    reports = usage.take()
    assert all(len(msgspec.json.encode(as_message(report))) <= REPORT_USE.max_bytes for report in reports)
    reported = [item for report in reports for item in report]
    assert Counter({use.id: use.count for use in reported if isinstance(use, TokenUsage)}) == uses
    assert (
        Counter((item.id, item.reason, item.route) for item in reported if isinstance(item, RejectedRequest))
        == refusals
    )
    assert usage.take() == type(reports)()


def test_reports_are_as_large_as_possible():
    for length in range(200):
        usage = Usage()
        for number in range(1000):
            usage.record_accepted(f"tok_{number:0{length}}", IPV6)
        sizes = [len(msgspec.json.encode(as_message(report))) for report in usage.take()]
        assert len(sizes) > 1
        assert max(sizes) <= REPORT_USE.max_bytes
        assert all(size > REPORT_USE.max_bytes - 400 for size in sizes[:-1])


async def test_usage_larger_than_one_request_is_reported_completely(edge, tokens_service, operator, database):
    usage = Usage()
    tokens = [(await issue(operator, "api"))[1].id for _ in range(25)]
    for number in range(205):
        usage.record_accepted(f"tok_{number:026}", IPV6)
    for token in tokens:
        usage.record_accepted(token, IPV6)
        for _ in range(module.MAX_REJECTED_REQUESTS_PER_TOKEN):
            assert usage.count_rejection(token, "account_mismatch")
            usage.report_rejection(token, "account_mismatch", IPV6, ROUTE, REQUEST)
    await flush_all(usage, edge)
    assert usage.dropped == 0
    assert await count_stored(database, tokens) == (25, 25 * module.MAX_REJECTED_REQUESTS_PER_TOKEN)


async def test_only_rejected_items_are_dropped_and_counted(edge, tokens_service, operator, database, caplog):
    usage = Usage()
    tokens = [(await issue(operator, "api"))[1].id for _ in range(20)]
    for token in tokens:
        usage.record_accepted(token, IPV6)
        usage.report_rejection(token, "expired", IPV6, "/auth", REQUEST)
    usage.report_rejection(tokens[7], "expired", IPV6, "/\0", REQUEST)
    usage.report_rejection(tokens[8], "expired", IPV6, "x" * REPORT_USE.max_bytes, REQUEST)
    usage.report_rejection(tokens[9], "expired", IPV6, "x" * (2 << 20), REQUEST)
    for _ in range(3):
        usage.record_accepted("tok_\0", None)
    await flush_all(usage, edge)
    assert usage.dropped == 3 + 3
    assert await count_stored(database, tokens) == (20, 20)
    assert "dropped the usage of 6 requests" in caplog.text


async def test_dropped_usage_is_a_metric(nats_server, tokens_service, metrics_service, operator, monkeypatch):
    monkeypatch.setattr("tallystick.producer.HEARTBEAT_S", 0.2)
    app: Any = create_app(Settings(nats_url=nats_server.edge))
    async with lifespan(app):
        app._verifier.usage.report_rejection("tok_a", "expired", IPV6, "/\0", REQUEST)
        async with asyncio.timeout(15):
            text = ""
            while "\ntallystick_token_uses_dropped_total 1\n" not in text:
                await asyncio.sleep(0.05)
                reply = await call(operator, EXPOSITION, AskExposition())
                text = reply.text if isinstance(reply, Exposition) else ""


async def test_usage_is_dropped_after_a_bounded_number_of_rejected_requests(edge, tokens):
    requests = 0

    async def reject(_: ReportUse) -> Failure:
        nonlocal requests
        requests += 1
        return Failure(code="internal")

    usage = Usage()
    for number in range(2000):
        usage.record_accepted(f"tok_{number:026}", IPV6)
    async with serve(tokens, "tallystick-tokens", "rejects", {REPORT_USE: reject}):
        await usage.flush(NatsTransport(edge))
    assert usage.dropped == 2000
    assert requests < 2 * module.MAX_REJECTED_REPORTS
    assert not usage.take()


async def test_a_cancelled_flush_keeps_unreported_usage(edge, tokens):
    request_arrived = asyncio.Event()

    async def never_reply(_message) -> None:
        request_arrived.set()

    await tokens.subscribe(REPORT_USE.subject, cb=never_reply)
    await bus.subscribed(tokens)
    usage = Usage()
    usage.record_accepted("tok_a", None)
    usage.report_rejection("tok_a", "expired", None, "/auth", REQUEST)
    flushing = asyncio.create_task(usage.flush(NatsTransport(edge)))
    await asyncio.wait_for(request_arrived.wait(), 5)
    usage.record_accepted("tok_a", None)
    flushing.cancel()
    await asyncio.wait([flushing])
    (report,) = usage.take()
    assert [(type(item), getattr(item, "count", 1)) for item in report] == [
        (TokenUsage, 2),
        (RejectedRequest, 1),
    ]


def test_memory_for_rejections_by_token_is_bounded():
    usage = Usage()
    for number in range(20 * module.MAX_REJECTED_REQUESTS):
        if usage.count_rejection(f"tok_{number}", "rate_limited"):
            usage.report_rejection(f"tok_{number}", "rate_limited", IPV6, ROUTE, REQUEST)
    assert len(usage._rejected_by_token) == len(usage._rejected_requests) == module.MAX_REJECTED_REQUESTS
    assert usage.dropped == 19 * module.MAX_REJECTED_REQUESTS


async def flush_all(usage: Usage, client) -> None:
    """Flushes until all usage is reported."""
    async with asyncio.timeout(30):
        await usage.flush(NatsTransport(client))
        while usage._uses or usage._rejected_requests:
            await asyncio.sleep(0.01)
            await usage.flush(NatsTransport(client))


async def count_stored(database, tokens: list[str]) -> tuple[int, int]:
    """Returns how many of the tokens are stored as used once, and how many rejections their logs contain."""
    connection = await asyncpg.connect(database.tokens)
    try:
        used = await connection.fetchval(
            "select count(*) from tokens.token where id = any($1) and uses = 1 and last_ip = $2", tokens, IPV6
        )
        refusals = await connection.fetchval(
            "select count(*) from tokens.refusal where token = any($1)", tokens
        )
    finally:
        await connection.close()
    return used, refusals

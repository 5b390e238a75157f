"""What was let in is reported in batches: at its own pace, whatever comes, and bounded while nobody listens."""

import asyncio

import msgspec
import pytest

from services.edge import usage as module
from services.edge.usage import Usage
from shared import bus
from shared.contracts import REPORT_USE, ReportUse
from shared.lifecycle import Stop


@pytest.fixture
async def edge(nats_server):
    async with bus.connect(nats_server.edge, "edge", Stop(), wait_s=10) as client:
        yield client


@pytest.fixture
async def tokens(nats_server):
    async with bus.connect(nats_server.tokens, "tokens", Stop(), wait_s=10) as client:
        yield client


async def test_a_token_in_use_all_the_time_is_reported_once_each_time(edge, tokens):
    usage = Usage()
    reported: list[int] = []

    async def take(message) -> None:
        reported.append(msgspec.json.decode(message.data, type=ReportUse).uses[0].count)
        usage.used("tok_a", "192.0.2.1")
        usage.used("tok_a", "192.0.2.1")
        await message.respond(b"{}")

    await tokens.subscribe(REPORT_USE.subject, cb=take)
    await bus.subscribed(tokens)
    usage.used("tok_a", "192.0.2.1")
    async with asyncio.timeout(5):
        for _ in range(3):
            await usage.flush(edge)
    assert reported == [1, 2, 2]


async def test_what_nobody_takes_is_kept_in_bounds_and_none_of_it_uncounted(edge, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOKENS", 10)
    monkeypatch.setattr(module, "MAX_REFUSALS", 10)
    usage = Usage()
    sent = 0
    for round_ in range(5):
        for number in range(8):
            token = f"tok_{round_}_{number}"
            usage.used(token, None)
            sent += 1
            if usage.refused(token, "expired"):
                usage.note(token, "expired", None, "/auth", None)
            sent += 1
        await usage.flush(edge)
    uses, refusals = usage._uses, usage._refusals
    assert (len(uses), len(refusals)) == (10, 10)
    assert usage.dropped + sum(each.count for each in uses.values()) + len(refusals) == sent

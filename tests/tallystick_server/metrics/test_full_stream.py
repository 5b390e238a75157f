"""Counted events are removed to make room for new ones, and the stream has the configured limits."""

import asyncio

import msgspec
import pytest
from hypothesis import given, strategies as st
from nats.js.errors import APIError

from tallystick import connection as bus
from tallystick.contracts.events import EVENTS_STREAM
from tallystick.contracts.metrics import EXPOSITION, AskExposition
from tallystick.metrics import catalogue
from tallystick.producer import STREAM_FULL
from tallystick_server.metrics import app, consumer, reconciliation
from tallystick_server.metrics.consumer import NEARLY_FULL, Stream, ensure_stream, removable
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.runtime.settings import SettingsError
from tests.support.counting import counted, send
from tests.support.services import metrics_settings, running

LIMIT = 4_000_000


@given(
    first=st.integers(1, 50),
    messages=st.integers(1, 1000),
    size=st.integers(100, 65_536),
    counted=st.integers(0, 1100),
    recounted=st.integers(0, 1100),
    limit=st.integers(1 << 20, 1 << 26),
)
def test_only_counted_events_are_removed(
    *, first: int, messages: int, size: int, counted: int, recounted: int, limit: int
):
    stream = Stream(first, first + messages - 1, messages, messages * size)
    counted = min(counted, stream.last_seq)
    recounted = min(recounted, counted)
    before = removable(stream, counted, recounted, limit)
    if before == 0:
        return
    assert stream.bytes > limit / 2
    assert first < before <= counted, "the last counted message stays"
    if before > recounted:
        assert stream.bytes > NEARLY_FULL * limit
    assert (stream.last_seq - before + 1) * size >= min(limit / 4 - size, stream.bytes), (
        "not more than needed"
    )


def test_a_full_stream_of_counted_events_is_reduced_to_a_quarter():
    assert removable(Stream(1, 100, 100, 51), 100, 100, 100) == 100 - 49
    assert removable(Stream(1, 100, 100, 50), 100, 100, 100) == 0
    assert removable(Stream(1, 100, 100, 80), 100, 10, 100) == 10
    assert removable(Stream(1, 100, 100, 95), 100, 10, 100) == 100 - 26
    assert removable(Stream(1, 100, 100, 95), 20, 10, 100) == 20
    assert removable(Stream(1, 100, 100, 100), 0, 0, 100) == 0


@pytest.fixture
async def small_stream(database, nats_server, operator, monkeypatch):
    """The metrics service with a stream of LIMIT bytes and frequent housekeeping."""
    monkeypatch.setattr(consumer, "HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr(reconciliation, "POLL_S", 0.1)
    settings = msgspec.structs.replace(metrics_settings(database, nats_server), stream_max_bytes=LIMIT)
    stop = Shutdown()
    async with running(app.run(settings, stop), stop, operator, EXPOSITION, AskExposition()):
        yield


@pytest.mark.usefixtures("small_stream")
async def test_large_events_are_accepted_indefinitely(stream, operator):
    """Six times the capacity of the stream, sent as fast as it accepts them."""
    for n in range(1, 481):
        async with asyncio.timeout(30):
            while not await stored(stream, n):
                await asyncio.sleep(0.02)
    await counted(
        operator,
        {
            "tallystick_accounts_added_total": 480,
            "tallystick_event_gaps_total": 0,
            catalogue.RECOUNT_DIFFERENCE.name: 0,
            catalogue.COUNTING_REFUSED.name: 0,
        },
    )
    assert 0 < await used_bytes(stream) < LIMIT


@pytest.mark.usefixtures("small_stream")
async def test_events_are_removed_before_the_stream_is_full(stream):
    """Twice the capacity of the stream, no faster than events are removed. None is rejected."""
    for n in range(1, 161):
        assert await stored(stream, n)
        if n % 8 == 0:
            async with asyncio.timeout(30):
                while await used_bytes(stream) > LIMIT / 2:
                    await asyncio.sleep(0.02)


async def used_bytes(stream) -> int:
    state = (await stream.stream_info(EVENTS_STREAM)).state
    return int(state.bytes)


async def stored(stream, n: int) -> bool:
    try:
        await send(stream, "account.added", n, account="big", padding="x" * 50_000)
    except APIError as error:
        if error.err_code != STREAM_FULL:
            raise
        return False
    return True


async def test_changed_limits_are_applied_without_loss(nats_server, stream):
    async with bus.connect(nats_server.events, "events", wait_s=10) as client:
        await ensure_stream(client, max_bytes=8 << 20)
        for n in range(1, 61):
            await send(stream, "account.added", n, account="big", padding="x" * 50_000)
        before = await stream.stream_info(EVENTS_STREAM)
        for limit in (1 << 20, 16 << 20):
            await ensure_stream(client, max_bytes=limit)
            info = await stream.stream_info(EVENTS_STREAM)
            assert info.config.max_bytes == limit
            assert (info.state.first_seq, info.state.last_seq) == (1, 60)
            assert info.created == before.created


@pytest.mark.parametrize("exists", [False, True])
async def test_a_limit_above_the_server_s_is_rejected_and_names_its_setting(exists: bool, nats_server):
    async with bus.connect(nats_server.events, "events", wait_s=10) as client:
        if exists:
            await ensure_stream(client, max_bytes=1 << 20)
        with pytest.raises(SettingsError, match=r"^TALLYSTICK_STREAM_MAX_BYTES .* max_file"):
            await ensure_stream(client, max_bytes=5 << 30, wait_s=10)

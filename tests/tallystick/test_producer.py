"""Events are sent once each and in order, even if NATS is unavailable for a time."""

import asyncio
import json
from pathlib import Path

import nats
import pytest

from tallystick import connection as bus, producer as events
from tallystick.contracts.events import EVENTS_STREAM, AccountState
from tallystick.metrics import catalogue
from tallystick.producer import MAX_DATA_BYTES, Producer
from tallystick_server.metrics.consumer import ensure_stream
from tests.support.polling import until_async
from tests.support.ports import free_port
from tests.support.servers import start_nats


async def stored(url: str) -> list[dict]:
    """All events of the stream."""
    async with bus.connect(url, "jetstream", wait_s=10) as client:
        stream = client.jetstream()
        last = (await stream.stream_info(EVENTS_STREAM)).state.last_seq
        stored_events = [await stream.get_msg(EVENTS_STREAM, seq) for seq in range(1, last + 1)]
        return [json.loads(message.data or b"") for message in stored_events]


async def test_threads_accounts_and_custom_events_are_sent(nats_server, event_stream, service_client):
    async with events.producer(service_client, "service.mailer") as producer:
        async with producer.thread("sender"):
            producer.send("account.state", AccountState(account="alice", state="connected"))
            await producer.put("mail.sent", {"size": 5})
        await producer.drain()
    stored_events = await stored(nats_server.jetstream)
    expected_types = ["thread.started", "account.state", "mail.sent", "thread.stopped"]
    assert [event["type"] for event in stored_events][: len(expected_types)] == expected_types
    assert [event["n"] for event in stored_events] == list(range(1, len(stored_events) + 1))
    assert {(event["source"], event["boot"]) for event in stored_events} == {
        ("service.mailer", stored_events[0]["boot"])
    }
    assert stored_events[2]["data"] == {"size": 5}


@pytest.mark.parametrize("kind", ["mail", "Mail.sent", "mail.sent!", "mail..sent", "", "mail.*"])
async def test_an_invalid_event_type_is_rejected(kind: str, service_client):
    with pytest.raises(ValueError, match="not an event type"):
        Producer(service_client, "service").send(kind, {})


async def test_an_event_that_is_too_large_blocks_nothing(nats_server, event_stream):
    async with (
        bus.connect(nats_server.edge, "edge", wait_s=10) as client,
        events.producer(client, "edge") as producer,
    ):
        with pytest.raises(ValueError, match="more than"):
            producer.send("api.calls", {"text": "x" * MAX_DATA_BYTES})
        for number in range(1500):  # more and longer labels than one event can hold
            producer.recorder.count(catalogue.TOKEN_CHECKS, result=f"{number:0200}")
        producer.report()
        producer.send("api.calls", {"text": "x" * (MAX_DATA_BYTES - 100)})
        await producer.drain()
    stored_events = await stored(nats_server.jetstream)
    assert [event["n"] for event in stored_events] == list(range(1, len(stored_events) + 1))
    counted = [count["value"] for event in stored_events for count in event["data"].get("counters", [])]
    assert counted.count(1) == 1500
    assert sum(event["type"] == "api.calls" for event in stored_events) == 1


async def test_while_nats_is_unavailable_events_wait_or_are_dropped_with_a_gap(tmp_path: Path):
    port = free_port()
    async with start_nats(tmp_path / "nats", port=port) as urls:
        client = await nats.connect(
            urls.service,
            inbox_prefix="_INBOX.service",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            pending_size=0,
            error_cb=ignore,
        )
        async with bus.connect(urls.events, "events", wait_s=10) as metrics:
            await ensure_stream(metrics, max_bytes=1 << 20)
    async with events.producer(client, "service", buffer=5) as producer:
        for number in range(8):
            producer.send("mail.sent", {"number": number})
        waiting = asyncio.create_task(producer.put("mail.sent", {"number": 8}))
        await asyncio.wait({waiting}, timeout=0.1)
        assert not waiting.done()
        async with start_nats(tmp_path / "nats", port=port):
            await asyncio.wait_for(waiting, 10)
            await asyncio.wait_for(producer.drain(), 10)
            stored_events = await stored(urls.jetstream)
            assert [event["data"]["number"] for event in stored_events] == [0, 1, 2, 3, 4, 8]
            assert [event["n"] for event in stored_events] == [1, 2, 3, 4, 5, 9]
            assert producer.dropped == 3
    await client.close()


async def ignore(_: Exception) -> None:
    """NATS is unavailable."""


async def test_an_event_that_nats_denies_is_dropped_counted_and_blocks_nothing(
    nats_server, event_stream, service_client
):
    async with events.producer(service_client, "service") as producer:
        for kind in ("mail.sent", "token.revoked", "account.added", "token.revoked", "mail.sent"):
            producer.send(kind, {})
        # Waiting for an acknowledgement of each denied event would take two seconds.
        await asyncio.wait_for(producer.drain(), 1.5)
        assert producer.dropped == 3
    stored_events = await stored(nats_server.jetstream)
    assert [(event["type"], event["n"]) for event in stored_events] == [("mail.sent", 1), ("mail.sent", 5)]


async def test_a_source_of_another_user_publishes_nothing(nats_server, event_stream, service_client):
    async with events.producer(service_client, "tokens") as producer:
        producer.send("thread.started", {"thread": "t", "type": "worker"})
        await asyncio.wait_for(producer.drain(), 1.5)
        assert producer.dropped == 1
    assert await stored(nats_server.jetstream) == []


async def test_a_client_without_its_inbox_prefix_gets_a_warning(nats_server, event_stream, caplog):
    client = await nats.connect(nats_server.service, error_cb=ignore)
    async with events.producer(client, "service") as producer:
        producer.send("mail.sent", {})
        await until_async(lambda: "inbox_prefix" in caplog.text)
    await client.close()

"""All messages of the stream are counted, whatever they contain and however they are delivered."""

from datetime import UTC, datetime

import msgspec
import pytest
from nats.aio.msg import Msg

from tallystick import connection as bus
from tallystick.contracts.events import EVENTS_STREAM, STREAM_CONSUMER
from tallystick_server.metrics import pull_consumer
from tests.support.counting import counted, send


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.EVENTS.metrics.1.207.11.1764000000123456789.5",
        "$JS.ACK._.hash.EVENTS.metrics.1.207.11.1764000000123456789.5.random",
    ],
)
def test_both_forms_of_the_reply_subject_contain_position_and_time(reply: str):
    message = Msg(_client=None, subject="tallystick.events.a.b", reply=reply, data=b"{}")  # type: ignore[arg-type]
    delivery = pull_consumer.delivered(message)
    assert delivery.message[:3] == (207, "tallystick.events.a.b", b"{}")
    assert delivery.message.stored.replace(microsecond=0) == datetime.fromtimestamp(1764000000, UTC)
    assert (delivery.place, delivery.pending, delivery.reply) == (11, 5, reply)


async def test_messages_that_were_delivered_and_lost_are_counted(
    metrics_service, nats_server, stream, operator
):
    await send(stream, "account.added", 1, account="one")
    await counted(operator, {"tallystick_accounts_added_total": 1})
    # Another client pulls some of the messages, like a connection that breaks before it reads them.
    async with bus.connect(nats_server.jetstream, "jetstream", wait_s=10) as other_client:
        subscription = await other_client.subscribe(other_client.new_inbox())
        pull_request = msgspec.json.encode({"batch": 3, "expires": 5_000_000_000})
        await other_client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{STREAM_CONSUMER}",
            pull_request,
            reply=subscription.subject,
        )
        await other_client.flush()
        for n in range(2, 12):
            await send(stream, "account.added", n, account="more")
        assert (await subscription.next_msg(5)).reply
    await send(stream, "account.added", 12, account="last")
    await counted(operator, {"tallystick_accounts_added_total": 12, "tallystick_event_gaps_total": 0})


async def test_a_message_with_a_status_header_is_an_event(metrics_service, stream, operator):
    for status in ("404", "409", "503", "100"):
        await stream.publish(
            "tallystick.events.tokens.account.added", b'{"data":{"account":"a"}}', headers={"Status": status}
        )
    await counted(operator, {"tallystick_accounts_added_total": 4})


async def test_a_deleted_consumer_is_created_again(metrics_service, stream, operator):
    await send(stream, "account.added", 1, account="one")
    await counted(operator, {"tallystick_accounts_added_total": 1})
    await stream.delete_consumer(EVENTS_STREAM, STREAM_CONSUMER)
    await send(stream, "account.added", 2, account="two")
    await counted(operator, {"tallystick_accounts_added_total": 2})


async def test_more_events_than_one_pull_request_delivers_are_counted(metrics_service, stream, operator):
    padding = "x" * 60_000
    for n in range(1, 201):
        await send(stream, "account.added", n, account="big", padding=padding)
    await counted(operator, {"tallystick_accounts_added_total": 200})

"""What the stream holds is counted in full, whatever a message looks like and whatever becomes of its delivery."""

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
def test_the_reply_subject_tells_place_and_time_in_both_of_its_forms(reply: str):
    message = Msg(_client=None, subject="tallystick.events.a.b", reply=reply, data=b"{}")  # type: ignore[arg-type]
    found = pull_consumer.delivered(message)
    assert found.message[:3] == (207, "tallystick.events.a.b", b"{}")
    assert found.message.stored.replace(microsecond=0) == datetime.fromtimestamp(1764000000, UTC)
    assert (found.place, found.pending, found.reply) == (11, 5, reply)


async def test_what_was_delivered_and_got_lost_is_counted_too(metrics_service, nats_server, stream, operator):
    await send(stream, "account.added", 1, account="one")
    await counted(operator, {"tallystick_accounts_added_total": 1})
    # Somebody else is handed some of what follows, as a connection is that breaks before it reads them.
    async with bus.connect(nats_server.jetstream, "jetstream", wait_s=10) as thief:
        stolen = await thief.subscribe(thief.new_inbox())
        wanted = msgspec.json.encode({"batch": 3, "expires": 5_000_000_000})
        await thief.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{STREAM_CONSUMER}", wanted, reply=stolen.subject
        )
        await thief.flush()
        for n in range(2, 12):
            await send(stream, "account.added", n, account="more")
        assert (await stolen.next_msg(5)).reply
    await send(stream, "account.added", 12, account="last")
    await counted(operator, {"tallystick_accounts_added_total": 12, "tallystick_event_gaps_total": 0})


async def test_a_message_that_looks_like_word_from_the_server_is_an_event(metrics_service, stream, operator):
    for status in ("404", "409", "503", "100"):
        await stream.publish(
            "tallystick.events.tokens.account.added", b'{"data":{"account":"a"}}', headers={"Status": status}
        )
    await counted(operator, {"tallystick_accounts_added_total": 4})


async def test_a_consumer_that_anyone_deletes_is_made_anew(metrics_service, stream, operator):
    await send(stream, "account.added", 1, account="one")
    await counted(operator, {"tallystick_accounts_added_total": 1})
    await stream.delete_consumer(EVENTS_STREAM, STREAM_CONSUMER)
    await send(stream, "account.added", 2, account="two")
    await counted(operator, {"tallystick_accounts_added_total": 2})


async def test_more_than_one_request_may_bring_is_counted(metrics_service, stream, operator):
    padding = "x" * 60_000
    for n in range(1, 201):
        await send(stream, "account.added", n, account="big", padding=padding)
    await counted(operator, {"tallystick_accounts_added_total": 200})

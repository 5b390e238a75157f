"""A replica that hangs delays a caller by milliseconds, not by a timeout."""

import asyncio
import time
from collections import Counter

import msgspec

from tallystick import connection as bus
from tallystick.contracts.operation import Failure
from tallystick.contracts.verification import VERIFY, Verdict, VerifyToken
from tallystick.rpc.hedged import HEDGE_S, Hedged
from tests.support.services import patient


async def test_another_replica_replies_if_one_hangs(nats_server):
    async with (
        bus.connect(nats_server.tokens, "tokens", wait_s=10) as tokens,
        bus.connect(nats_server.edge, "edge", wait_s=10) as edge,
    ):

        async def reply_invalid(message) -> None:
            await message.respond(msgspec.json.encode(Verdict(code="invalid_token")))

        hung_requests: Counter[str] = Counter()

        async def hang(message) -> None:
            hung_requests[message.reply] += 1

        await tokens.subscribe(VERIFY.subject, "replicas", cb=reply_invalid)
        await tokens.subscribe(VERIFY.subject, "replicas", cb=hang)
        await bus.subscribed(tokens)
        hedged = Hedged(edge)
        request = VerifyToken(digest="ab" * 32)
        replies: list[Verdict | Failure] = []

        async def send() -> None:
            reply = await hedged.call(patient(VERIFY), request)
            replies.append(reply)

        async with asyncio.timeout(60):
            await asyncio.gather(*(send() for _ in range(40)))
    assert not [reply for reply in replies if isinstance(reply, Failure)]
    assert hung_requests, "some requests were hedged"
    # Each attempt reaches the replica that hangs with probability 1/2: no request meets it often enough to time out.
    assert max(hung_requests.values()) < VERIFY.timeout_s / HEDGE_S


async def test_a_call_without_responders_fails_at_once(nats_server):
    async with bus.connect(nats_server.edge, "edge", wait_s=10) as edge:
        started = time.monotonic()
        reply = await Hedged(edge).call(VERIFY, VerifyToken(digest="ab" * 32))
        assert isinstance(reply, Failure)
        assert time.monotonic() - started < VERIFY.timeout_s / 2

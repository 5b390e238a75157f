"""A replica that hangs costs a caller milliseconds, not a timeout."""

import asyncio
import time
from collections import Counter

import msgspec

from tallystick import connection as bus
from tallystick.contracts.operation import Failure
from tallystick.contracts.verification import VERIFY, Verdict, VerifyToken
from tallystick.rpc.hedged import HEDGE_S, Hedged
from tests.support.services import patient


async def test_another_replica_answers_for_one_that_hangs(nats_server):
    async with (
        bus.connect(nats_server.tokens, "tokens", wait_s=10) as tokens,
        bus.connect(nats_server.edge, "edge", wait_s=10) as edge,
    ):

        async def answer(message) -> None:
            await message.respond(msgspec.json.encode(Verdict(code="invalid_token")))

        hung: Counter[str] = Counter()

        async def hang(message) -> None:
            hung[message.reply] += 1

        await tokens.subscribe(VERIFY.subject, "replicas", cb=answer)
        await tokens.subscribe(VERIFY.subject, "replicas", cb=hang)
        await bus.subscribed(tokens)
        hedged = Hedged(edge)
        question = VerifyToken(digest="ab" * 32)
        replies: list[Verdict | Failure] = []

        async def ask() -> None:
            reply = await hedged.call(patient(VERIFY), question)
            replies.append(reply)

        async with asyncio.timeout(60):
            await asyncio.gather(*(ask() for _ in range(40)))
    assert not [reply for reply in replies if isinstance(reply, Failure)]
    assert hung, "some were asked again"
    # Each try finds the one that hangs with even odds: as many in a row as fit into a timeout happen to nobody.
    assert max(hung.values()) < VERIFY.timeout_s / HEDGE_S


async def test_nobody_there_is_said_at_once(nats_server):
    async with bus.connect(nats_server.edge, "edge", wait_s=10) as edge:
        began = time.monotonic()
        reply = await Hedged(edge).call(VERIFY, VerifyToken(digest="ab" * 32))
        assert isinstance(reply, Failure)
        assert time.monotonic() - began < VERIFY.timeout_s / 2

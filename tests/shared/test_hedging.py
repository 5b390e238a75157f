"""A replica that hangs costs a caller milliseconds, not a timeout."""

import asyncio
import time

import msgspec

from shared import bus, rpc
from shared.contracts import VERIFY, Failure, Verdict, VerifyToken
from shared.lifecycle import Stop


async def test_another_replica_answers_for_one_that_hangs(nats_server):
    async with (
        bus.connect(nats_server.tokens, "tokens", Stop(), wait_s=10) as tokens,
        bus.connect(nats_server.edge, "edge", Stop(), wait_s=10) as edge,
    ):

        async def answer(message) -> None:
            await message.respond(msgspec.json.encode(Verdict(code="invalid_token")))

        async def hang(message) -> None:
            del message

        await tokens.subscribe(VERIFY.subject, "replicas", cb=answer)
        await tokens.subscribe(VERIFY.subject, "replicas", cb=hang)
        await bus.subscribed(tokens)
        hedged = rpc.Hedged(edge)
        began = time.monotonic()
        question = VerifyToken(digest="ab" * 32)
        found: list[Verdict | Failure] = []

        async def ask() -> None:
            reply = await hedged.call(VERIFY, question)
            found.append(reply)

        await asyncio.gather(*(ask() for _ in range(40)))
        took = time.monotonic() - began
    unanswered = [reply for reply in found if isinstance(reply, Failure)]
    # Each further try finds the one that hangs with even odds: 16 in a row happen to nobody.
    assert unanswered == []
    assert took > rpc.HEDGE_S, "some were asked again"


async def test_nobody_there_is_said_at_once(nats_server):
    async with bus.connect(nats_server.edge, "edge", Stop(), wait_s=10) as edge:
        began = time.monotonic()
        reply = await rpc.Hedged(edge).call(VERIFY, VerifyToken(digest="ab" * 32))
        assert isinstance(reply, Failure)
        assert time.monotonic() - began < VERIFY.timeout_s / 2

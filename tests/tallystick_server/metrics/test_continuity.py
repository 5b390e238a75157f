"""A stream other than the one counted so far is not counted until an operator decides."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tallystick.contracts.events import EVENTS_STREAM
from tallystick.contracts.metrics import COUNTING, RESUME_COUNTING, AskCounting, Counting, ResumeCounting
from tallystick.contracts.operation import Actor
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tallystick_server.metrics import reconciliation
from tallystick_server.metrics.continuity import ObservedStream, Position, digest, discontinuity
from tallystick_server.metrics.events import Message
from tests.support.counting import connected, counted, counters, send, service
from tests.support.servers import Nats, start_nats

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
LAST = Message(7, "tallystick.events.mailer.mail.sent", b"{}", CREATED + timedelta(hours=1))
POSITION = Position(CREATED, 7, digest(LAST))
STREAM = ObservedStream(CREATED, 1, 9, LAST)
EMPTY = ObservedStream(CREATED, 1, 0)
BARE = "tallystick.events.tokens.account.added"


@pytest.mark.parametrize(
    ("position", "observed"),
    [
        (POSITION, STREAM),
        (POSITION, STREAM._replace(last_seq=7)),
        (POSITION, STREAM._replace(first_seq=7)),
        # All counted messages were removed, by age or by hand; those that follow exist.
        (POSITION, STREAM._replace(first_seq=8, message=None)),
        (POSITION, ObservedStream(CREATED, 8, 7)),
        # Nothing is counted yet: a new stream, and one that started at its 8th message when counting started.
        (Position(CREATED, 0, None), EMPTY),
        (Position(CREATED, 0, None), STREAM._replace(message=None)),
        (Position(CREATED, 7, None), ObservedStream(CREATED, 8, 9)),
        # Counted by a version that stored no digest of the message.
        (POSITION._replace(digest=None), STREAM),
    ],
)
def test_the_counted_stream_is_recognized(position: Position, observed: ObservedStream):
    assert discontinuity(position, observed) is None


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (STREAM._replace(created=CREATED + timedelta(microseconds=1)), "recreated"),
        (EMPTY._replace(created=CREATED + timedelta(days=1)), "recreated"),
        (EMPTY, "older copy"),
        (STREAM._replace(last_seq=6, message=None), "older copy"),
        (STREAM._replace(message=LAST._replace(payload=b"{ }")), "grown"),
        (STREAM._replace(message=LAST._replace(subject=LAST.subject + "s")), "grown"),
        (STREAM._replace(message=LAST._replace(stored=LAST.stored + timedelta(microseconds=1))), "grown"),
        (STREAM._replace(message=LAST._replace(seq=8)), "missing"),
        (STREAM._replace(message=None), "missing"),
        (STREAM._replace(first_seq=9, message=None), "uncounted"),
        (ObservedStream(CREATED, 10, 9), "uncounted"),
    ],
)
def test_any_other_stream_is_a_discontinuity(observed: ObservedStream, reason: str):
    assert reason in (discontinuity(POSITION, observed) or "")


async def state(operator) -> Counting:
    reply = await call(operator, COUNTING, AskCounting())
    assert isinstance(reply, Counting), reply
    return reply


async def until_halted(operator, word: str) -> None:
    async with asyncio.timeout(15):
        while (await state(operator)).refusal is None:
            await asyncio.sleep(0.02)
    assert word in ((await state(operator)).refusal or "")
    await counted(operator, {catalogue.COUNTING_REFUSED.name: 1})


async def resume(operator) -> None:
    reply = await call(operator, RESUME_COUNTING, ResumeCounting(actor=Actor(name="test")))
    assert not hasattr(reply, "code"), reply
    async with asyncio.timeout(15):
        while (await state(operator)).refusal is not None:
            await asyncio.sleep(0.02)


class Installation:
    """A NATS server on a folder that can be copied while it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder.with_name("copy")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Nats]:
        async with start_nats(self.folder) as urls:
            yield urls

    def back_up(self) -> None:
        shutil.copytree(self.folder, self.copy)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        self.copy.rename(self.folder)


@asynccontextmanager
async def counted_in(installation: Installation, database):
    async with (
        installation.running() as urls,
        connected(urls) as (stream, operator),
        service(database, urls, operator),
    ):
        yield stream, operator


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "nats")


@pytest.fixture(autouse=True)
def frequent_reconciliation(monkeypatch):
    monkeypatch.setattr(reconciliation, "POLL_S", 0.1)


@pytest.mark.parametrize("grown", [0, 40], ids=["shorter than counted", "grown past what was counted"])
async def test_an_older_copy_of_the_stream_is_counted_only_after_an_operator_decides(
    grown: int, database, installation: Installation
):
    async with counted_in(installation, database) as (stream, operator):
        for n in range(1, 6):
            await send(stream, "account.added", n, account="numbered")
            await stream.publish(BARE, b'{"data":{"account":"bare"}}')
        await counted(operator, {"tallystick_accounts_added_total": 10})
    installation.back_up()
    async with counted_in(installation, database) as (stream, operator):
        for n in range(6, 11):
            await send(stream, "account.added", n, account="numbered")
        await counted(operator, {"tallystick_accounts_added_total": 15})
    installation.restore()
    async with installation.running() as urls, connected(urls) as (stream, operator):
        for n in range(11, 11 + grown):
            await send(stream, "account.added", n, account="numbered")
        async with service(database, urls, operator):
            await until_halted(operator, "older copy")
            for n in range(11 + grown, 21 + grown):
                await send(stream, "account.added", n, account="numbered")
            await stream.publish(BARE, b'{"data":{"account":"bare"}}')
            assert (await counters(operator))["tallystick_accounts_added_total"] == 15, "still exposed"
        # The halt survives a restart, although the stream has grown far beyond the position.
        async with service(database, urls, operator):
            await until_halted(operator, "older copy")
            before = await counters(operator)
            assert before["tallystick_accounts_added_total"] == 15
            await resume(operator)
            # 10 numbered events after the copy, those it grew by, and a bare one; no event twice.
            await counted(
                operator,
                {
                    "tallystick_accounts_added_total": 15 + grown + 10 + 1,
                    "tallystick_event_gaps_total": 0,
                    catalogue.COUNTING_REFUSED.name: 0,
                    catalogue.RECOUNT_DIFFERENCE.name: 0,
                },
            )
            after = await counters(operator)
            assert after[catalogue.RECOUNTED.name] >= before[catalogue.RECOUNTED.name]


async def test_a_recreated_stream_is_counted_only_after_an_operator_decides(
    database, nats_server, stream, operator, event_stream
):
    """Dead letters of the old stream have the sequence numbers of new messages."""
    async with service(database, nats_server, operator):
        for _ in range(20):
            await stream.publish(BARE, b"{")
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1, "tallystick_dead_letters_total": 20})
    await stream.delete_stream(EVENTS_STREAM)
    async with service(database, nats_server, operator):
        for _ in range(20):
            await stream.publish(BARE, b"[")
        await stream.publish(BARE, b'{"data":{"account":"bare"}}')
        await send(stream, "account.added", 1, account="x")  # counted already
        await send(stream, "account.added", 2, account="y")
        await until_halted(operator, "recreated")
        await resume(operator)
        await counted(operator, {"tallystick_accounts_added_total": 3, "tallystick_dead_letters_total": 40})
        await counted(
            operator, {"tallystick_event_duplicates_total": 1, catalogue.RECOUNT_DIFFERENCE.name: 0}
        )
    connection = await asyncpg.connect(database.owner)
    assert 20 <= await connection.fetchval("select count(*) from metrics.dead_letter") < 40
    await connection.close()


@pytest.mark.parametrize("by_hand", [True, False])
async def test_the_deletion_of_a_stream_during_counting_is_detected(
    *, by_hand: bool, database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1})
        config = (await stream.stream_info(EVENTS_STREAM)).config
        await stream.delete_stream(EVENTS_STREAM)
        if by_hand:
            await stream.add_stream(config)
        await until_halted(operator, "recreated")
        await send(stream, "account.added", 2, account="x")
        await resume(operator)
        await counted(operator, {"tallystick_accounts_added_total": 2})


async def test_events_counted_by_an_earlier_version_do_not_halt_counting(
    database, nats_server, stream, operator, event_stream
):
    """It moves the position and stores no digest of the message."""
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1})
    for n in (2, 3):
        await send(stream, "account.added", n, account="x")
    last = (await stream.stream_info(EVENTS_STREAM)).state.last_seq
    connection = await asyncpg.connect(database.owner)
    await connection.execute("update metrics.stream_position set seq = $1", last)
    await connection.close()
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 4, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 2, catalogue.COUNTING_REFUSED.name: 0})


async def test_the_removal_of_uncounted_events_is_detected(
    database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1})
    for n in range(2, 6):
        await send(stream, "account.added", n, account="x")
    await stream.purge_stream(EVENTS_STREAM, keep=1)
    async with service(database, nats_server, operator):
        await until_halted(operator, "uncounted")
        await resume(operator)
        await counted(operator, {"tallystick_accounts_added_total": 2, "tallystick_event_gaps_total": 3})


async def test_the_removal_of_a_single_uncounted_event_is_detected(
    database, nats_server, stream, operator, event_stream
):
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1})
    removed = (await stream.publish(BARE, b'{"data":{"account":"bare"}}')).seq
    await send(stream, "account.added", 2, account="x")
    await stream.delete_msg(EVENTS_STREAM, removed)
    async with service(database, nats_server, operator):
        await until_halted(operator, f"does not hold the message {removed}")
        await resume(operator)
        await counted(operator, {"tallystick_accounts_added_total": 2})


async def test_counting_continues_if_all_counted_events_were_removed(
    database, nats_server, stream, operator, event_stream
):
    """As after a week in which no service ran."""
    async with service(database, nats_server, operator):
        await send(stream, "account.added", 1, account="x")
        await counted(operator, {"tallystick_accounts_added_total": 1})
    connection = await asyncpg.connect(database.owner)
    position = await connection.fetchval("select seq from metrics.stream_position")
    await connection.close()
    await stream.purge_stream(EVENTS_STREAM, seq=position + 1)
    await send(stream, "account.added", 2, account="x")
    async with service(database, nats_server, operator):
        await counted(operator, {"tallystick_accounts_added_total": 2, catalogue.COUNTING_REFUSED.name: 0})

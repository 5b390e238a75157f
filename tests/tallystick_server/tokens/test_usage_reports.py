"""Usage reports of edges add up in any order."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg

from tallystick.contracts.messages import Ack
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.tokens import GET_LOG, GetLog, TokenLog
from tallystick.contracts.verification import REPORT_USE, RejectedRequest, ReportUse, TokenUsage
from tallystick.rpc.call import call
from tallystick.tokens.rules import MAX_LOGGED
from tallystick_server.runtime import postgres
from tallystick_server.tokens.store.queries import Store
from tallystick_server.tokens.store.schema import SCHEMA
from tests.support.services import issue

NOW = datetime.now(UTC)


async def test_a_report_that_arrives_after_a_later_one_is_counted(tokens_service, operator, edge, database):
    _, token = await issue(operator, "api")
    client = edge._transport.app._app.state.client
    for number, seconds in ((1, 10), (2, 0), (4, 20), (8, 5)):
        use = TokenUsage(
            id=token.id, count=number, time=NOW + timedelta(seconds=seconds), ip=f"192.0.2.{seconds}"
        )
        assert await call(client, REPORT_USE, ReportUse(uses=(use,), refusals=())) == Ack()
    connection = await asyncpg.connect(database.tokens)
    row = await connection.fetchrow(
        "select uses, last_used, last_ip from tokens.token where id = $1", token.id
    )
    await connection.close()
    assert row is not None
    assert tuple(row) == (15, NOW + timedelta(seconds=20), "192.0.2.20")


async def test_a_rejected_request_that_is_too_large_for_the_log_is_a_bad_request(
    tokens_service, operator, edge
):
    _, token = await issue(operator, "api")
    client = edge._transport.app._app.state.client
    valid = RejectedRequest(id=token.id, time=NOW, reason="expired", address=None, route="/" * MAX_LOGGED)
    long = RejectedRequest(
        id=token.id, time=NOW, reason="expired", address=None, route="/" * (MAX_LOGGED + 1)
    )
    assert await call(client, REPORT_USE, ReportUse(uses=(), refusals=(valid,))) == Ack()
    failure = await call(client, REPORT_USE, ReportUse(uses=(), refusals=(valid, long)))
    assert isinstance(failure, Failure)
    assert failure.code == "bad_request"
    log = await call(operator, GET_LOG.by_operator, GetLog(id=token.id, actor=Actor(name="test")))
    assert isinstance(log, TokenLog)
    assert len(log.refusals) == 1


async def test_a_report_and_a_change_do_not_wait_for_each_other(tokens_service, caller, database):
    """The change locks two chains and goes on to a successor in the first. The report is about that one and the second."""
    first = await caller.create("api")
    successor = await caller.rotate(first, grace=60)
    second = await caller.create("api", by=successor)
    uses = [TokenUsage(id=token.id, count=1, time=NOW, ip=None) for token in (successor, second)]
    async with postgres.pool(database.tokens, schema=SCHEMA, wait_s=10) as pool:
        store = Store(pool)
        async with store.change(Actor(name="test")) as change:
            await change.lock_descendants(first.id)
            report = asyncio.create_task(store.report(uses, ()))
            async with asyncio.timeout(30):
                while not await pool.fetchval("select exists (select from pg_locks where not granted)"):
                    await asyncio.sleep(0.01)
            await change.revoke([first.id, successor.id, second.id])
        await report
        assert await pool.fetchval("select sum(uses) from token") == 2

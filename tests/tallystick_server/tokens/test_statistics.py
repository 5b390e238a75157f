import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import asyncpg
import pytest

from tallystick.contracts.operation import Actor
from tallystick.contracts.tokens import (
    LIST_TOKENS,
    ROTATE_TOKEN,
    CreatedToken,
    ListTokens,
    RotateToken,
    TokenPage,
    TokenState,
)
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.rpc.call import call
from tallystick.tasks import cancel_and_wait
from tallystick.tokens import format as token_format
from tallystick_server.edge.dashboard import filters
from tallystick_server.runtime import postgres
from tallystick_server.tokens import statistics
from tallystick_server.tokens.statistics import Inventory
from tallystick_server.tokens.store import statistics as store
from tests.support.polling import until_async
from tests.support.servers import Database
from tests.support.services import issue


async def counted(database: Database, total: int) -> dict[str, int]:
    """The gauges of the inventory, once it has counted this many tokens."""
    recorder = MetricsRecorder()
    gauges: dict[str, int] = {}

    def has_counted() -> bool:
        for gauge in recorder.take().gauges:
            gauges[
                f"{gauge.name.removeprefix('tallystick_tokens')} {next(iter(gauge.labels.values()))}".strip()
            ] = int(gauge.value)
        return sum(gauges[state] for state in store.STATES) == total

    async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool:
        task = asyncio.create_task(Inventory(pool, recorder).keep())
        await until_async(has_counted)
        await cancel_and_wait(task)
    return gauges


async def test_a_token_is_counted_in_the_state_that_the_dashboard_shows(tokens_service, operator, database):
    """Every combination of the properties that determine a token's state."""
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    combinations = list(
        product(
            (None, now - hour),  # revoked
            (None, now - hour, now + hour, now + timedelta(days=3), now + timedelta(days=90)),  # expires
            (False, True),  # disabled
            (None, now - hour, now + hour),  # not before
            (False, True),  # rotated
        )
    )
    for _ in combinations:
        await issue(operator, "api")
    connection = await asyncpg.connect(database.tokens)
    await connection.execute("set search_path to tokens")
    ids = [row["id"] for row in await connection.fetch("select id from token order by id")]
    for id_, values in zip(ids, combinations, strict=True):
        await connection.execute(
            "update token set revoked = $2, expires = $3, disabled = $4, not_before = $5, rotated_to = case when $6 then id end where id = $1",
            id_,
            *values,
        )
    await connection.close()
    expected = dict.fromkeys(store.STATES, 0)
    states: list[TokenState | None] = [None, "revoked"]  # without a state, all that are not revoked
    for state in states:
        request = ListTokens(actor=Actor(name="test"), page_size=1000, state=state)
        page = await call(operator, LIST_TOKENS.by_operator, request)
        assert isinstance(page, TokenPage)
        for token in page.tokens:
            expected[filters.state(token, now).replace(" ", "_")] += 1
    gauges = await counted(database, len(combinations))
    assert {state: gauges[state] for state in store.STATES} == expected
    assert sum(expected.values()) == len(combinations)
    assert all(expected.values())


@asynccontextmanager
async def inventory(database: Database, recorder: MetricsRecorder | None = None) -> AsyncIterator[None]:
    """Runs an inventory around the block."""
    async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool:
        task = asyncio.create_task(Inventory(pool, recorder or MetricsRecorder()).keep())
        yield
        await cancel_and_wait(task)


@asynccontextmanager
async def connected(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.tokens, server_settings={"search_path": "tokens"})
    yield connection
    await connection.close()


async def test_expired_rows_are_deleted_and_the_others_stay(tokens_service, operator, database):
    """Each table has one row that has just expired and one that has not."""
    _, token = await issue(operator, "api")
    rows = {
        "use_by_day": ("token, day, hours", "$1, (now() - interval '{age} hours')::date, '{{}}'", 24 * 8, 24 * 11),
        "session": ("digest, token, expires", "sha256('{age}'), $1, now() - interval '{age} hours'", -1, 1),
        "sign_in_link": ("digest, token, expires", "sha256('{age}'), $1, now() - interval '{age} hours'", -1, 1),
        "idempotency": (
            "actor, operation, key, request, at",
            "$1, 'x', '{age}', '', now() - interval '{age} hours'",
            23,
            25,
        ),
    }  # fmt: skip
    async with connected(database) as connection:
        await connection.execute("delete from idempotency")
        rows_to_keep: dict[str, Any] = {}
        for table, (columns, values, *ages) in rows.items():
            for age in ages:
                row = await connection.fetchrow(
                    f"insert into {table} ({columns}) values ({values.format(age=age)}) returning *",  # noqa: S608
                    token.id,
                )
                rows_to_keep.setdefault(table, row)
        remaining: dict[str, list[asyncpg.Record]] = {}
        async with inventory(database), asyncio.timeout(30):
            while not remaining or any(len(rest) > 1 for rest in remaining.values()):
                await asyncio.sleep(0.05)
                remaining = {table: await connection.fetch(f"table {table}") for table in rows}
    assert remaining == {table: [row] for table, row in rows_to_keep.items()}


async def round_of(
    pool: postgres.Pool, monkeypatch: pytest.MonkeyPatch, query: str, recorder: MetricsRecorder | None = None
) -> float:
    """The pause of the inventory after a round with this query, in seconds."""
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", pause)
        patched.setattr(store, "_QUERY", query)
        with pytest.raises(asyncio.CancelledError):
            await Inventory(pool, recorder or MetricsRecorder()).keep()
    return float(pauses[0])


async def test_a_count_that_takes_too_long_is_cancelled_until_the_next_round(database, monkeypatch):
    monkeypatch.setattr(store, "COUNT_S", 0.1)
    async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool, asyncio.timeout(30):
        assert await round_of(pool, monkeypatch, "select 1 as x from pg_sleep(60)") > 0


async def test_a_count_may_take_longer_than_a_request(database, monkeypatch):
    recorder = MetricsRecorder()
    requests = {"search_path": "tokens", "statement_timeout": "300"}
    async with asyncpg.create_pool(
        database.tokens, min_size=1, command_timeout=0.3, server_settings=requests
    ) as pool:
        query = 'select 7 as "tallystick_tokens:active" from pg_sleep(0.6)'
        await round_of(pool, monkeypatch, query, recorder)
    assert 7 in {gauge.value for gauge in recorder.take().gauges}


async def test_a_slow_count_runs_less_often(database, monkeypatch):
    async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool:
        slow = await round_of(pool, monkeypatch, "select 1 as x from pg_sleep(0.2)")
        assert slow >= 0.2 / statistics.SHARE
        monkeypatch.setattr(statistics, "SHARE", 100)
        assert await round_of(pool, monkeypatch, "select 1 as x") == statistics.EVERY_S


async def test_a_rotated_token_counts_neither_as_active_nor_as_expiring(tokens_service, operator, database):
    await issue(operator, "api")
    await issue(operator, "api", expires=datetime.now(UTC) + timedelta(days=3))
    before = await counted(database, 2)
    assert (before["active"], before["expiring"]) == (1, 1)
    assert [before[f"_expiring {days}"] for days in store.EXPIRING_DAYS] == [0, 1, 1]
    for _ in range(3):
        _, token = await issue(operator, "api")
        await rotate(operator, token.id)
    after = await counted(database, 8)
    assert after["rotated"] == 3
    assert {name: after[name] for name in after if "expiring" in name} == {
        name: before[name] for name in before if "expiring" in name
    }
    assert after["active"] == 4


async def rotate(operator, id_: str) -> None:
    secret = token_format.new_secret()
    created = await call(
        operator,
        ROTATE_TOKEN.by_operator,
        RotateToken(id=id_, digest=secret.digest, hint=secret.hint, grace=3600, actor=Actor(name="test")),
    )
    assert isinstance(created, CreatedToken), created


async def test_only_tokens_in_use_with_a_longer_lifetime_count_as_expiring_in_use(
    tokens_service, operator, database
):
    now = datetime.now(UTC)
    lifetimes = {
        "used": (now - timedelta(days=27), now - timedelta(days=20)),
        "never used": (now - timedelta(days=27), None),
        "used long ago": (now - timedelta(days=90), now - timedelta(days=40)),
        "made for five days": (now - timedelta(days=2), now),
    }
    for description in lifetimes:
        await issue(operator, "api", description=description, expires=now + timedelta(days=3))
    connection = await asyncpg.connect(database.tokens)
    for description, (created, used) in lifetimes.items():
        await connection.execute(
            "update tokens.token set created = $2, last_used = $3 where description = $1",
            description,
            created,
            used,
        )
    await connection.close()
    gauges = await counted(database, len(lifetimes))
    assert [gauges[f"_expiring {days}"] for days in store.EXPIRING_DAYS] == [0, 4, 4]
    assert [gauges[f"_expiring_in_use {days}"] for days in store.EXPIRING_DAYS] == [0, 1, 0]

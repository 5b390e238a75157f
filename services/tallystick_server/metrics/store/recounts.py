"""The state of reconciliation: a second count, with which the counters are compared."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tallystick.contracts.metrics import Sample
from tallystick.metrics.catalogue import RECOUNT_DIFFERENCE, RECOUNT_TIME, RECOUNTED
from tallystick_server.metrics.series import Labels
from tallystick_server.metrics.store.counts import add, decode_labels
from tallystick_server.metrics.store.positions import NotTheOwner
from tallystick_server.runtime.postgres import Connection, Pool


@dataclass
class RecountState:
    """The second count, and the last message that it read."""

    seq: int
    counters: Counter[tuple[str, Labels]]


async def load_counters(connection: Connection, stream: str) -> tuple[int, Counter[tuple[str, Labels]]]:
    """Loads the position and the counters at it: one statement sees one state.

    Raises:
        NotTheOwner: there is no position; counting restarts.
    """
    rows = await connection.fetch(
        "select seq, name, labels, value from stream_position left join counter on true where stream = $1",
        stream,
        timeout=10,
    )
    if not rows:
        raise NotTheOwner
    return rows[0]["seq"], Counter(
        {(row["name"], decode_labels(row["labels"])): row["value"] for row in rows if row["name"]}
    )


async def load_recount(connection: Connection, stream: str) -> RecountState | None:
    """Loads the second count; None if this stream has none yet."""
    position = await connection.fetchrow(
        "select recount.seq from recount join stream_position using (stream, created) where stream = $1",
        stream,
    )
    if position is None:
        return None
    rows = await connection.fetch("select name, labels, value from recount_counter", timeout=10)
    counters = Counter({(row["name"], decode_labels(row["labels"])): row["value"] for row in rows})
    return RecountState(position["seq"], counters)


async def recount_position(connection: Connection, stream: str) -> int | None:
    """The last message that was recounted; None if none was."""
    seq: int | None = await connection.fetchval(
        "select recount.seq from recount join stream_position using (stream, created) where stream = $1",
        stream,
    )
    return seq


async def begin_recount(connection: Connection, stream: str, without: Iterable[str]) -> None:
    """Starts from the stored counters, without those named ``without``."""
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("delete from recount_source", timeout=60)
        await connection.execute("delete from recount_counter", timeout=60)
        await connection.execute(
            "insert into recount_source select source, boot, n from event_source", timeout=60
        )
        await connection.execute(
            "insert into recount_counter select name, labels, value from counter where name <> all($1)",
            list(without),
            timeout=60,
        )
        await connection.execute(
            "insert into recount (stream, created, seq) select stream, created, seq from stream_position"
            " where stream = $1 on conflict (stream) do update set"
            " created = excluded.created, seq = excluded.seq, difference = null, compared = null",
            stream,
        )


async def recounted_sources(connection: Connection, keys: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    rows = await connection.fetch(
        "select source, boot, n from recount_source join unnest($1::text[], $2::text[]) as wanted (source, boot)"
        " using (source, boot)",
        [source for source, _ in keys],
        [boot for _, boot in keys],
    )
    return {(row["source"], row["boot"]): row["n"] for row in rows}


async def move_recount(connection: Connection, stream: str, before: int, after: int) -> None:
    """Raises:
    NotTheOwner: another process recounts.
    """
    moved = await connection.fetchval(
        "update recount set seq = $3, messages = messages + $3 - $2 where stream = $1 and seq = $2 returning true",
        stream,
        before,
        after,
    )
    if not moved:
        raise NotTheOwner


async def save_recount(
    connection: Connection, sources: dict[tuple[str, str], int], added: Counter[tuple[str, Labels]]
) -> None:
    await connection.execute(
        "insert into recount_source (source, boot, n) select * from unnest($1::text[], $2::text[], $3::bigint[])"
        " on conflict (source, boot) do update set n = excluded.n",
        [source for source, _ in sources],
        [boot for _, boot in sources],
        list(sources.values()),
    )
    await add(connection, "recount_counter", added)


async def save_comparison(connection: Connection, stream: str, seq: int, difference: int) -> None:
    await connection.execute(
        "update recount set difference = $3, compared = now() where stream = $1 and seq = $2",
        stream,
        seq,
        difference,
    )


async def comparison(pool: Pool) -> list[Sample]:
    """The result of the last comparison, as samples; without those that have no value yet."""
    row = await pool.fetchrow(
        "select messages, difference, extract(epoch from compared)::float8 as compared from recount"
    )
    if row is None:
        return []
    values = {
        RECOUNTED.name: row["messages"],
        RECOUNT_DIFFERENCE.name: row["difference"],
        RECOUNT_TIME.name: row["compared"],
    }
    return [
        Sample(name=name, labels={}, value=float(value))
        for name, value in values.items()
        if value is not None
    ]

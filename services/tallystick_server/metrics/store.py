"""The metrics service's storage: every SQL statement it runs. A batch is one transaction."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

import asyncpg

from tallystick.metrics.catalogue import BY_NAME, RECOUNT_DIFFERENCE, RECOUNT_TIME, RECOUNTED
from tallystick_server.metrics.continuity import Found, Position, digest
from tallystick_server.metrics.counters import GAUGE_BYTES, Mentioned, Message, Series, State, Tally, Thread
from tallystick_server.metrics.exposition import Sample
from tallystick_server.metrics.silence import Lease
from tallystick_server.runtime.postgres import Connection, Migration, Pool, migrate, migrations

SCHEMA = "metrics"
MOST_COUNTED = 2**63 - 1
"""Where a counter stays."""
DEAD_LETTERS_KEPT = 10_000
"""The newest ones; a producer gone wrong fills no disk. All are counted."""


def wanted_migrations() -> list[Migration]:
    return migrations(files("tallystick_server.metrics") / "migrations")


async def bring_up_to_date(connection: Connection) -> list[Migration]:
    """Migrates this service's schema and answers what that applied."""
    return await migrate(connection, SCHEMA, wanted_migrations())


class NotTheOwner(Exception):
    """Another process moved the position: this one must stop writing."""


async def lease(connection: Connection, stream: str) -> Lease | None:
    """The owner's last sign of life; None if nobody ever counted."""
    row = await connection.fetchrow(
        "select epoch, seen, seen = '-infinity' as resigned, refusal from stream_position where stream = $1",
        stream,
    )
    return Lease(**row) if row else None


async def begin(connection: Connection, stream: str, created: datetime, seq: int) -> int | None:
    """Makes this process the first owner and answers its epoch; None if another one was faster.

    Args:
        connection: to the database.
        stream: the stream's name.
        created: when it was created.
        seq: up to which it holds nothing.
    """
    epoch: int | None = await connection.fetchval(
        "insert into stream_position (stream, created, seq, epoch, seen) values ($1, $2, $3, 1, now())"
        " on conflict do nothing returning epoch",
        stream,
        created,
        seq,
    )
    return epoch


async def take_over(connection: Connection, stream: str, last: Lease) -> int | None:
    """The epoch of a new owner, which ends those of all before it; None if the owner of this lease lives."""
    epoch: int | None = await connection.fetchval(
        "update stream_position set epoch = epoch + 1, seen = now()"
        " where stream = $1 and epoch = $2 and seen = $3 and refusal is null returning epoch",
        stream,
        last.epoch,
        last.seen,
    )
    return epoch


async def resign(connection: Connection, stream: str, epoch: int) -> None:
    await connection.execute(
        "update stream_position set seen = '-infinity' where stream = $1 and epoch = $2", stream, epoch
    )


async def refuse(connection: Connection, stream: str, epoch: int, reason: str) -> None:
    """Has nobody count until an operator decides."""
    await connection.execute(
        "update stream_position set refusal = $3, refused = now(), seen = '-infinity'"
        " where stream = $1 and epoch = $2",
        stream,
        epoch,
        reason,
    )


async def refusal(pool: Pool) -> str | None:
    """Why nobody counts; None while nothing is to be decided."""
    reason: str | None = await pool.fetchval(
        "select max(refusal) from stream_position where refusal is not null"
    )
    return reason


async def accept(pool: Pool) -> str | None:
    """The operator's decision to count the stream that is there. Answers the refusal that this ended."""
    reason: str | None = await pool.fetchval(
        "with refused as (select stream, refusal from stream_position where refusal is not null for update)"
        " update stream_position set refusal = null, refused = null, start_over = true from refused"
        " where stream_position.stream = refused.stream returning refused.refusal"
    )
    return reason


async def position(connection: Connection, stream: str, epoch: int, found: Found) -> Position:
    """Up to where the stream is counted. If an operator decided so, that is where the stream that is there begins.

    Raises:
        NotTheOwner: another process took over.
    """
    async with connection.transaction():
        starts_over = await connection.fetchval(
            "select start_over from stream_position where stream = $1 and epoch = $2 for update",
            stream,
            epoch,
        )
        if starts_over is None:
            raise NotTheOwner
        if starts_over:
            await connection.execute(
                "update stream_position set start_over = false, created = $2, seq = $3, holes_until = $4, digest = null,"
                # A copy of the same stream repeats what was counted; a new stream repeats nothing.
                " bare_until = case when created = $2 then greatest(bare_until, stored) end where stream = $1",
                stream,
                found.created,
                found.first_seq - 1,
                found.last_seq,
            )
            # The second count is of a former stream now: it begins with the stored counters again.
            await connection.execute("update recount set created = '-infinity' where stream = $1", stream)
        row = await connection.fetchrow(
            "select created, seq, case when digest_seq = seq then digest end as digest, holes_until, bare_until"
            " from stream_position where stream = $1",
            stream,
        )
        if row is None:
            raise NotTheOwner
        return Position(**row)


async def bare_until(connection: Connection, stream: str) -> datetime | None:
    """See `Position`."""
    moment: datetime | None = await connection.fetchval(
        "select bare_until from stream_position where stream = $1", stream
    )
    return moment


async def load(connection: Connection, wanted: Mentioned) -> State:
    state = State()
    if wanted.sources:
        rows = await connection.fetch(
            "select source, boot, n from event_source join unnest($1::text[], $2::text[]) as wanted (source, boot)"
            " using (source, boot)",
            [source for source, _ in wanted.sources],
            [boot for _, boot in wanted.sources],
        )
        state.sources = {(row["source"], row["boot"]): row["n"] for row in rows}
    if wanted.threads:
        rows = await connection.fetch("select * from thread where thread = any($1)", list(wanted.threads))
        state.threads = {row["thread"]: _thread(row) for row in rows}
    if wanted.accounts:
        rows = await connection.fetch(
            "select account, state from account where account = any($1)", list(wanted.accounts)
        )
        state.accounts = {row["account"]: row["state"] for row in rows}
    return state


def _thread(row: asyncpg.Record) -> Thread:
    return Thread(row["type"], row["seen"], row["ended"], row["started"])


async def series(connection: Connection) -> tuple[Series, Series]:
    """The series there are, of counters and of gauges."""
    counters = await connection.fetch("select name, labels from counter where labels <> ''")
    gauges = await connection.fetch("select distinct name, labels from gauge")
    return (
        Series((row["name"], row["labels"]) for row in counters),
        Series(((row["name"], row["labels"]) for row in gauges), budget=GAUGE_BYTES),
    )


async def move(
    connection: Connection, stream: str, epoch: int, before: int, last: Message | None = None
) -> None:
    """Gives a sign of life and moves the position to the last counted message, if there is one.

    Raises:
        NotTheOwner: another process took over, or the position is not where this one left it.
    """
    moved = await connection.fetchval(
        "update stream_position set seen = now(), seq = coalesce($4, seq), digest = coalesce($5, digest),"
        " digest_seq = coalesce($4, digest_seq), stored = coalesce($6, stored) where stream = $1 and epoch = $2 and seq = $3 returning true",
        stream,
        epoch,
        before,
        last.seq if last else None,
        digest(last) if last else None,
        last.stored if last else None,
    )
    if not moved:
        raise NotTheOwner


async def save(connection: Connection, stream: str, state: State, tally: Tally) -> None:
    """Writes what a batch changed; most batches change little of what there is."""
    if state.sources:
        await connection.execute(
            "insert into event_source (source, boot, n) select * from unnest($1::text[], $2::text[], $3::bigint[])"
            " on conflict (source, boot) do update set n = excluded.n, seen = now()",
            [source for source, _ in state.sources],
            [boot for _, boot in state.sources],
            list(state.sources.values()),
        )
    if state.threads:
        await _save_threads(connection, state.threads)
    if state.accounts:
        await _save_accounts(connection, state.accounts)
    await _save_tally(connection, tally)
    if tally.dead_letters:
        await connection.executemany(
            "insert into dead_letter (stream, seq, subject, payload, reason) values ($1, $2, $3, $4, $5)"
            # A stream that was recreated numbers its messages anew.
            " on conflict (stream, seq) do update set subject = excluded.subject, payload = excluded.payload,"
            " reason = excluded.reason, at = now()",
            [
                (stream, message.seq, _storable(message.subject), message.payload[:65536], _storable(reason))
                for message, reason in tally.dead_letters
            ],
        )
        await connection.execute(
            "delete from dead_letter where (stream, seq) in"
            " (select stream, seq from dead_letter order by at desc, seq desc offset $1)",
            DEAD_LETTERS_KEPT,
        )


def _storable(text: str) -> str:
    """NATS takes a NUL in a subject, PostgreSQL in no text."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


@dataclass
class Recounted:
    """What the second count has found up to a place of the stream."""

    seq: int
    counters: Counter[tuple[str, str]]


async def counted(connection: Connection, stream: str) -> tuple[int, Counter[tuple[str, str]]]:
    """The position and all counters as they were there: one statement sees one state.

    Raises:
        NotTheOwner: there is no position; somebody begins anew.
    """
    rows = await connection.fetch(
        "select seq, name, labels, value from stream_position left join counter on true where stream = $1",
        stream,
        timeout=10,
    )
    if not rows:
        raise NotTheOwner
    return rows[0]["seq"], Counter(
        {(row["name"], row["labels"]): row["value"] for row in rows if row["name"]}
    )


async def recounted(connection: Connection, stream: str) -> Recounted | None:
    """None: there was no recount of this stream yet."""
    row = await connection.fetchrow(
        "select recount.seq from recount join stream_position using (stream, created) where stream = $1",
        stream,
    )
    if row is None:
        return None
    rows = await connection.fetch("select name, labels, value from recount_counter", timeout=10)
    return Recounted(row["seq"], Counter({(each["name"], each["labels"]): each["value"] for each in rows}))


async def recount_position(connection: Connection, stream: str) -> int | None:
    """The last message that was counted a second time; None if none was."""
    seq: int | None = await connection.fetchval(
        "select recount.seq from recount join stream_position using (stream, created) where stream = $1",
        stream,
    )
    return seq


async def begin_recount(connection: Connection, stream: str, without: Iterable[str]) -> None:
    """Takes what is stored for right, without some counters."""
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


async def recounted_sources(
    connection: Connection, wanted: set[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    rows = await connection.fetch(
        "select source, boot, n from recount_source join unnest($1::text[], $2::text[]) as wanted (source, boot)"
        " using (source, boot)",
        [source for source, _ in wanted],
        [boot for _, boot in wanted],
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
    connection: Connection, sources: dict[tuple[str, str], int], added: Counter[tuple[str, str]]
) -> None:
    await connection.execute(
        "insert into recount_source (source, boot, n) select * from unnest($1::text[], $2::text[], $3::bigint[])"
        " on conflict (source, boot) do update set n = excluded.n",
        [source for source, _ in sources],
        [boot for _, boot in sources],
        list(sources.values()),
    )
    await _add(connection, "recount_counter", added)


async def save_comparison(connection: Connection, stream: str, seq: int, difference: int) -> None:
    await connection.execute(
        "update recount set difference = $3, compared = now() where stream = $1 and seq = $2",
        stream,
        seq,
        difference,
    )


async def comparison(pool: Pool) -> list[Sample]:
    """What the recount found, for Prometheus; what it has not found yet is left out."""
    row = await pool.fetchrow(
        "select messages, difference, extract(epoch from compared)::float8 as compared from recount"
    )
    if row is None:
        return []
    shown = {
        RECOUNTED.name: row["messages"],
        RECOUNT_DIFFERENCE.name: row["difference"],
        RECOUNT_TIME.name: row["compared"],
    }
    return [Sample(name, "", value) for name, value in shown.items() if value is not None]


async def living_threads(connection: Connection) -> list[str]:
    rows = await connection.fetch("select thread from thread where ended is null")
    return [row["thread"] for row in rows]


async def stream_time(connection: Connection) -> datetime:
    """The time of the last counted message, by the stream's clock."""
    moment: datetime = await connection.fetchval("select stream_time()")
    return moment


async def save_lost(connection: Connection, threads: dict[str, Thread], tally: Tally) -> None:
    await _save_threads(connection, threads)
    await _save_tally(connection, tally)


async def forget_old(connection: Connection) -> None:
    """What nobody will ask for any more."""
    await connection.execute(
        "delete from recent_count where minute < (select stream_time()) - interval '8 days'"
    )
    await connection.execute("delete from thread where ended < (select stream_time()) - interval '1 day'")
    await connection.execute("delete from gauge where at < now() - interval '1 hour'")


async def counters(pool: Pool) -> list[Sample]:
    rows = await pool.fetch("select name, labels, value from counter order by name, labels")
    return [Sample(row["name"], row["labels"], row["value"]) for row in rows]


async def gauges(pool: Pool, fresh_s: float) -> list[Sample]:
    """What the gauges of all processes show together; those that fell silent do not count."""
    rows = await pool.fetch(
        "select name, labels, sum(value) as sum, max(value) as max from gauge"
        # One that is later than now was written before the database's clock was set back.
        " where at > now() - make_interval(secs => $1) and at <= now() group by name, labels order by name, labels",
        fresh_s,
    )
    return [
        Sample(row["name"], row["labels"], row[metric.across])
        for row in rows
        if (metric := BY_NAME.get(row["name"])) is not None
    ]


async def threads(pool: Pool, late_s: float) -> tuple[dict[str, dict[str, int]], int]:
    """The threads alive, by whether they started in the last ten minutes and by type; how many of them are late with
    their heartbeats.
    """
    rows = await pool.fetch(
        "with clock as (select stream_time() as now)"
        " select type, coalesce(started > now - interval '10 minutes' and started <= now, false) as recent,"
        " count(*), count(*) filter (where seen < now - make_interval(secs => $1)) as late"
        " from thread cross join clock where ended is null group by 1, 2 order by 1, 2",
        late_s,
    )
    found: dict[str, dict[str, int]] = {"no": {}, "yes": {}}
    for row in rows:
        found["yes" if row["recent"] else "no"][row["type"]] = row["count"]
    return found, sum(row["late"] for row in rows)


async def accounts_by_state(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch("select state, count(*) from account group by state order by state")
    return {row["state"]: row["count"] for row in rows}


async def recent(pool: Pool, seconds: int) -> dict[str, int]:
    rows = await pool.fetch(
        "select name, least(sum(value), $2)::bigint as value from recent_count"
        " where minute > (select stream_time()) - make_interval(secs => $1) - interval '1 minute'"
        " and minute <= (select stream_time())"
        " group by name order by name",
        float(seconds),
        MOST_COUNTED,
    )
    return {row["name"]: row["value"] for row in rows}


async def history(pool: Pool, kind: str, minutes: int) -> dict[str, tuple[int, ...]]:
    """Counts of the last minutes by name, for names that begin with ``kind``; oldest first, this minute last."""
    rows = await pool.fetch(
        "select name, value,"
        " (extract(epoch from date_trunc('minute', (select stream_time())) - minute) / 60)::int as ago"
        " from recent_count where starts_with(name, $1)"
        " and minute > date_trunc('minute', (select stream_time())) - make_interval(mins => $2)"
        " and minute <= (select stream_time())",
        kind,
        minutes,
    )
    counts: dict[str, list[int]] = {}
    for row in rows:
        counts.setdefault(row["name"], [0] * minutes)[minutes - 1 - row["ago"]] += row["value"]
    return {name: tuple(counted) for name, counted in sorted(counts.items())}


async def _save_threads(connection: Connection, threads: dict[str, Thread]) -> None:
    await connection.execute(
        "insert into thread (thread, type, seen, ended, started)"
        " select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[])"
        " on conflict (thread) do update set type = excluded.type, seen = excluded.seen, ended = excluded.ended,"
        " started = excluded.started",
        list(threads),
        [thread.type for thread in threads.values()],
        [thread.seen for thread in threads.values()],
        [thread.ended for thread in threads.values()],
        [thread.started for thread in threads.values()],
    )


async def _save_accounts(connection: Connection, accounts: dict[str, str | None]) -> None:
    gone = [account for account, reported in accounts.items() if reported is None]
    if gone:
        await connection.execute("delete from account where account = any($1)", gone)
    await connection.execute(
        "insert into account (account, state) select * from unnest($1::text[], $2::text[])"
        " on conflict (account) do update set state = excluded.state where account.state <> excluded.state",
        [account for account, reported in accounts.items() if reported is not None],
        [reported for reported in accounts.values() if reported is not None],
    )


async def _save_tally(connection: Connection, tally: Tally) -> None:
    await _add(connection, "counter", tally.counters)
    if tally.recent:
        await connection.execute(
            "insert into recent_count (minute, name, value)"
            " select * from unnest($1::timestamptz[], $2::text[], $3::bigint[])"
            " on conflict (minute, name) do update set"
            " value = least(recent_count.value::numeric + excluded.value, 9223372036854775807)::bigint",
            [minute for minute, _ in tally.recent],
            [name for _, name in tally.recent],
            list(tally.recent.values()),
        )
    if tally.gauges:
        await connection.execute(
            "insert into gauge (source, boot, name, labels, value)"
            " select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[])"
            " on conflict (source, boot, name, labels) do update set value = excluded.value, at = now()",
            *([key[place] for key in tally.gauges] for place in range(4)),
            list(tally.gauges.values()),
        )


async def _add(connection: Connection, table: str, counters: Counter[tuple[str, str]]) -> None:
    if not counters:
        return
    await connection.execute(
        f"insert into {table} (name, labels, value) select * from unnest($1::text[], $2::text[], $3::bigint[])"  # noqa: S608  # one of two
        " on conflict (name, labels) do update set"
        f" value = least({table}.value::numeric + excluded.value, {MOST_COUNTED})::bigint",
        [name for name, _ in counters],
        [labels for _, labels in counters],
        list(counters.values()),
    )

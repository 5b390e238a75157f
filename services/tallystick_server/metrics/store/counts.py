"""Counters, and the sources, threads and accounts that counting depends on. A batch is one transaction."""

from collections import Counter
from datetime import datetime

import asyncpg
import msgspec

from tallystick_server.metrics.counters import State, Tally, Thread
from tallystick_server.metrics.events import BatchKeys
from tallystick_server.metrics.series import GAUGE_BYTES, Labels, SeriesBudget, ordered
from tallystick_server.runtime.postgres import Connection

MOST_COUNTED = 2**63 - 1
"""Maximum value of a counter: it stays there."""
RETAINED_DEAD_LETTERS = 10_000
"""Maximum number of stored dead letters, the newest ones. All are counted."""

LABELS = msgspec.json.Decoder(dict[str, str])
"""Of labels as they are stored."""


async def load(connection: Connection, keys: BatchKeys) -> State:
    """The stored state of everything that a batch changes."""
    state = State()
    if keys.sources:
        rows = await connection.fetch(
            "select source, boot, n from event_source join unnest($1::text[], $2::text[]) as wanted (source, boot)"
            " using (source, boot)",
            [source for source, _ in keys.sources],
            [boot for _, boot in keys.sources],
        )
        state.sources = {(row["source"], row["boot"]): row["n"] for row in rows}
    if keys.threads:
        rows = await connection.fetch(
            "select thread, type, seen, ended, started from thread where thread = any($1)",
            list(keys.threads),
        )
        state.threads = {row["thread"]: _thread(row) for row in rows}
    if keys.accounts:
        rows = await connection.fetch(
            "select account, state from account where account = any($1)", list(keys.accounts)
        )
        state.accounts = {row["account"]: row["state"] for row in rows}
    return state


def _thread(row: asyncpg.Record) -> Thread:
    return Thread(row["type"], row["seen"], row["ended"], row["started"])


async def series(connection: Connection) -> tuple[SeriesBudget, SeriesBudget]:
    """The existing series of counters and of gauges."""
    counters = await connection.fetch("select name, labels from counter where labels <> '{}'")
    gauges = await connection.fetch("select distinct name, labels from gauge")
    return (
        SeriesBudget((row["name"], decode_labels(row["labels"])) for row in counters),
        SeriesBudget(((row["name"], decode_labels(row["labels"])) for row in gauges), max_bytes=GAUGE_BYTES),
    )


def decode_labels(stored: str) -> Labels:
    return ordered(LABELS.decode(stored))


def encode_labels(labels: Labels) -> str:
    return msgspec.json.encode(dict(labels)).decode()


async def save(connection: Connection, stream: str, state: State, tally: Tally) -> None:
    """Writes the changes of a batch."""
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
            # A recreated stream reuses the sequences of its messages.
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
            RETAINED_DEAD_LETTERS,
        )


def _storable(text: str) -> str:
    """NATS allows NUL in subjects, PostgreSQL does not in text."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


async def living_threads(connection: Connection) -> list[str]:
    rows = await connection.fetch("select thread from thread where ended is null")
    return [row["thread"] for row in rows]


async def stream_time(connection: Connection) -> datetime:
    """The time at which the stream stored the last counted message."""
    moment: datetime = await connection.fetchval("select stream_time()")
    return moment


async def save_lost(connection: Connection, threads: dict[str, Thread], tally: Tally) -> None:
    await _save_threads(connection, threads)
    await _save_tally(connection, tally)


async def delete_expired(connection: Connection) -> None:
    """Deletes counts, threads and gauges that are past their retention."""
    await connection.execute(
        "delete from recent_count where minute < (select stream_time()) - interval '8 days'"
    )
    await connection.execute("delete from thread where ended < (select stream_time()) - interval '1 day'")
    await connection.execute("delete from gauge where at < now() - interval '1 hour'")


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
    deleted = [account for account, reported in accounts.items() if reported is None]
    if deleted:
        await connection.execute("delete from account where account = any($1)", deleted)
    await connection.execute(
        "insert into account (account, state) select * from unnest($1::text[], $2::text[])"
        " on conflict (account) do update set state = excluded.state where account.state <> excluded.state",
        [account for account, reported in accounts.items() if reported is not None],
        [reported for reported in accounts.values() if reported is not None],
    )


async def _save_tally(connection: Connection, tally: Tally) -> None:
    await add(connection, "counter", tally.counters)
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
            " select * from unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::float8[])"
            " on conflict (source, boot, name, labels) do update set value = excluded.value, at = now()",
            *([key[place] for key in tally.gauges] for place in range(3)),
            [encode_labels(labels) for *_, labels in tally.gauges],
            list(tally.gauges.values()),
        )


async def add(connection: Connection, table: str, counters: Counter[tuple[str, Labels]]) -> None:
    if not counters:
        return
    await connection.execute(
        f"insert into {table} (name, labels, value) select * from unnest($1::text[], $2::jsonb[], $3::bigint[])"  # one of two
        " on conflict (name, labels) do update set"
        f" value = least({table}.value::numeric + excluded.value, {MOST_COUNTED})::bigint",
        [name for name, _ in counters],
        [encode_labels(labels) for _, labels in counters],
        list(counters.values()),
    )

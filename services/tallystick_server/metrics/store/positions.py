"""How far the stream was counted, and which process owns counting."""

from datetime import datetime

from tallystick_server.metrics.continuity import ObservedStream, Position, digest
from tallystick_server.metrics.events import Message
from tallystick_server.metrics.silence import Lease
from tallystick_server.runtime.postgres import Connection, Pool


class NotTheOwner(Exception):
    """Another process took over: this one must stop writing."""


async def lease(connection: Connection, stream: str) -> Lease | None:
    """The owner's lease; None if the stream has never been counted."""
    row = await connection.fetchrow(
        "select epoch, seen, seen = '-infinity' as resigned, refusal as halt_reason from stream_position where stream = $1",
        stream,
    )
    return Lease(**row) if row else None


async def begin(connection: Connection, stream: str, created: datetime, seq: int) -> int | None:
    """Makes this process the first owner and returns its epoch; None if another process was faster.

    Args:
        connection: to the database.
        stream: the stream's name.
        created: when it was created.
        seq: the sequence before its first message.
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
    """Starts a new epoch, which ends all earlier ones, and returns it; None if the lease was renewed."""
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


async def halt(connection: Connection, stream: str, epoch: int, reason: str) -> None:
    """Halts counting until an operator decides."""
    await connection.execute(
        "update stream_position set refusal = $3, refused = now(), seen = '-infinity'"
        " where stream = $1 and epoch = $2",
        stream,
        epoch,
        reason,
    )


async def halt_reason(pool: Pool) -> str | None:
    """Why counting waits for an operator; None if it does not."""
    reason: str | None = await pool.fetchval(
        "select max(refusal) from stream_position where refusal is not null"
    )
    return reason


async def resume(pool: Pool) -> str | None:
    """Has the current stream counted from its first message, and returns why counting had halted."""
    reason: str | None = await pool.fetchval(
        "with refused as (select stream, refusal from stream_position where refusal is not null for update)"
        " update stream_position set refusal = null, refused = null, start_over = true from refused"
        " where stream_position.stream = refused.stream returning refused.refusal"
    )
    return reason


async def position(connection: Connection, stream: str, epoch: int, observed: ObservedStream) -> Position:
    """How far the stream was counted. After an operator resumed counting, this is before its first message.

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
                observed.created,
                observed.first_seq - 1,
                observed.last_seq,
            )
            # Reconciliation read another stream: it restarts from the stored counters.
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


async def move(
    connection: Connection, stream: str, epoch: int, before: int, last: Message | None = None
) -> None:
    """Renews the lease and moves the position to the last counted message, if there is one.

    Raises:
        NotTheOwner: another process took over or moved the position.
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

"""The edges' leases, and the numbered changes that they follow."""

from collections.abc import Sequence
from typing import NamedTuple

from tallystick.coherence.notices import notice_key
from tallystick.contracts.propagation import TokenChange
from tallystick_server.runtime.postgres import Pool


class LeaseRow(NamedTuple):
    """``granted``: the unique number of its latest renewal. ``seq``: the change that it had acknowledged."""

    edge: str
    granted: int
    seconds: float
    seq: int


class LeaseRows:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def grant(self, edge: str, seconds: float, seq: int) -> int:
        """Grants or renews a lease. Returns the latest change."""
        # Two statements, each its own transaction: a change committed before the second is seen here, and a change
        # committed after the first sees this lease.
        await self._pool.execute(
            """
            insert into lease (edge, granted, seconds, seq) values ($1, nextval('grant_number'), $2, $3)
            on conflict (edge) do update
                set granted = excluded.granted, seconds = excluded.seconds, seq = excluded.seq
            """,
            edge,
            seconds,
            seq,
        )
        return await self.latest_change()

    async def release(self, edge: str) -> None:
        await self._pool.execute("delete from lease where edge = $1", edge)

    async def end(self, edge: str, granted: int) -> None:
        """Ends a lease unless it was renewed."""
        await self._pool.execute("delete from lease where edge = $1 and granted = $2", edge, granted)

    async def all(self) -> Sequence[LeaseRow]:
        rows = await self._pool.fetch("select edge, granted, seconds, seq from lease")
        return [LeaseRow(*row) for row in rows]

    async def latest_change(self) -> int:
        seq: int = await self._pool.fetchval("select seq from change_number")
        return seq

    async def changes_after(self, seq: int, limit: int) -> Sequence[TokenChange]:
        rows = await self._pool.fetch(
            "select seq, digest, rev from change where seq > $1 order by seq limit $2", seq, limit
        )
        return [TokenChange(seq=row["seq"], key=notice_key(row["digest"]), rev=row["rev"]) for row in rows]

    async def forget_changes(self, retained: int) -> None:
        """Deletes all changes but the newest.

        Args:
            retained: how many to retain.
        """
        await self._pool.execute(
            "delete from change where seq <= (select seq from change_number) - $1", retained
        )

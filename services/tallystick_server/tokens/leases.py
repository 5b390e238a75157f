"""The tokens service's half of the promise that a change is true everywhere once it is settled: who may rely on a
cache, and how far each has followed the changes.

To grant a lease, a replica writes its row, commits, then reads the latest change; to settle a change, one that is
committed is waited for until every lease that existed after the commit has acknowledged it or run out. One of the
two always sees the other. A lease's end is told by how long its row stays as it is, counted by the watching
replica alone, so no two clocks are ever compared.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tallystick import connection as bus
from tallystick.contracts.propagation import (
    ACKNOWLEDGED,
    CHANGED,
    Acknowledged,
    ChangeNotice,
    GetChanges,
    Lease,
    RenewLease,
    Settled,
    TokenChange,
)
from tallystick_server.runtime.postgres import UNAVAILABLE
from tallystick_server.tokens.store.leases import LeaseRows

log = logging.getLogger(__name__)

NOTICE = 400
"""Changes in one message: some 50 KB, under what a message may hold. An edge that missed more forgets everything."""
RETAINED_CHANGES = 100_000
"""Changes kept for edges that have to catch up."""
MAX_EDGES = 10_000
REMIND_S = 0.1
WAIT_S = 0.5
"""How long one request to settle waits before it answers "not yet"."""


class Holder(NamedTuple):
    """A lease as it stood when it was first seen so.

    Args:
        granted: the number of its latest renewal, which is no other's.
        seen: when that was first seen here, on the monotonic clock: never before it was granted.
        seconds: how long it lasts.
        seq: what it had acknowledged.
    """

    granted: int
    seen: float
    seconds: float
    seq: int

    @property
    def ends(self) -> float:
        return self.seen + self.seconds


class Leases:
    def __init__(self, rows: LeaseRows, client: Client, seconds: float) -> None:
        self._rows = rows
        self._client = client
        self._seconds = seconds
        self._holders: dict[str, Holder] = {}
        self._acknowledged: dict[str, int] = {}
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Follows what the edges acknowledge, from when this returns."""
        await self._client.subscribe(ACKNOWLEDGED, cb=self._hear)
        await bus.subscribed(self._client)

    async def renew(self, request: RenewLease) -> Lease:
        """Grants or renews a lease."""
        latest = await self._rows.grant(request.edge, self._seconds, request.seq or 0)
        return Lease(seconds=self._seconds, seq=latest)

    async def release(self, edge: str) -> None:
        await self._rows.release(edge)

    async def changes(self, request: GetChanges) -> ChangeNotice:
        """What came after a change; none of it where an edge had better forget everything."""
        found = await self._rows.changes_after(request.after, NOTICE + 1)
        if len(found) > NOTICE or not found or found[0].seq != request.after + 1:
            return ChangeNotice(seq=await self._rows.latest_change(), changes=())
        return ChangeNotice(seq=found[-1].seq, changes=tuple(found))

    async def announce(self, changed: Sequence[TokenChange]) -> None:
        """Tells the edges what was committed. What does not get through, they miss in the numbers."""
        if not changed:
            return
        sent = changed if len(changed) <= NOTICE else ()
        await self._publish(ChangeNotice(seq=max(change.seq for change in changed), changes=tuple(sent)))

    async def settle(self, seq: int | None) -> Settled:
        """Waits a moment for a committed change to be true everywhere."""
        if seq is None:
            seq = await self._rows.latest_change()
        # Only leases granted before the commit may hide it, and those are among the ones that are there now. One
        # renewed later runs out no later for it: its renewal was told of this change.
        holders = await self._look()
        deadline = time.monotonic() + WAIT_S
        while True:
            now = time.monotonic()
            behind = [
                holder for edge, holder in holders.items() if self._reached(edge) < seq and holder.ends > now
            ]
            if not behind or now >= deadline:
                break
            self._news.clear()
            wait_s = min(REMIND_S, deadline - now, *(holder.ends - now for holder in behind))
            try:
                await asyncio.wait_for(self._news.wait(), wait_s)
            except TimeoutError:
                # An acknowledgement or a notice was lost, an edge is cut off, or it gave its lease back.
                await self._publish(ChangeNotice(seq=seq, changes=()))
                now_there = await self._look()
                holders = {edge: holder for edge, holder in holders.items() if edge in now_there}
        edges = sum(self._reached(edge) >= seq for edge in holders)
        return Settled(seq=seq, settled=not behind, edges=edges)

    async def watch(self) -> None:
        """Notices which leases are not renewed any more, and ends those. Runs until cancelled."""
        while True:
            with suppress(*UNAVAILABLE):
                await self._look()
                await self._end_over()
                await self._rows.forget_changes(RETAINED_CHANGES)
            await asyncio.sleep(min(1.0, self._seconds / 3))

    def count(self) -> int:
        """How many edges have a lease, as last seen."""
        return len(self._holders)

    async def _look(self) -> dict[str, Holder]:
        rows = await self._rows.all()
        # Taken after the rows were read: no lease is over sooner than it seems.
        now = time.monotonic()
        before = self._holders
        self._holders = {}
        for row in rows:
            known = before.get(row.edge)
            seen = known.seen if known and known.granted == row.granted else now
            self._holders[row.edge] = Holder(row.granted, seen, row.seconds, row.seq)
        self._acknowledged = {edge: seq for edge, seq in self._acknowledged.items() if edge in self._holders}
        return dict(self._holders)

    async def _end_over(self) -> None:
        now = time.monotonic()
        for edge, holder in list(self._holders.items()):
            if holder.ends <= now:
                await self._rows.end(edge, holder.granted)
                log.info("the lease of %s is over", edge)

    def _reached(self, edge: str) -> int:
        holder = self._holders.get(edge)
        return max(self._acknowledged.get(edge, 0), holder.seq if holder else 0)

    async def _publish(self, changes: ChangeNotice) -> None:
        with suppress(NatsError, OSError):
            await self._client.publish(CHANGED, msgspec.json.encode(changes))

    async def _hear(self, message: Msg) -> None:
        with suppress(msgspec.MsgspecError):
            heard = msgspec.json.decode(message.data, type=Acknowledged)
            if heard.edge in self._acknowledged or len(self._acknowledged) < MAX_EDGES:
                self._acknowledged[heard.edge] = max(heard.seq, self._acknowledged.get(heard.edge, 0))
                self._news.set()

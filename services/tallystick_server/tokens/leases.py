"""The tokens service's half of propagation: which edges hold a lease on their cache, and which changes each has
acknowledged.

To grant a lease, a replica writes the lease's row, commits, and then reads the latest change. To settle a change that
is committed, a replica waits until every lease that existed after the commit has acknowledged the change or expired.
One of the two always sees the other. A lease expires when its row has not changed for its duration, measured by the
watching replica alone, so no two clocks are ever compared.
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
"""Maximum number of changes in a message: about 50 KB, less than its limit. An edge that missed more empties its cache."""
RETAINED_CHANGES = 100_000
"""Number of changes retained for edges that have to catch up."""
MAX_EDGES = 10_000
REMIND_S = 0.1
WAIT_S = 0.5
"""How long one request to settle waits before it replies that the change has not propagated."""


class Holder(NamedTuple):
    """A lease, as this replica first saw it after its latest renewal.

    Args:
        granted: the unique number of its latest renewal.
        first_seen: when that was first seen here, on the monotonic clock: never before it was granted.
        seconds: how long it lasts.
        seq: the change that it had acknowledged.
    """

    granted: int
    first_seen: float
    seconds: float
    seq: int

    @property
    def ends(self) -> float:
        return self.first_seen + self.seconds


class Leases:
    def __init__(self, rows: LeaseRows, client: Client, seconds: float) -> None:
        self._rows = rows
        self._client = client
        self._seconds = seconds
        self._holders: dict[str, Holder] = {}
        self._acknowledged: dict[str, int] = {}
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Subscribes to acknowledgements. None is missed once this has returned."""
        await self._client.subscribe(ACKNOWLEDGED, cb=self._hear)
        await bus.subscribed(self._client)

    async def renew(self, request: RenewLease) -> Lease:
        """Grants or renews a lease."""
        latest = await self._rows.grant(request.edge, self._seconds, request.seq or 0)
        return Lease(seconds=self._seconds, seq=latest)

    async def release(self, edge: str) -> None:
        await self._rows.release(edge)

    async def changes(self, request: GetChanges) -> ChangeNotice:
        """The changes after one; an empty notice if the edge has to empty its cache."""
        changes = await self._rows.changes_after(request.after, NOTICE + 1)
        if len(changes) > NOTICE or not changes or changes[0].seq != request.after + 1:
            return ChangeNotice(seq=await self._rows.latest_change(), changes=())
        return ChangeNotice(seq=changes[-1].seq, changes=tuple(changes))

    async def announce(self, changed: Sequence[TokenChange]) -> None:
        """Notifies the edges of committed changes. An edge detects a lost notice by the gap in the numbers."""
        if not changed:
            return
        changes = tuple(changed) if len(changed) <= NOTICE else ()
        await self._publish(ChangeNotice(seq=max(change.seq for change in changed), changes=changes))

    async def settle(self, seq: int | None) -> Settled:
        """Waits up to `WAIT_S` for a committed change to propagate."""
        if seq is None:
            seq = await self._rows.latest_change()
        # Only a lease granted before the commit can hide the change, and every such lease is among the current ones.
        # A lease renewed later needs no longer wait: its renewal already named this change.
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
                # An acknowledgement or a notice was lost, an edge is cut off, or it released its lease.
                await self._publish(ChangeNotice(seq=seq, changes=()))
                current = await self._look()
                holders = {edge: holder for edge, holder in holders.items() if edge in current}
        edges = sum(self._reached(edge) >= seq for edge in holders)
        return Settled(seq=seq, settled=not behind, edges=edges)

    async def watch(self) -> None:
        """Ends leases that are no longer renewed. Runs until cancelled."""
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
            previous = before.get(row.edge)
            first_seen = previous.first_seen if previous and previous.granted == row.granted else now
            self._holders[row.edge] = Holder(row.granted, first_seen, row.seconds, row.seq)
        self._acknowledged = {edge: seq for edge, seq in self._acknowledged.items() if edge in self._holders}
        return dict(self._holders)

    async def _end_over(self) -> None:
        now = time.monotonic()
        for edge, holder in list(self._holders.items()):
            if holder.ends <= now:
                await self._rows.end(edge, holder.granted)
                log.info("the lease of %s has expired", edge)

    def _reached(self, edge: str) -> int:
        holder = self._holders.get(edge)
        return max(self._acknowledged.get(edge, 0), holder.seq if holder else 0)

    async def _publish(self, changes: ChangeNotice) -> None:
        with suppress(NatsError, OSError):
            await self._client.publish(CHANGED, msgspec.json.encode(changes))

    async def _hear(self, message: Msg) -> None:
        with suppress(msgspec.MsgspecError):
            acknowledgement = msgspec.json.decode(message.data, type=Acknowledged)
            if acknowledgement.edge in self._acknowledged or len(self._acknowledged) < MAX_EDGES:
                self._acknowledged[acknowledgement.edge] = max(
                    acknowledgement.seq, self._acknowledged.get(acknowledgement.edge, 0)
                )
                self._news.set()

"""Hands out rate limits as quotas, takes unspent quotas back, and recalls them before a limit counts as reached.

The rules, which `tests/tallystick/coherence/test_quota_model.py` explores together with those of `tallystick.coherence.held_quota`:

- A take is idempotent: repeated under its number, at any replica, it gets the same quota.
- A return counts once, in the window that its quota was taken from, and never for more than was handed out.
- Before the first request over the limit is rejected, the edges are notified to return what they have not spent. The
  service waits for them up to `RECALL_S`. From then on an edge gets only as much as its pending requests need.

All of it happens in PostgreSQL (`migrations/0006_limits.sql`), under a lock on the row of the family's window. Windows
are aligned to the epoch by PostgreSQL's clock.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from tallystick.contracts.quotas import RECALLED, Quota, RecallQuota, ReturnedQuota, ReturnQuota, TakeQuota
from tallystick_server.runtime.postgres import UNAVAILABLE, Pool

log = logging.getLogger(__name__)

RECALL_S = 0.05
"""How long a recall waits for the edges before requests are rejected, once for each window."""
POLL_S = 0.005
CLEAN_UP_S = 10.0
RETAINED_S = 120
"""How long takes are stored after their window, for late duplicates: NATS disconnects a stopped replica far sooner."""


class Limits:
    """Args:
    pool: the connections to PostgreSQL.
    client: the connection to NATS.
    count_edges: how many edges share the limits.
    """

    def __init__(self, pool: Pool, client: Client, count_edges: Callable[[], int]) -> None:
        self._pool = pool
        self._client = client
        self._count_edges = count_edges

    async def take(self, request: TakeQuota) -> Quota | None:
        """Hands out a part of what is left in the current window of the token's family. None if the token does not exist
        or has no limit.
        """
        loop = asyncio.get_running_loop()
        deadline = float("inf")
        while True:
            row = await self._pool.fetchrow(
                "select family, seconds, starts, granted, allowed, remaining, resets_in, returned, recalls, wait_s"
                " from take_quota($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                request.id,
                request.wanted,
                request.waiting,
                self._count_edges(),
                request.holder,
                request.take,
                request.unspent,
                RECALL_S,
                loop.time() < deadline,
            )
            if row is None or row["allowed"] is None:
                return None
            if row["recalls"]:
                await self._recall(
                    RecallQuota(
                        family=row["family"],
                        window=row["seconds"],
                        starts=row["starts"],
                        limit=row["allowed"],
                    )
                )
            if not row["wait_s"]:
                break
            deadline = min(deadline, loop.time() + RECALL_S)
            await asyncio.sleep(min(row["wait_s"], POLL_S))
        return Quota(
            granted=row["granted"],
            limit=row["allowed"],
            remaining=row["remaining"],
            window=row["seconds"],
            resets_in=max(0.0, row["resets_in"]),
            family=row["family"],
            starts=row["starts"],
            returned=row["returned"],
        )

    async def give_back(self, request: ReturnQuota) -> ReturnedQuota:
        counted = await self._pool.fetchval(
            "select return_quota($1, $2, $3, $4, $5, $6)",
            request.family,
            request.holder,
            request.take,
            request.window,
            request.starts,
            request.unspent,
        )
        return ReturnedQuota(counted=counted)

    async def clean_up(self) -> None:
        """Deletes the takes of windows that are over. Runs until cancelled."""
        while True:
            with suppress(*UNAVAILABLE):
                await self._pool.execute(
                    "delete from quota_holder where starts + seconds < extract(epoch from now())::bigint - $1",
                    RETAINED_S,
                )
            await asyncio.sleep(CLEAN_UP_S)

    async def _recall(self, notice: RecallQuota) -> None:
        with suppress(NatsError, OSError):
            await self._client.publish(RECALLED, msgspec.json.encode(notice))

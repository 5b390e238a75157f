"""Counts the tokens there are, by state and by how soon they expire, for the metrics; and forgets what nobody will
ask for any more.
"""

import asyncio
from contextlib import suppress
from functools import partial

from services.tokens import rows
from shared.measures import Measures
from shared.postgres import UNAVAILABLE, Pool

EVERY_S = 5.0
SHARE = 0.02
"""Of the time, at most this much is spent on counting: a table of millions is counted less often."""
EXPIRING_DAYS = (1, 7, 30)
_COUNTS = {
    **{
        f"tallystick_tokens:{state}": f"count(*) filter (where {condition})"
        for state, condition in rows.STATES.items()
    },
    **{
        f"tallystick_tokens_expiring:{days}": (
            f"count(*) filter (where {rows.ACTIVE} and expires <= now() + interval '{days} days')"
        )
        for days in EXPIRING_DAYS
    },
}


class Inventory:
    def __init__(self, pool: Pool, measures: Measures) -> None:
        self._pool = pool
        self._counts: dict[str, int] = {}
        for state in rows.STATES:
            name = "tallystick_tokens"
            measures.gauge(name, partial(self._of, f"{name}:{state}"), state=state)
        for days in EXPIRING_DAYS:
            name = "tallystick_tokens_expiring"
            measures.gauge(name, partial(self._of, f"{name}:{days}"), days=str(days))

    async def keep(self) -> None:
        """Runs until cancelled."""
        counts = ", ".join(f'{count} as "{name}"' for name, count in _COUNTS.items())
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            with suppress(*UNAVAILABLE):
                # It reads the whole table; what waits for it is nobody's request.
                row = await self._pool.fetchrow(f"select {counts} from token", timeout=10)  # noqa: S608  # constants
                self._counts = dict(row) if row else {}
                await self._pool.execute("delete from use_by_day where day < now() - interval '9 days'")
                await self._pool.execute("delete from session where expires <= now()")
                await self._pool.execute("delete from sign_in_link where expires <= now()")
                await self._pool.execute("delete from idempotency where at < now() - interval '24 hours'")
            await asyncio.sleep(max(EVERY_S, (clock() - began) / SHARE))

    def _of(self, name: str) -> int:
        return self._counts.get(name, 0)

"""Spends rate limits here, out of small quotas of the current window that the tokens service hands out: exact over
any number of edges, since it never hands out more than the limit, and nothing is spent after the window's end.
"""

import asyncio

import msgspec

from services.edge.coherence import now
from services.edge.errors import Refused
from shared.contracts import TAKE_QUOTA, Failure, Quota, RateLimit, TakeQuota, Token
from shared.measures import Measures
from shared.rpc import Hedged

AHEAD_S = 0.1
"""For how much time a quota should last, as fast as it is being spent: what an edge does not come to spend is lost."""
MAX_WANTED = 10_000
MAX_TOKENS = 100_000


class _Held:
    """What is held of one token's limit in the current window.

    Args:
        limit: the token's limit when this began.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.quota: Quota | None = None
        self.left = 0
        self.asked = float("-inf")
        self.ends = float("-inf")
        """When the window ends, counted from before this was asked: never after it does."""
        self.asking: asyncio.Task[None] | None = None

    def answer(self, moment: float) -> Quota | None:
        """Uses up one request, or says that none is left; None where that has to be asked."""
        if self.quota is None or moment >= self.ends or not (self.left or self.quota.granted == 0):
            return None
        granted = min(self.left, 1)
        self.left -= granted
        return msgspec.structs.replace(
            self.quota,
            granted=granted,
            remaining=self.quota.remaining + self.left,
            resets_in=self.ends - moment,
        )

    def wanted(self, moment: float) -> int:
        """As many requests as will come soon, going by how fast the last ones came."""
        if self.quota is None:
            return 1
        spent = self.quota.granted - self.left
        soon = spent / max(moment - self.asked, 0.001) * AHEAD_S
        return max(1, min(int(soon), 8 * max(spent, 1), MAX_WANTED))


class Quotas:
    def __init__(self, tokens: Hedged, measures: Measures) -> None:
        self._tokens = tokens
        self._measures = measures
        self._held: dict[str, _Held] = {}

    async def spend(self, token: Token) -> Quota | None:
        """Uses up one request of a token's limit; ``granted`` is 0 where its window is used up. None for a token
        without a limit.

        Raises:
            Refused: this cannot be told now, or the token has just ended.
        """
        limit = token.restrictions.rate_limit
        if limit is None:
            return None
        held = self._of(token.id, limit)
        while (quota := held.answer(now())) is None:
            if held.asking is None:
                held.asking = asyncio.create_task(self._take(token.id, held))
                held.asking.add_done_callback(_seen)
            # Shared by all who wait for it, so none of them may end it.
            await asyncio.shield(held.asking)
        return quota

    async def _take(self, token: str, held: _Held) -> None:
        asked = now()
        try:
            quota = await self._tokens.call(TAKE_QUOTA, TakeQuota(id=token, wanted=held.wanted(asked)))
        finally:
            held.asking = None
        if isinstance(quota, Failure):
            raise Refused("invalid_token" if quota.code == "not_found" else "unavailable")
        self._measures.count("tallystick_quota_lost_total", held.left)
        self._measures.count("tallystick_quota_handed_out_total", quota.granted)
        held.quota, held.left = quota, quota.granted
        held.asked, held.ends = asked, asked + quota.resets_in

    def _of(self, token: str, limit: RateLimit) -> _Held:
        held = self._held.get(token)
        if held is None or held.limit != limit:
            gone = self._held.pop(token, None)
            if len(self._held) >= MAX_TOKENS:
                gone = self._held.pop(next(iter(self._held)))
            if gone is not None:
                # What it had left is lost, as at a window's end.
                self._measures.count("tallystick_quota_lost_total", gone.left)
            held = self._held[token] = _Held(limit)
        return held


def _seen(task: "asyncio.Task[None]") -> None:
    """Those who waited may all have gone; then nobody else takes note of how it ended."""
    if not task.cancelled():
        task.exception()

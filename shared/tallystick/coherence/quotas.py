"""Spends rate limits at the edge, from quotas of the current window that the tokens service hands out: never more than the
limit over any number of edges, and exactly the limit while all of them respond.

`HeldQuota` has the rules; this module has the messages.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from tallystick.coherence.clock import Clock
from tallystick.coherence.held_quota import HeldQuota, latest_recall
from tallystick.coherence.transport import Transport
from tallystick.contracts.operation import Failure
from tallystick.contracts.quotas import RECALLED, RETURN_QUOTA, TAKE_QUOTA, Quota, RecallQuota, ReturnQuota
from tallystick.contracts.records import Token
from tallystick.errors import AuthError, Unavailable
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.tasks import cancel_and_wait

MAX_TOKENS = 100_000
MAX_RECALLS = 10_000
EXPIRE_S = 5.0
"""How often quotas of past windows are counted as lost and removed."""
RETRY_S = 0.2
CLOSE_S = 1.0
"""How long an edge that stops waits for its returns to be acknowledged."""


class RateLimiter:
    """Args:
    transport: sends requests to the tokens service.
    recorder: counts quotas handed out, returned and lost.
    """

    def __init__(self, transport: Transport, recorder: MetricsRecorder, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._recorder = recorder
        self._held: dict[str, HeldQuota] = {}
        self._takes: dict[str, asyncio.Task[None]] = {}
        self._by_family: defaultdict[str, set[str]] = defaultdict(set)
        self._recalls: dict[tuple[str, int], RecallQuota] = {}
        self._returns: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Answers recalls while the block runs, and then returns all held quotas."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._expire())]
        try:
            yield
        finally:
            for task in tasks:
                await cancel_and_wait(task)
            await self.close()

    async def spend(self, token: Token) -> Quota | None:
        """Consumes one request of a token's limit; ``granted`` is 0 if the window is exhausted. None for a token without a
        limit.

        Raises:
            AuthError: the token no longer exists.
            Unavailable: the tokens service did not answer.
        """
        if token.restrictions.rate_limit is None:
            return None
        moment = self._clock()
        held = self._held.get(token.id) or self._hold(token, moment)
        held.update(token, moment)
        quota = held.spend(moment)
        return await self._wait(held) if quota is None else quota

    async def close(self) -> None:
        """Returns all held quotas; a return that is not acknowledged in time counts as lost."""
        for held in list(self._held.values()):
            self._drop(held)
        if self._returns:
            await asyncio.wait(self._returns, timeout=CLOSE_S)
        for task in list(self._returns):
            await cancel_and_wait(task)

    async def _wait(self, held: HeldQuota) -> Quota:
        held.waiting += 1
        try:
            while (quota := held.spend(self._clock())) is None:
                task = self._takes.get(held.holder)
                if task is None:
                    task = self._takes[held.holder] = asyncio.create_task(self._take(held))
                    task.add_done_callback(_retrieve_exception)
                # Shared by all waiting requests, so none of them may cancel it.
                await asyncio.shield(task)
        finally:
            held.waiting -= 1
            if held.left > held.waiting and self._is_recalled(held):
                # The request that this was taken for was cancelled.
                self._give_back(held)
        return quota

    async def _take(self, held: HeldQuota) -> None:
        token = held.token
        requested = self._clock()
        try:
            quota = await self._transport.call_hedged(TAKE_QUOTA, held.start_take(requested))
        finally:
            self._takes.pop(held.holder, None)
        if isinstance(quota, Failure):
            if quota.code == "not_found":
                held.cancel_take()
                raise AuthError("invalid_token")
            raise Unavailable("the tokens service did not answer")
        self._recorder.count(catalogue.QUOTA_HANDED_OUT, quota.granted)
        recall = None
        if quota.family is not None:
            recall = self._recalls.get((quota.family, quota.window))
        returns = held.complete_take(quota, requested, self._clock(), recall)
        self._count(held)
        if returns is not None:
            self._start(self._return(held, returns))
        if self._held.get(token.id) is not held:
            # It was dropped to make room during this take.
            self._give_back(held)
        elif quota.family is not None:
            self._by_family[quota.family].add(token.id)

    # Giving back

    def _give_back(self, held: HeldQuota) -> None:
        keep = held.waiting
        if held.left > keep or held.left == 0:
            returns = held.give_back(keep=keep)
            if returns is not None:
                self._start(self._return(held, returns))

    async def _return(self, held: HeldQuota, request: ReturnQuota) -> None:
        reply = await self._transport.call_hedged(RETURN_QUOTA, request)
        if isinstance(reply, Failure):
            return  # the next take gives it back, or it is lost as the window ends
        held.settle_return(request.take, reply.counted)
        self._count(held)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    def _drop(self, held: HeldQuota) -> None:
        """Removes a token's quota, and returns it."""
        del self._held[held.token.id]
        family = held.quota.family if held.quota is not None else None
        if family is not None:
            self._by_family[family].discard(held.token.id)
            if not self._by_family[family]:
                del self._by_family[family]
        held.end_window(self._clock())
        returns = held.give_back() if held.left else None
        if returns is not None:
            self._start(self._return_dropped(held, returns))
        else:
            held.end_window(float("inf"))
            self._count(held)

    async def _return_dropped(self, held: HeldQuota, request: ReturnQuota) -> None:
        try:
            await self._return(held, request)
        finally:
            held.end_window(float("inf"))
            self._count(held)

    # Recalls

    async def _listen(self) -> None:
        while not self._transport.is_connected:
            await asyncio.sleep(RETRY_S)
        await self._transport.subscribe(RECALLED, RecallQuota, self._hear)

    async def _hear(self, notice: RecallQuota) -> None:
        key = notice.family, notice.window
        self._recalls[key] = latest_recall(self._recalls.pop(key, None), notice)
        if len(self._recalls) > MAX_RECALLS:
            del self._recalls[next(iter(self._recalls))]
        for token in tuple(self._by_family.get(notice.family, ())):
            held = self._held.get(token)
            if held is not None and held.is_recalled(notice):
                self._give_back(held)

    def _is_recalled(self, held: HeldQuota) -> bool:
        quota = held.quota
        if quota is None or quota.family is None:
            return False
        recall = self._recalls.get((quota.family, quota.window))
        return recall is not None and held.is_recalled(recall)

    # What is held

    def _hold(self, token: Token, moment: float) -> HeldQuota:
        if len(self._held) >= MAX_TOKENS:
            self._drop(next(iter(self._held.values())))
        held = self._held[token.id] = HeldQuota(token, moment)
        return held

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S)
            self.expire(self._clock())

    def expire(self, moment: float) -> None:
        """Counts what is left of past windows as lost, and removes quotas that have not been used since."""
        for held in list(self._held.values()):
            if moment >= held.ends and not held.waiting and held.holder not in self._takes:
                held.end_window(moment)
                self._count(held)
                if moment >= held.ends + EXPIRE_S and held.pending_since is None:
                    self._drop(held)

    def _count(self, held: HeldQuota) -> None:
        self._recorder.count(catalogue.QUOTA_LOST, held.lost)
        self._recorder.count(catalogue.QUOTA_RETURNED, held.returned)
        held.lost = held.returned = 0


def _retrieve_exception(task: "asyncio.Task[None]") -> None:
    """Retrieves a take's exception even if all waiting requests were cancelled: asyncio warns otherwise."""
    if not task.cancelled():
        task.exception()

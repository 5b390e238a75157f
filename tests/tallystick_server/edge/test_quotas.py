"""The quota that an edge holds is bounded, and unspent quota is returned or counted as lost."""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from tallystick.coherence import quotas as module
from tallystick.coherence.clock import boot_time
from tallystick.coherence.quotas import RateLimiter
from tallystick.coherence.transport import NatsTransport
from tallystick.contracts.quotas import RETURN_QUOTA, Quota, RecallQuota, ReturnedQuota, ReturnQuota
from tallystick.contracts.records import RateLimit, Restrictions
from tallystick.metrics.recorder import MetricsRecorder
from tests.support.examples import TOKEN
from tests.support.services import issue

LIMIT = RateLimit(max_requests=1000, time_window=3600)


async def test_the_quota_of_an_evicted_token_is_returned(edge, tokens_service, operator, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOKENS", 1)
    tokens = [
        (await issue(operator, "api", restrictions=Restrictions(rate_limit=LIMIT)))[1] for _ in range(2)
    ]
    recorder = MetricsRecorder()
    quotas = RateLimiter(NatsTransport(edge._transport.app._app.state.client), recorder, boot_time)
    for _ in range(20):
        for token in [tokens[0]] * 5 + tokens[1:]:
            quota = await quotas.spend(token)
            assert quota is not None
            assert quota.granted == 1
    await quotas.close()
    counters = {counter.name: counter.value for counter in recorder.take().counters}
    assert (
        counters["tallystick_quota_handed_out_total"] == 20 * 6 + counters["tallystick_quota_returned_total"]
    )
    assert counters["tallystick_quota_returned_total"] > 0
    assert "tallystick_quota_lost_total" not in counters


class TokensService:
    """Grants the same quota to each take, and records the returns.

    Args:
        quota: the reply to each take.
    """

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.may_reply = asyncio.Event()
        self.returns: list[ReturnQuota] = []

    async def call_hedged(self, operation, request):
        if operation is RETURN_QUOTA:
            self.returns.append(request)
            return ReturnedQuota(counted=request.unspent)
        await self.may_reply.wait()
        return self.quota


def quotas_of(service: Any, recorder: MetricsRecorder) -> RateLimiter:
    return RateLimiter(service, recorder, boot_time)


async def hear(quotas: RateLimiter, notice: RecallQuota) -> None:
    await quotas._hear(notice)


TOKEN_WITH_LIMIT = msgspec.structs.replace(TOKEN, restrictions=Restrictions(rate_limit=LIMIT))
QUOTA = Quota(granted=3, limit=1000, remaining=0, window=3600, resets_in=60, family="tok_1", starts=3600)
RECALL = RecallQuota(family="tok_1", window=3600, starts=3600, limit=1000)


async def test_a_quota_that_arrives_after_a_recall_is_returned_except_for_waiting_requests():
    service = TokensService(QUOTA)
    quotas = quotas_of(service, MetricsRecorder())
    await hear(quotas, RECALL)
    await hear(quotas, msgspec.structs.replace(RECALL, starts=0))  # late
    waiting = [asyncio.create_task(quotas.spend(TOKEN_WITH_LIMIT)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with suppress(asyncio.CancelledError):
        await waiting[0]
    service.may_reply.set()
    quota = await waiting[1]
    await asyncio.gather(*quotas._returns)
    assert quota is not None
    assert quota.granted == 1
    assert [(returned.take, returned.starts, returned.unspent) for returned in service.returns] == [
        (1, 3600, 2)
    ]


async def test_a_recall_returns_unspent_quota_once():
    service = TokensService(QUOTA)
    service.may_reply.set()
    recorder = MetricsRecorder()
    quotas = quotas_of(service, recorder)
    await quotas.spend(TOKEN_WITH_LIMIT)
    for _ in range(2):
        await hear(quotas, RECALL)
    await asyncio.gather(*quotas._returns)
    assert [returned.unspent for returned in service.returns] == [2]
    assert {counter.name: counter.value for counter in recorder.take().counters} == {
        "tallystick_quota_handed_out_total": 3,
        "tallystick_quota_returned_total": 2,
    }


async def test_quota_of_a_tokens_service_of_an_earlier_version_is_counted_as_lost():
    service = TokensService(Quota(granted=3, limit=1000, remaining=0, window=3600, resets_in=60))
    service.may_reply.set()
    recorder = MetricsRecorder()
    quotas = quotas_of(service, recorder)
    await quotas.spend(TOKEN_WITH_LIMIT)
    await hear(quotas, RECALL)
    await quotas.close()
    assert service.returns == []
    assert {counter.name: counter.value for counter in recorder.take().counters} == {
        "tallystick_quota_handed_out_total": 3,
        "tallystick_quota_lost_total": 2,
    }

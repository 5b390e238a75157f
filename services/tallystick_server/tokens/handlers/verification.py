"""Verifies tokens, hands out quotas of their rate limits, and stores reports of their usage."""

import asyncio

import msgspec

from tallystick.contracts.messages import Ack, FieldError
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats, TokensStats
from tallystick.contracts.operation import Failure
from tallystick.contracts.quotas import (
    RETURN_QUOTA,
    TAKE_QUOTA,
    Quota,
    ReturnedQuota,
    ReturnQuota,
    TakeQuota,
)
from tallystick.contracts.verification import (
    REPORT_USE,
    VERIFY,
    VERIFY_MANY,
    ReportUse,
    Verdict,
    Verdicts,
    VerifyMany,
    VerifyToken,
)
from tallystick.rpc.server import Handlers
from tallystick.tokens import rules
from tallystick.tokens.access import AccessRequest, check_access
from tallystick_server.tokens.handlers.replies import bad_request, fitting, not_found
from tallystick_server.tokens.store.limits import Limits
from tallystick_server.tokens.store.queries import Store


class VerificationHandlers:
    """Args:
    store: where tokens are.
    limits: the quotas of their rate limits.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def all(self) -> Handlers:
        return {
            VERIFY: self.verify,
            VERIFY_MANY: self.verify_many,
            TAKE_QUOTA: self.take_quota,
            RETURN_QUOTA: self.return_quota,
            REPORT_USE: self.report_use,
            TOKENS_STATS: self.stats,
        }

    async def verify(self, request: VerifyToken) -> Verdict:
        verdict = await self._store.verdict(request.digest)
        criteria = (request.scope, request.account, request.address, request.referrer)
        if verdict.token is None or criteria == (None, None, None, None):
            return verdict
        access = AccessRequest(
            scope=request.scope,
            account=request.account,
            any_account=request.scope is None and request.account is None,
            address=request.address,
            referrer=request.referrer,
        )
        if denial := check_access(verdict.token, access):
            return msgspec.structs.replace(verdict, code=denial)
        if verdict.token.restrictions.rate_limit is None:
            return verdict
        quota = await self._limits.take(TakeQuota(id=verdict.token.id))
        if quota is None:
            return await self.verify(request)  # it was edited just now
        return msgspec.structs.replace(
            verdict, quota=quota, code="active" if quota.granted else "rate_limited"
        )

    async def verify_many(self, request: VerifyMany) -> Verdicts | Failure:
        verdicts = tuple(await asyncio.gather(*map(self.verify, request.requests)))
        return fitting(Verdicts(verdicts=verdicts), "requests", verdicts)

    async def take_quota(self, request: TakeQuota) -> Quota | Failure:
        return await self._limits.take(request) or not_found()

    async def return_quota(self, request: ReturnQuota) -> ReturnedQuota:
        return await self._limits.give_back(request)

    async def report_use(self, request: ReportUse) -> Ack | Failure:
        if not all(map(rules.may_be_logged, request.refusals)):
            return bad_request(FieldError(field="refusals", message="a text is too long for a token's log"))
        await self._store.report(request.uses, request.refusals)
        return Ack()

    async def stats(self, _: AskTokensStats) -> TokensStats:
        return TokensStats(
            accounts=await self._store.count_accounts(),
            postgres=await self._store.version(),
            installation=await self._store.installation(),
        )

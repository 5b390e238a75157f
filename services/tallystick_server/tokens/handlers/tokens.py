"""How the tokens service verifies tokens and keeps the edges' caches true; `administration` manages tokens."""

import asyncio

import msgspec

from tallystick import contracts as c
from tallystick.contracts import Failure, FieldError
from tallystick.rpc.server import Handlers
from tallystick.tokens import rules
from tallystick.tokens.access import Demand, judge
from tallystick_server.tokens.handlers.replies import bad_request, fitting, not_found
from tallystick_server.tokens.leases import Leases
from tallystick_server.tokens.store.limits import Limits
from tallystick_server.tokens.store.queries import Store


class TokensHandlers:
    """Args:
    store: where tokens are.
    leases: who has to be notified when they change.
    limits: what is left of their rate limits.
    """

    def __init__(self, store: Store, leases: Leases, limits: Limits) -> None:
        self._store = store
        self._leases = leases
        self._limits = limits

    def all(self) -> Handlers:
        return {
            c.VERIFY: self.verify,
            c.VERIFY_MANY: self.verify_many,
            c.TAKE_QUOTA: self.take_quota,
            c.RETURN_QUOTA: self.return_quota,
            c.REPORT_USE: self.report_use,
            c.TOKENS_STATS: self.stats,
            c.SETTLE: self.settle,
            c.SETTLE.by_operator: self.settle,
            c.RENEW_LEASE: self._leases.renew,
            c.RELEASE_LEASE: self.release_lease,
            c.GET_CHANGES: self._leases.changes,
        }

    # Checking

    async def verify(self, request: c.VerifyToken) -> c.Verdict:
        verdict = await self._store.verdict(request.digest)
        asked = (request.scope, request.account, request.address, request.referrer)
        if verdict.token is None or asked == (None, None, None, None):
            return verdict
        demand = Demand(
            scope=request.scope,
            account=request.account,
            any_account=request.scope is None and request.account is None,
            address=request.address,
            referrer=request.referrer,
        )
        if refusal := judge(verdict.token, demand):
            return msgspec.structs.replace(verdict, code=refusal)
        if verdict.token.restrictions.rate_limit is None:
            return verdict
        quota = await self._limits.take(c.TakeQuota(id=verdict.token.id))
        if quota is None:
            return await self.verify(request)  # it was edited just now
        return msgspec.structs.replace(
            verdict, quota=quota, code="active" if quota.granted else "rate_limited"
        )

    async def verify_many(self, request: c.VerifyMany) -> c.Verdicts | Failure:
        verdicts = tuple(await asyncio.gather(*map(self.verify, request.requests)))
        return fitting(c.Verdicts(verdicts=verdicts), "requests", verdicts)

    async def take_quota(self, request: c.TakeQuota) -> c.Quota | Failure:
        return await self._limits.take(request) or not_found()

    async def return_quota(self, request: c.ReturnQuota) -> c.ReturnedQuota:
        return await self._limits.give_back(request)

    async def report_use(self, request: c.ReportUse) -> c.Taken | Failure:
        if not all(map(rules.may_be_logged, request.refusals)):
            return bad_request(FieldError(field="refusals", message="a text is too long for a token's log"))
        await self._store.report(request.uses, request.refusals)
        return c.Taken()

    # How edges keep what they know true

    async def settle(self, request: c.Settle) -> c.Settled:
        return await self._leases.settle(request.seq)

    async def release_lease(self, request: c.ReleaseLease) -> c.Taken:
        await self._leases.release(request.edge)
        return c.Taken()

    async def stats(self, _: c.AskTokensStats) -> c.TokensStats:
        return c.TokensStats(
            accounts=await self._store.count_accounts(),
            postgres=await self._store.version(),
            installation=await self._store.installation(),
        )

"""The dashboard's sessions. A session is a secret that only the browser holds, and acts for a token: its verdict is that
of its token at that moment. It ends for good with its token, and with every change that narrows the token.
"""

from tallystick.contracts.messages import Ack
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.quotas import TakeQuota
from tallystick.contracts.sessions import (
    MAKE_SIGN_IN_LINK,
    RESUME_SESSION,
    SIGN_IN,
    SIGN_OUT,
    MakeSignInLink,
    ResumeSession,
    SignIn,
    SignOut,
)
from tallystick.contracts.verification import Verdict
from tallystick.rpc.server import Handlers
from tallystick_server.tokens import operations
from tallystick_server.tokens.authority import Authority, Rejected
from tallystick_server.tokens.handlers.unit_of_work import from_operator
from tallystick_server.tokens.store.limits import Limits
from tallystick_server.tokens.store.queries import Store
from tallystick_server.tokens.store.sessions import Sessions


class SessionHandlers:
    def __init__(self, sessions: Sessions, store: Store, limits: Limits) -> None:
        self._sessions = sessions
        self._store = store
        self._limits = limits

    def all(self) -> Handlers:
        return {
            SIGN_IN: self.sign_in,
            RESUME_SESSION: self.resume,
            SIGN_OUT: self.sign_out,
            MAKE_SIGN_IN_LINK: from_operator(self.make_link),
        }

    async def sign_in(self, request: SignIn) -> Verdict:
        """Begins a session. Nothing is written and no link is used up unless the token may use the dashboard."""
        digest = request.actor.token
        if request.link is not None:
            digest = await self._sessions.digest_of_link(request.link)
        if digest is None:
            return Verdict(code="invalid_token")
        verdict = await self._store.verdict(digest)
        if verdict.token is None:
            return verdict
        actor = Actor(
            token=digest,
            address=request.actor.address,
            referrer=request.actor.referrer,
            request_id=request.actor.request_id,
        )
        limit = verdict.token.restrictions.rate_limit
        try:
            Authority(actor, await self._store.find(verdict.token.id)).require(operations.SIGN_IN)
            if limit is not None:
                quota = await self._limits.take(TakeQuota(id=verdict.token.id))
                if quota is not None and not quota.granted:
                    return Verdict(code="rate_limited", quota=quota)
            async with self._store.change(actor) as change:
                (await change.lock()).require(operations.SIGN_IN)
                if not await change.begin_session(request.session, request.link):
                    return Verdict(code="invalid_token")
        except Rejected as rejected:
            return Verdict(code=rejected.failure.code)  # type: ignore[arg-type]  # one of a verdict's
        return verdict

    async def resume(self, request: ResumeSession) -> Verdict:
        digest = await self._sessions.digest_of(request.session)
        return await self._store.verdict(digest) if digest else Verdict(code="invalid_token")

    async def sign_out(self, request: SignOut) -> Ack:
        await self._sessions.end(request.session)
        return Ack()

    async def make_link(self, request: MakeSignInLink) -> Ack | Failure:
        async with self._store.change(request.actor) as change:
            target = await change.find(id=request.id)
            if target is not None:
                await change.lock(target.chain)
            if not await change.make_link(request.id, request.link, request.seconds):
                return Failure(code="not_found", message="there is no such token, or it is not active")
        return Ack()

"""Keeps the edges' caches true: their leases, and what has changed."""

from tallystick.contracts.messages import Ack
from tallystick.contracts.propagation import (
    GET_CHANGES,
    RELEASE_LEASE,
    RENEW_LEASE,
    SETTLE,
    ReleaseLease,
    Settle,
    Settled,
)
from tallystick.rpc.server import Handlers
from tallystick_server.tokens.leases import Leases


class LeaseHandlers:
    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def all(self) -> Handlers:
        return {
            SETTLE: self.settle,
            SETTLE.by_operator: self.settle,
            RENEW_LEASE: self._leases.renew,
            RELEASE_LEASE: self.release_lease,
            GET_CHANGES: self._leases.changes,
        }

    async def settle(self, request: Settle) -> Settled:
        return await self._leases.settle(request.seq)

    async def release_lease(self, request: ReleaseLease) -> Ack:
        await self._leases.release(request.edge)
        return Ack()

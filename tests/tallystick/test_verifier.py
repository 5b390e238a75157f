"""A verifier decides like an edge, from its own cache, and a revocation waits for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tallystick.coherence import propagation
from tallystick.coherence.transport import NatsTransport
from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import RateLimit, Restrictions
from tallystick.contracts.tokens import REVOKE_TOKEN, RevokeToken
from tallystick.errors import AuthError, Unavailable
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.access import AccessRequest
from tallystick.verifier import Verifier
from tests.support.coherence import leased
from tests.support.polling import until_async
from tests.support.services import issue

ACTOR = Actor(name="test")
ORDERS = AccessRequest("orders")


@pytest.fixture
async def verifier(edge_client, tokens_service) -> AsyncIterator[Verifier]:
    verifier = Verifier(max_tokens=100)
    async with verifier.run(NatsTransport(edge_client)):
        await until_async(lambda: verifier.cache.has_lease(verifier.clock()))
        yield verifier


async def reason_for(verifier: Verifier, value: str, access: AccessRequest = ORDERS) -> str | None:
    try:
        await verifier.authorize((await verifier.authenticate(value)).token, access)
    except AuthError as error:
        return error.reason
    return None


async def test_a_verifier_decides_like_an_edge(verifier, operator):
    added = await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=ACTOR))
    assert not isinstance(added, Failure)
    value, token = await issue(operator, "orders", account="alice")
    for access, reason in (
        (AccessRequest("orders", "alice"), None),
        (AccessRequest("orders", "bob"), "account_mismatch"),
        (AccessRequest("invoices", "alice"), "insufficient_scope"),
    ):
        assert await reason_for(verifier, value, access) == reason
    for other in ("nonsense", token_format.mint(), value[:-1]):
        assert await reason_for(verifier, other) == "invalid_token"
    with pytest.raises(AuthError) as caught:
        await verifier.authorize(token, AccessRequest("invoices", "alice"))
    assert (caught.value.token_id, caught.value.scope) == (token.id, "invoices")


async def test_after_a_revocation_has_returned_the_token_is_not_cached(verifier, operator):
    value, token = await issue(operator, "orders")
    await leased([verifier], operator)
    assert await reason_for(verifier, value) is None
    assert verifier.cached(value.encode()) is not None
    revoke = RevokeToken(id=token.id, actor=ACTOR)
    result = await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, revoke)
    assert not isinstance(result, Failure)
    assert result[1].edges == 1  # it waited for this verifier
    assert verifier.cached(value.encode()) is None
    with pytest.raises(AuthError) as caught:
        await verifier.authenticate(value)
    assert (caught.value.reason, caught.value.token_id, caught.value.log_reason) == (
        "invalid_token",
        token.id,
        "revoked",
    )


async def test_only_an_accepted_request_consumes_the_rate_limit(verifier, operator):
    limit = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=86_400))
    value, token = await issue(operator, "orders", restrictions=limit)
    assert await reason_for(verifier, value, AccessRequest("invoices")) == "insufficient_scope"
    verifier.check(token, ORDERS)
    reasons = [await reason_for(verifier, value) for _ in range(3)]
    assert reasons == [None, None, "rate_limited"]


async def test_without_a_reply_a_verifier_raises_unavailable(edge_client):
    verifier = Verifier(max_tokens=100)
    async with verifier.run(NatsTransport(edge_client)):
        with pytest.raises(Unavailable):
            await verifier.authenticate(token_format.mint())


async def test_a_lease_ends_by_the_clock_of_its_verifier(edge_client, tokens_service, operator):
    """No part of it reads the machine's clock directly."""
    time = 1_000_000.0
    verifier = Verifier(max_tokens=100, clock=lambda: time)
    async with verifier.run(NatsTransport(edge_client)):
        async with asyncio.timeout(30):
            while not verifier.cache.has_lease(time):
                await asyncio.sleep(0.01)
        value, _ = await issue(operator, "orders")
        await verifier.authenticate(value)
        await until_async(lambda: verifier.cached(value.encode()) is not None)
        time += 3600
        assert verifier.cached(value.encode()) is None

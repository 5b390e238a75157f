"""A verifier in any process decides as an edge does, from its own cache, and a revocation waits for it."""

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


async def test_it_decides_as_an_edge_does(verifier, operator):
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


async def test_once_a_revocation_has_returned_the_cache_does_not_have_the_token(verifier, operator):
    value, token = await issue(operator, "orders")
    await leased([verifier], operator)
    assert await reason_for(verifier, value) is None
    assert verifier.cached(value.encode()) is not None
    revoke = RevokeToken(id=token.id, actor=ACTOR)
    done = await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, revoke)
    assert not isinstance(done, Failure)
    assert done[1].edges == 1  # it waited for this verifier
    assert verifier.cached(value.encode()) is None
    with pytest.raises(AuthError) as caught:
        await verifier.authenticate(value)
    assert (caught.value.reason, caught.value.token_id, caught.value.log_reason) == (
        "invalid_token",
        token.id,
        "revoked",
    )


async def test_it_uses_up_a_rate_limit_only_where_it_accepts(verifier, operator):
    limit = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=86_400))
    value, token = await issue(operator, "orders", restrictions=limit)
    assert await reason_for(verifier, value, AccessRequest("invoices")) == "insufficient_scope"
    verifier.check(token, ORDERS)
    reasons = [await reason_for(verifier, value) for _ in range(3)]
    assert reasons == [None, None, "rate_limited"]


async def test_without_an_answer_it_says_so_and_never_no(edge_client):
    verifier = Verifier(max_tokens=100)
    async with verifier.run(NatsTransport(edge_client)):
        with pytest.raises(Unavailable):
            await verifier.authenticate(token_format.mint())


async def test_a_lease_by_another_clock_ends_by_that_clock(edge_client, tokens_service, operator):
    """Nothing reads the machine's clock behind its back."""
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

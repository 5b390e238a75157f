"""The coherent cache on real servers: two edges and the tokens service in this loop."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import nats
import pytest
from nats.aio.client import Client

from tallystick import connection as bus
from tallystick.coherence import propagation
from tallystick.contracts.accounts import ADD_ACCOUNT, DELETE_ACCOUNT, AddAccount, DeleteAccount
from tallystick.contracts.imports import IMPORT_TOKENS, ImportTokens
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.propagation import RENEW_LEASE, SETTLE, RenewLease, Settle, Settled
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    EditToken,
    RestrictionsUpdate,
    RevokeToken,
    RotateToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.runtime import postgres
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app as tokens_app
from tallystick_server.tokens.settings import Settings as TokensSettings
from tallystick_server.tokens.store.queries import Store
from tests.support.coherence import leased
from tests.support.polling import until_async
from tests.support.servers import Database, Nats
from tests.support.services import issue, lifespan, running

LEASE_S = 1.0
OPERATOR = Actor(name="test")


@asynccontextmanager
async def tokens_running(
    database: Database, nats_server: Nats, operator: Client, lease_s: float = LEASE_S
) -> AsyncIterator[None]:
    """The tokens service, with a short lease."""
    settings = TokensSettings(
        nats_url=nats_server.tokens, database_url=database.tokens, startup_timeout_s=10, cache_lease_s=lease_s
    )
    stop = Shutdown()
    service = tokens_app.run(settings, stop)
    async with running(service, stop, operator, TOKENS_STATS, AskTokensStats()):
        yield


@pytest.fixture
async def tokens(database, nats_server, operator, event_stream) -> AsyncIterator[None]:
    async with tokens_running(database, nats_server, operator):
        yield


@pytest.fixture
async def edges(nats_server, event_stream, operator) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            app = create_app(EdgeSettings(nats_url=nats_server.edge))
            await stack.enter_async_context(lifespan(app))
            clients.append(
                await stack.enter_async_context(
                    httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge")  # type: ignore[arg-type]
                )
            )
        yield clients


async def status(edge: httpx.AsyncClient, value: str) -> int:
    return (await edge.get("/auth?scope=api", headers={"authorization": f"Bearer {value}"})).status_code


async def call_and_wait(operator, operation, request):
    result = await propagation.call_and_wait(operator, operation, request)
    assert not isinstance(result, Failure), result
    return result


async def test_a_revoked_token_is_rejected_by_every_edge_at_once(tokens, edges, operator):
    await leased(edges, operator)
    for _ in range(20):
        value, token = await issue(operator, "api")
        assert [await status(edge, value) for edge in edges] == [200, 200]
        _, outcome = await call_and_wait(
            operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR)
        )
        assert [await status(edge, value) for edge in edges] == [401, 401]
        assert outcome.edges == 2


async def test_every_other_change_takes_effect_at_once(tokens, edges, operator):
    value, token = await issue(operator, "api")
    await leased(edges, operator)

    async def change(**fields) -> None:
        changes = TokenUpdate(**fields)
        await call_and_wait(
            operator, EDIT_TOKEN.by_operator, EditToken(id=token.id, changes=changes, actor=OPERATOR)
        )

    for fields, expected in (
        ({}, 200),
        ({"disabled": True}, 401),
        ({"disabled": False}, 200),
        ({"scopes": ("metrics",)}, 403),
        ({"scopes": ("api",)}, 200),
        ({"restrictions": RestrictionsUpdate(addresses=("192.0.2.1",))}, 403),
    ):
        await change(**fields)
        assert [await status(edge, value) for edge in edges] == [expected] * 2, fields


async def test_deleting_an_account_revokes_its_tokens_at_once(tokens, edges, operator):
    await leased(edges, operator)
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=OPERATOR))
    values = [(await issue(operator, "api", account="alice"))[0] for _ in range(3)]
    for edge in edges:
        for value in values:
            response = await edge.get(
                "/auth?scope=api&account=alice", headers={"authorization": f"Bearer {value}"}
            )
            assert response.status_code == 200
    await call_and_wait(operator, DELETE_ACCOUNT.by_operator, DeleteAccount(account="alice", actor=OPERATOR))
    for edge in edges:
        assert [await status(edge, value) for value in values] == [401] * 3


async def test_a_warm_check_sends_no_message(tokens, edges, operator, nats_server):
    value, _ = await issue(operator, "api")
    await leased(edges, operator)
    assert await status(edges[0], value) == 200
    subjects: list[str] = []

    async def watch(message) -> None:
        subjects.append(message.subject)

    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe("tallystick.v1.tokens.>", cb=watch)
    await bus.subscribed(watcher)
    for _ in range(50):
        assert await status(edges[0], value) == 200
    assert subjects == []
    assert await status(edges[1], value) == 200
    await watcher.flush()
    # The edge repeats the request if the reply is slow.
    await until_async(lambda: set(subjects) == {VERIFY.subject})
    await watcher.close()


async def test_concurrent_requests_share_one_lookup(tokens, edges, operator, nats_server):
    value, _ = await issue(operator, "api")
    await leased(edges, operator)
    reply_subjects: list[str] = []

    async def watch(message) -> None:
        reply_subjects.append(message.reply)

    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe(VERIFY.subject, cb=watch)
    await bus.subscribed(watcher)
    assert await asyncio.gather(*(status(edges[0], value) for _ in range(50))) == [200] * 50
    await watcher.flush()
    # The edge repeats the request if the reply is slow; it is still one lookup.
    assert len(set(reply_subjects)) == 1
    await watcher.close()


async def test_a_silent_edge_delays_a_revocation_by_at_most_its_lease(tokens, edges, operator, nats_server):
    value, token = await issue(operator, "api")
    await leased(edges, operator)
    async with bus.connect(nats_server.edge, "edge", wait_s=5) as silent:
        await call(silent, RENEW_LEASE, RenewLease(edge=new_id("edge_")))
        start = time.monotonic()
        _, outcome = await call_and_wait(
            operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR)
        )
    assert LEASE_S / 2 < time.monotonic() - start < LEASE_S + 1
    assert outcome.edges == 2
    assert [await status(edge, value) for edge in edges] == [401, 401]


async def test_a_disconnected_edge_serves_from_its_cache_until_its_lease_expires(
    database, edges, operator, nats_server, event_stream
):
    lease_s = 6.0  # outlasts the shutdown of the service, also on a busy machine
    async with tokens_running(database, nats_server, operator, lease_s):
        value, _ = await issue(operator, "api")
        await leased(edges, operator)
        assert await status(edges[0], value) == 200
    assert await status(edges[0], value) == 200
    assert await status(edges[1], value) == 503, "this edge never cached the token"
    async with asyncio.timeout(lease_s + 2):
        while await status(edges[0], value) != 503:
            await asyncio.sleep(0.02)
    async with tokens_running(database, nats_server, operator):
        async with asyncio.timeout(5):
            while await status(edges[0], value) != 200:
                await asyncio.sleep(0.02)


async def test_a_change_whose_notice_is_lost_is_detected(tokens, edges, operator, database):
    """The replica that made the change died before it published the notice."""
    value, token = await issue(operator, "api")
    await leased(edges, operator)
    assert [await status(edge, value) for edge in edges] == [200, 200]
    async with (
        postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool,
        Store(pool).change(OPERATOR) as change,
    ):
        await change.revoke([token.id])
    async with asyncio.timeout(LEASE_S):
        while [await status(edge, value) for edge in edges] != [401, 401]:
            await asyncio.sleep(0.02)


async def test_more_changes_than_one_notice_holds_leave_no_stale_entry(tokens, edges, operator, database):
    await leased(edges, operator)
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="many", actor=OPERATOR))
    value, _ = await issue(operator, "api", account="many")
    async with (
        postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool,
        Store(pool).change(OPERATOR) as change,
    ):
        for _ in range(500):
            new_token = NewToken(scopes=("api",), account="many")
            digest = token_format.new_secret().digest
            await change.insert(TokenRecord(id=new_id("tok_"), digest=digest, token=new_token))
    headers = {"authorization": f"Bearer {value}"}
    assert (await edges[0].get("/auth?scope=api&account=many", headers=headers)).status_code == 200
    await call_and_wait(operator, DELETE_ACCOUNT.by_operator, DeleteAccount(account="many", actor=OPERATOR))
    assert (await edges[0].get("/auth?scope=api&account=many", headers=headers)).status_code == 401


async def test_a_token_imported_after_a_rejection_is_accepted_at_once(tokens, edges, operator):
    await leased(edges, operator)
    value = token_format.mint()
    assert [await status(edge, value) for edge in edges] == [401, 401]
    record = TokenRecord(
        id=new_id("tok_"), digest=str(token_format.digest(value)), token=NewToken(scopes=("api",))
    )
    await call_and_wait(operator, IMPORT_TOKENS, ImportTokens(records=(record,), actor=OPERATOR))
    assert [await status(edge, value) for edge in edges] == [200, 200]


async def test_a_rotated_token_expires_with_its_grace_period_without_a_further_notice(
    tokens, edges, operator
):
    value, token = await issue(operator, "api")
    await leased(edges, operator)
    secret = token_format.new_secret()
    request = RotateToken(id=token.id, grace=1, digest=secret.digest, hint=secret.hint, actor=OPERATOR)
    await call_and_wait(operator, ROTATE_TOKEN.by_operator, request)
    assert await status(edges[0], value) == 200
    assert await status(edges[0], secret.value) == 200
    async with asyncio.timeout(3):
        while await status(edges[0], value) == 200:
            await asyncio.sleep(0.02)
    assert await status(edges[0], secret.value) == 200


async def test_an_edge_that_stops_releases_its_lease(tokens, operator, nats_server, event_stream):
    app = create_app(EdgeSettings(nats_url=nats_server.edge))
    async with lifespan(app):
        await leased([None], operator)
    start = time.monotonic()
    settled = await call(operator, SETTLE.by_operator, Settle())
    assert isinstance(settled, Settled)
    assert (settled.settled, settled.edges) == (True, 0)
    assert time.monotonic() - start < LEASE_S / 2

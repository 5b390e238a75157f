"""Rotation chains and descendants: what a revocation and a disable cover, and what a rotated token may still do."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tallystick.contracts.accounts import ADD_ACCOUNT, DELETE_ACCOUNT, AddAccount, DeleteAccount
from tallystick.contracts.imports import IMPORT_TOKENS, Imported, ImportTokens
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Failure
from tallystick.contracts.quotas import TAKE_QUOTA, Quota, TakeQuota
from tallystick.contracts.records import NewToken, RateLimit, Restrictions
from tallystick.contracts.tokens import (
    GET_TOKEN,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    GetToken,
    ListTokens,
    RevokeAll,
    RevokeToken,
)
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app
from tallystick_server.tokens.settings import Settings
from tests.support.servers import Database, Nats
from tests.support.services import running
from tests.tallystick_server.tokens.chains import OPERATOR, Caller, IssuedToken


@pytest.fixture
async def duty(caller: Caller) -> IssuedToken:
    """A token that may delete tokens and nothing else."""
    token: IssuedToken = await caller.create("api:tokens:delete")
    return token


async def chain_of(caller: Caller, length: int, **fields) -> list[IssuedToken]:
    """A chain that the operator rotated with long grace periods, oldest first."""
    chain = [await caller.create("orders", **fields)]
    for _ in range(length - 1):
        chain.append(await caller.rotate(chain[-1]))
    return chain


async def test_a_revocation_covers_the_whole_chain_and_is_idempotent(caller, duty, subtests: pytest.Subtests):
    for position in range(3):
        with subtests.test(position=position):
            chain = await chain_of(caller, 3)
            ids = tuple(token.id for token in chain)
            for _ in range(2):
                revoked = await caller.revoke(chain[position], by=duty)
                assert (revoked.deleted, revoked.covered) == (True, ids)
            assert not any(await caller.valid(*chain))


async def test_a_predecessor_behind_an_expired_one_is_covered(caller):
    """A5: the first one's grace outlives the second one."""
    first = await caller.create("orders")
    second = await caller.rotate(first, grace=3600)
    third = await caller.rotate(second, grace=0)
    revoked = await caller.revoke(third)
    assert revoked.covered == (first.id, third.id), "the second one had expired"
    assert not any(await caller.valid(first, second, third))


async def test_revoking_a_stolen_token_revokes_its_successor(caller, duty, subtests: pytest.Subtests):
    """A4: a stolen token rotates itself; the owner knows the token that was stolen."""
    for by in ("id", "digest", "itself"):
        with subtests.test(by=by):
            stolen = await caller.create("orders")
            successor = await caller.rotate(stolen, by=stolen)
            if by == "id":
                await caller.revoke(stolen, by=duty)
            elif by == "digest":
                await caller.call(REVOKE_TOKEN, RevokeToken, duty, digest=stolen.digest)
            else:
                assert (await caller.revoke(stolen, by=stolen)).covered == (stolen.id, successor.id)
            assert not any(await caller.valid(stolen, successor))


async def test_a_token_that_revokes_itself_spares_an_administrator_s_successor(caller):
    first = await caller.create("orders")
    second = await caller.rotate(first, by=first)
    third = await caller.rotate(second)
    revoked = await caller.revoke(first, by=first)
    assert revoked.covered == (first.id, second.id)
    assert await caller.valid(first, second, third) == [False, False, True]


async def test_a_revocation_can_cover_the_predecessors_only(caller, duty):
    chain = await chain_of(caller, 3)
    revoked = await caller.revoke(chain[2], by=duty, only="predecessors")
    assert revoked.covered == (chain[0].id, chain[1].id)
    assert await caller.valid(*chain) == [False, False, True]
    assert (await caller.revoke(chain[2], by=duty, only="predecessors")).covered == revoked.covered


async def test_a_disable_covers_the_chain_and_an_enable_restores_the_same_tokens(caller, duty):
    first, second, third = await chain_of(caller, 3)
    disabled = await caller.edit(second, by=duty, disabled=True)
    assert disabled.covered == (first.id, second.id, third.id)
    assert (await caller.edit(second, by=duty, disabled=True)).covered == disabled.covered
    assert not any(await caller.valid(first, second, third))
    assert await caller.edit(third, by=duty, disabled=False) == "insufficient_scope"
    lesser = await caller.create("api:tokens:write")
    assert await caller.edit(third, by=lesser, disabled=False) == "exceeds_authority"
    authorized = await caller.create("api:tokens:write", "orders")
    enabled = await caller.edit(third, by=authorized, disabled=False)
    assert enabled.covered == disabled.covered
    assert all(await caller.valid(first, second, third))


async def test_enabling_extends_no_grace_period(caller):
    first = await caller.create("orders")
    second = await caller.rotate(first, grace=1)
    await caller.edit(second, disabled=True)
    async with asyncio.timeout(20):
        while (await caller.call(GET_TOKEN, GetToken, id=first.id)).expires > datetime.now(UTC):
            await asyncio.sleep(0.05)
    await caller.edit(second, disabled=False)
    assert await caller.valid(first, second) == [False, True]


async def test_a_successor_of_a_disabled_token_is_enabled_with_it(caller):
    first = await caller.create("orders")
    await caller.edit(first, disabled=True)
    second = await caller.rotate(first)
    assert not any(await caller.valid(first, second))
    assert (await caller.edit(second, disabled=False)).covered == (first.id, second.id)
    assert all(await caller.valid(first, second))


async def test_in_its_grace_period_a_token_cannot_change_its_chain(caller):
    """A12: with the old secret, nobody must be able to lock out the owner of the new one."""
    await caller.call(ADD_ACCOUNT, AddAccount, account="alice")
    first = await caller.create("api")
    second = await caller.rotate(first)
    attempts = {
        "rotate": await caller.rotate(second, by=first),
        "edit": await caller.edit(second, by=first, description="x"),
        "disable": await caller.edit(second, by=first, disabled=True),
        "disable itself": await caller.edit(first, by=first, disabled=True),
        "revoke": await caller.revoke(second, by=first),
        "end grace": await caller.revoke(second, by=first, only="predecessors"),
    }
    assert set(attempts.values()) == {"exceeds_authority"}, attempts
    assert await caller.rotate(first, by=first) == "conflict"
    other = await caller.create("orders")
    in_a_minute = datetime.now(UTC) + timedelta(minutes=1)
    assert isinstance(await caller.create("api", by=first, expires=in_a_minute), IssuedToken), (
        "its other permissions stay"
    )
    assert (await caller.revoke(other, by=first)).deleted
    assert (await caller.revoke(first, by=first)).covered == (first.id,)
    assert await caller.valid(first, second) == [False, True]


async def test_in_its_grace_period_a_token_cannot_revoke_its_chain_with_its_account(
    caller, subtests: pytest.Subtests
):
    for account, operation, kind in (
        ("alice", REVOKE_ALL, RevokeAll),
        ("bob", DELETE_ACCOUNT, DeleteAccount),
    ):
        with subtests.test(kind.__name__):
            await caller.call(ADD_ACCOUNT, AddAccount, account=account)
            first = await caller.create("api", account=account)
            second = await caller.rotate(first)
            reply = await caller.call(operation, kind, first, account=account)
            assert reply.code == "exceeds_authority"
            assert all(await caller.valid(first, second))


async def test_self_rotation_leaves_at_most_three_valid_secrets(caller):
    """A19"""
    chain = [await caller.create("orders")]
    for _ in range(2):
        chain.append(await caller.rotate(chain[-1], by=chain[-1]))
    assert await caller.rotate(chain[-1], by=chain[-1]) == "conflict"
    assert all(await caller.valid(*chain))
    assert isinstance(await caller.rotate(chain[-1], by=chain[-1], grace=0), IssuedToken), (
        "without a grace period, the number of valid secrets stays the same"
    )
    assert sum(await caller.valid(*chain)) == 2


async def test_the_grace_period_of_a_self_rotation_is_limited(caller):
    token = await caller.create("orders")
    day = 24 * 3600
    assert await caller.rotate(token, by=token, grace=day + 1) == "bad_request"
    assert isinstance(await caller.rotate(token, by=token, grace=day), IssuedToken)
    other = await caller.create("orders")
    assert isinstance(await caller.rotate(other, grace=30 * day), IssuedToken), (
        "an operator may set a longer one"
    )


async def test_the_limits_are_settings(
    database: Database, nats_server: Nats, event_stream, edge_client, operator
):
    stop = Shutdown()
    settings = Settings(
        nats_url=nats_server.tokens,
        database_url=database.tokens,
        startup_timeout_s=10,
        self_rotation_max_grace_s=5,
        max_tokens_per_creator=2,
    )
    async with running(app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats()):
        caller = Caller(edge_client, operator)
        creator = await caller.create("api")
        assert await caller.rotate(creator, by=creator, grace=6) == "bad_request"
        first, second = [await caller.create("api", by=creator) for _ in range(2)]
        assert await caller.create("api", by=creator) == "conflict"
        successor = await caller.rotate(creator)
        assert await caller.create("api", by=successor) == "conflict", "a chain counts as one creator"
        await caller.revoke(first)
        assert isinstance(await caller.create("api", by=successor), IssuedToken)
        assert isinstance(await caller.create("api", by=second), IssuedToken)


async def test_descendants_are_listed_and_revoked(caller, duty):
    """F2: a leaked token created others, which created others."""
    leaked = await caller.create("api", "orders")
    child = await caller.create("api", "orders", by=leaked)
    grandchild = await caller.create("orders", by=child)
    replaced = await caller.create("orders")
    rotated = await caller.rotate(replaced, by=leaked)
    other = await caller.create("orders")
    below = {child.id, grandchild.id, replaced.id, rotated.id}

    revoked = await caller.revoke(leaked, by=duty)
    assert (revoked.covered, revoked.living_descendants) == ((leaked.id,), 4)
    assert await caller.valid(child, grandchild, replaced, rotated, other) == [True] * 5
    listed = await caller.revoke(leaked, by=duty, descendants=True, dry_run=True)
    assert (listed.deleted, set(listed.descendants)) == (False, below)
    assert await caller.valid(child, grandchild, replaced, rotated, other) == [True] * 5
    revoked = await caller.revoke(leaked, by=duty, descendants=True)
    assert (set(revoked.descendants), revoked.living_descendants) == (below, 0)
    assert await caller.valid(child, grandchild, replaced, rotated, other) == [False] * 4 + [True]
    token_page = await caller.call(LIST_TOKENS, ListTokens, created_by=leaked.id, state="revoked")
    assert {token.id for token in token_page.tokens} == {child.id, rotated.id}


async def test_revoking_its_own_descendants_needs_the_scope_too(caller, duty):
    creator = await caller.create("api:tokens:write", "orders")
    child = await caller.create("orders", by=creator)
    assert await caller.revoke(creator, by=creator, descendants=True) == "insufficient_scope"
    assert all(await caller.valid(creator, child))


async def test_the_caller_s_own_chain_is_revoked_last_and_reported(caller, database):
    root = await caller.create("api")
    own = await caller.create("api", by=root)
    sibling = await caller.create("api", by=root)
    revoked = await caller.revoke(root, by=own, descendants=True)
    assert revoked.own_chain == (own.id,)
    assert not any(await caller.valid(root, own, sibling))
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    rows = await connection.fetch("select token from audit where action = 'token.revoked' order by id")
    await connection.close()
    assert rows[-1]["token"] == own.id


async def test_an_account_bound_token_creates_tokens_only_with_the_literal_scope(caller, operator):
    await caller.call(ADD_ACCOUNT, AddAccount, account="alice")
    for scopes, code in (
        (("api",), "insufficient_scope"),
        (("*",), "insufficient_scope"),
        (("api:tokens",), None),
        (("api:tokens:write", "api:tokens:read"), None),
    ):
        bound = await caller.create(*scopes, account="alice")
        created = await caller.create("api:tokens:read", account="alice", by=bound)
        assert (created if isinstance(created, str) else None) == code, scopes
    secret = token_format.new_secret()
    record = TokenRecord(
        id=new_id("tok_"),
        digest=secret.digest,
        token=NewToken(scopes=("api:tokens",), account="alice"),
    )
    imported = await call(operator, IMPORT_TOKENS, ImportTokens(records=(record,), actor=OPERATOR))
    assert isinstance(imported, Imported)
    bound = IssuedToken(record.id, secret.digest, bound.token)
    assert await caller.create("api:tokens:read", account="alice", by=bound) == "insufficient_scope"
    successor = await caller.rotate(bound)
    assert await caller.create("api:tokens:read", account="alice", by=successor) == "insufficient_scope"


async def test_an_account_bound_token_may_disable_and_revoke_tokens_of_its_account_only(caller):
    for account in ("alice", "bob"):
        await caller.call(ADD_ACCOUNT, AddAccount, account=account)
    bound = await caller.create("api:tokens", account="alice")
    same, foreign, free = (
        await caller.create("api:tokens", account="alice"),
        await caller.create("api:tokens", account="bob"),
        await caller.create("api:tokens"),
    )
    for other in (same, foreign, free):
        assert await caller.edit(other, by=bound, description="x") == "account_mismatch"
        assert await caller.rotate(other, by=bound) == "account_mismatch"
    for other in (foreign, free):
        assert await caller.edit(other, by=bound, disabled=True) == "account_mismatch"
        assert await caller.revoke(other, by=bound) == "account_mismatch"
        assert (await caller.call(GET_TOKEN, GetToken, bound, id=other.id)).code == "account_mismatch"
    unknown = await caller.call(GET_TOKEN, GetToken, bound, id=new_id("tok_"))
    assert unknown.code == "account_mismatch", "the reply does not reveal which ids exist"
    assert (await caller.call(GET_TOKEN, GetToken, bound, id=same.id)).id == same.id
    assert (await caller.edit(same, by=bound, disabled=True)).disabled
    assert (await caller.revoke(same, by=bound)).deleted
    assert (await caller.edit(bound, by=bound, description="mine")).description == "mine"


async def test_a_token_that_a_rate_limited_one_rotates_shares_its_count(caller, edge_client):
    """A11"""
    limits = Restrictions(rate_limit=RateLimit(max_requests=5, time_window=86_400))
    creator = await caller.create("api", restrictions=limits)
    sibling = await caller.create("api", restrictions=limits)
    successor = await caller.rotate(sibling, by=creator)
    granted = 0
    for _ in range(5):
        for token in (creator, successor):
            quota = await call(edge_client, TAKE_QUOTA, TakeQuota(id=token.id))
            assert isinstance(quota, Quota)
            granted += quota.granted
    assert granted == 5


async def test_no_token_outlives_its_account_by_self_rotation(caller, subtests: pytest.Subtests):
    """A3: the token rotates itself in a loop while its account's tokens are revoked."""
    for operation, kind in ((DELETE_ACCOUNT, DeleteAccount), (REVOKE_ALL, RevokeAll)):
        for attempt in range(8):
            with subtests.test(kind.__name__, attempt=attempt):
                account = f"{kind.__name__}-{attempt}"
                await caller.call(ADD_ACCOUNT, AddAccount, account=account)
                token = await caller.create("orders", account=account)
                chain = [token]

                async def keep_rotating(chain: list[IssuedToken] = chain) -> None:
                    while isinstance(
                        successor := await caller.rotate(chain[-1], by=chain[-1], grace=0), IssuedToken
                    ):
                        chain.append(successor)

                task = asyncio.create_task(keep_rotating())
                while len(chain) < 3:
                    await asyncio.sleep(0.001)
                reply = await caller.call_until_available(operation, kind, account=account)
                assert reply.tokens > 0
                async with asyncio.timeout(20):
                    await task
                assert not any(await caller.valid(*chain))


async def test_no_token_is_created_for_an_account_that_is_being_deleted(caller):
    """A3, for creations: another token keeps creating tokens for the account."""
    creator = await caller.create("api")
    for attempt in range(8):
        account = f"account{attempt}"
        await caller.call(ADD_ACCOUNT, AddAccount, account=account)
        tokens = [await caller.create("api", account=account, by=creator)]

        async def keep_creating(account: str = account, tokens: list[IssuedToken] = tokens) -> None:
            while isinstance(created := await caller.create("api", account=account, by=creator), IssuedToken):
                tokens.append(created)

        tasks = [asyncio.create_task(keep_creating()) for _ in range(3)]
        while len(tokens) < 5:
            await asyncio.sleep(0.001)
        deleted = await caller.call_until_available(DELETE_ACCOUNT, DeleteAccount, account=account)
        assert not isinstance(deleted, Failure), deleted
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        assert not any(await caller.valid(*tokens)), attempt


async def test_fifty_concurrent_changes_of_one_family_and_account_do_not_deadlock(caller, database):
    await caller.call(ADD_ACCOUNT, AddAccount, account="alice")
    root = await caller.create("api")
    creators = [await caller.create("api", by=root) for _ in range(4)]
    bound = [await caller.create("api", account="alice", by=root) for _ in range(4)]
    connection = await asyncpg.connect(database.owner)
    count = "select deadlocks from pg_stat_database where datname = current_database()"
    before = await connection.fetchval(count)
    calls: list[Any] = []
    for n in range(50):
        creator, target = creators[n % 4], bound[n % 3]
        match n % 7:
            case 0:
                calls.append(caller.edit(creators[(n + 1) % 4], by=creator, description=str(n)))
            case 1:
                calls.append(caller.rotate(target, by=creator, grace=60))
            case 2:
                calls.append(caller.create("api", account="alice", by=creator))
            case 3:
                calls.append(caller.revoke(bound[3], by=creator, descendants=True))
            case 4:
                calls.append(caller.call(REVOKE_ALL, RevokeAll, creator, account="alice"))
            case 5:
                calls.append(caller.edit(root, by=creator, description=str(n)))
            case _:
                calls.append(caller.revoke(root, by=creator, descendants=True, dry_run=True))
    replies = await asyncio.gather(*calls)
    assert len(replies) == 50
    codes = [getattr(reply, "code", reply) for reply in replies]
    assert "internal" not in codes
    await connection.execute("select pg_stat_force_next_flush()")
    assert await connection.fetchval(count) == before
    await connection.close()

"""Rotation chains and descendants: what a revocation and a disable cover, and what a replaced secret may still do."""

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
from tests.tallystick_server.tokens.chains import OPERATOR, Caller, Held


@pytest.fixture
async def duty(caller: Caller) -> Held:
    """Who may delete tokens and nothing else."""
    held: Held = await caller.create("api:tokens:delete")
    return held


async def chain_of(caller: Caller, length: int, **fields) -> list[Held]:
    """A token that was rotated by the operator, with long grace periods; oldest first."""
    chain = [await caller.create("orders", **fields)]
    for _ in range(length - 1):
        chain.append(await caller.rotate(chain[-1]))
    return chain


async def test_a_revocation_covers_the_whole_chain_and_says_so_again(caller, duty, subtests: pytest.Subtests):
    for place in range(3):
        with subtests.test(place=place):
            chain = await chain_of(caller, 3)
            ids = tuple(each.id for each in chain)
            for _ in range(2):
                revoked = await caller.revoke(chain[place], by=duty)
                assert (revoked.deleted, revoked.covered) == (True, ids)
            assert not any(await caller.valid(*chain))


async def test_a_predecessor_behind_one_that_is_over_is_covered(caller):
    """A5: the first one's grace outlives the second one."""
    first = await caller.create("orders")
    second = await caller.rotate(first, grace=3600)
    third = await caller.rotate(second, grace=0)
    revoked = await caller.revoke(third)
    assert revoked.covered == (first.id, third.id), "the second one had ended by itself"
    assert not any(await caller.valid(first, second, third))


async def test_a_thief_s_successor_ends_with_the_token_that_the_owner_knows(
    caller, duty, subtests: pytest.Subtests
):
    """A4: a stolen token rotates itself; the owner knows the token that was stolen."""
    for by in ("id", "digest", "itself"):
        with subtests.test(by=by):
            stolen = await caller.create("orders")
            successor = await caller.rotate(stolen, by=stolen)
            if by == "id":
                await caller.revoke(stolen, by=duty)
            elif by == "digest":
                await caller.ask(REVOKE_TOKEN, RevokeToken, duty, digest=stolen.digest)
            else:
                assert (await caller.revoke(stolen, by=stolen)).covered == (stolen.id, successor.id)
            assert not any(await caller.valid(stolen, successor))


async def test_a_secret_that_revokes_itself_leaves_an_administrator_s_successor(caller):
    first = await caller.create("orders")
    second = await caller.rotate(first, by=first)
    third = await caller.rotate(second)
    revoked = await caller.revoke(first, by=first)
    assert revoked.covered == (first.id, second.id)
    assert await caller.valid(first, second, third) == [False, False, True]


async def test_only_the_predecessors_end_where_that_is_asked_for(caller, duty):
    chain = await chain_of(caller, 3)
    revoked = await caller.revoke(chain[2], by=duty, only="predecessors")
    assert revoked.covered == (chain[0].id, chain[1].id)
    assert await caller.valid(*chain) == [False, False, True]
    assert (await caller.revoke(chain[2], by=duty, only="predecessors")).covered == revoked.covered


async def test_a_disable_covers_the_chain_and_an_enable_restores_exactly_that(caller, duty):
    first, second, third = await chain_of(caller, 3)
    disabled = await caller.edit(second, by=duty, disabled=True)
    assert disabled.covered == (first.id, second.id, third.id)
    assert (await caller.edit(second, by=duty, disabled=True)).covered == disabled.covered
    assert not any(await caller.valid(first, second, third))
    assert await caller.edit(third, by=duty, disabled=False) == "insufficient_scope"
    lesser = await caller.create("api:tokens:write")
    assert await caller.edit(third, by=lesser, disabled=False) == "exceeds_authority"
    enough = await caller.create("api:tokens:write", "orders")
    enabled = await caller.edit(third, by=enough, disabled=False)
    assert enabled.covered == disabled.covered
    assert all(await caller.valid(first, second, third))


async def test_an_enable_extends_no_grace_period(caller):
    first = await caller.create("orders")
    second = await caller.rotate(first, grace=1)
    await caller.edit(second, disabled=True)
    async with asyncio.timeout(20):
        while (await caller.ask(GET_TOKEN, GetToken, id=first.id)).expires > datetime.now(UTC):
            await asyncio.sleep(0.05)
    await caller.edit(second, disabled=False)
    assert await caller.valid(first, second) == [False, True]


async def test_a_successor_of_a_disabled_token_comes_back_with_it(caller):
    first = await caller.create("orders")
    await caller.edit(first, disabled=True)
    second = await caller.rotate(first)
    assert not any(await caller.valid(first, second))
    assert (await caller.edit(second, disabled=False)).covered == (first.id, second.id)
    assert all(await caller.valid(first, second))


async def test_in_its_grace_period_a_secret_changes_no_token_of_its_chain(caller):
    """A12: whoever found the old secret must not lock out the owner of the new one."""
    await caller.ask(ADD_ACCOUNT, AddAccount, account="alice")
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
    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert isinstance(await caller.create("api", by=first, expires=soon), Held), "the rest it may do stays"
    assert (await caller.revoke(other, by=first)).deleted
    assert (await caller.revoke(first, by=first)).covered == (first.id,)
    assert await caller.valid(first, second) == [False, True]


async def test_nor_does_it_end_its_chain_with_its_account(caller, subtests: pytest.Subtests):
    for account, operation, kind in (
        ("alice", REVOKE_ALL, RevokeAll),
        ("bob", DELETE_ACCOUNT, DeleteAccount),
    ):
        with subtests.test(kind.__name__):
            await caller.ask(ADD_ACCOUNT, AddAccount, account=account)
            first = await caller.create("api", account=account)
            second = await caller.rotate(first)
            reply = await caller.ask(operation, kind, first, account=account)
            assert reply.code == "exceeds_authority"
            assert all(await caller.valid(first, second))


async def test_self_rotation_leaves_at_most_three_valid_secrets(caller):
    """A19"""
    chain = [await caller.create("orders")]
    for _ in range(2):
        chain.append(await caller.rotate(chain[-1], by=chain[-1]))
    assert await caller.rotate(chain[-1], by=chain[-1]) == "conflict"
    assert all(await caller.valid(*chain))
    assert isinstance(await caller.rotate(chain[-1], by=chain[-1], grace=0), Held), (
        "it leaves no more of them"
    )
    assert sum(await caller.valid(*chain)) == 2


async def test_self_rotation_grants_itself_a_bounded_grace(caller):
    token = await caller.create("orders")
    day = 24 * 3600
    assert await caller.rotate(token, by=token, grace=day + 1) == "bad_request"
    assert isinstance(await caller.rotate(token, by=token, grace=day), Held)
    other = await caller.create("orders")
    assert isinstance(await caller.rotate(other, grace=30 * day), Held), "an operator may grant more"


async def test_the_bounds_are_settings(
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
        maker = await caller.create("api")
        assert await caller.rotate(maker, by=maker, grace=6) == "bad_request"
        first, second = [await caller.create("api", by=maker) for _ in range(2)]
        assert await caller.create("api", by=maker) == "conflict"
        successor = await caller.rotate(maker)
        assert await caller.create("api", by=successor) == "conflict", "a chain is one creator"
        await caller.revoke(first)
        assert isinstance(await caller.create("api", by=successor), Held)
        assert isinstance(await caller.create("api", by=second), Held)


async def test_descendants_are_listed_and_revoked(caller, duty):
    """F2: a leaked token had made others, which had made others."""
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
    token_page = await caller.ask(LIST_TOKENS, ListTokens, created_by=leaked.id, state="revoked")
    assert {token.id for token in token_page.tokens} == {child.id, rotated.id}


async def test_revoking_descendants_needs_the_scope_also_of_one_s_own(caller, duty):
    maker = await caller.create("api:tokens:write", "orders")
    child = await caller.create("orders", by=maker)
    assert await caller.revoke(maker, by=maker, descendants=True) == "insufficient_scope"
    assert all(await caller.valid(maker, child))


async def test_the_caller_s_own_chain_goes_last_and_is_named(caller, database):
    root = await caller.create("api")
    mine = await caller.create("api", by=root)
    sibling = await caller.create("api", by=root)
    revoked = await caller.revoke(root, by=mine, descendants=True)
    assert revoked.own_chain == (mine.id,)
    assert not any(await caller.valid(root, mine, sibling))
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    rows = await connection.fetch("select token from audit where action = 'token.revoked' order by id")
    await connection.close()
    assert rows[-1]["token"] == mine.id


async def test_an_account_bound_token_creates_only_where_that_was_granted(caller, operator):
    await caller.ask(ADD_ACCOUNT, AddAccount, account="alice")
    for scopes, code in (
        (("api",), "insufficient_scope"),
        (("*",), "insufficient_scope"),
        (("api:tokens",), None),
        (("api:tokens:write", "api:tokens:read"), None),
    ):
        bound = await caller.create(*scopes, account="alice")
        made = await caller.create("api:tokens:read", account="alice", by=bound)
        assert (made if isinstance(made, str) else None) == code, scopes
    secret = token_format.new_secret()
    record = TokenRecord(
        id=new_id("tok_"),
        digest=secret.digest,
        token=NewToken(scopes=("api:tokens",), account="alice"),
    )
    imported = await call(operator, IMPORT_TOKENS, ImportTokens(records=(record,), actor=OPERATOR))
    assert isinstance(imported, Imported)
    bound = Held(record.id, secret.digest, bound.token)
    assert await caller.create("api:tokens:read", account="alice", by=bound) == "insufficient_scope"
    successor = await caller.rotate(bound)
    assert await caller.create("api:tokens:read", account="alice", by=successor) == "insufficient_scope"


async def test_an_account_bound_token_changes_no_other_but_stops_those_of_its_account(caller):
    for account in ("alice", "bob"):
        await caller.ask(ADD_ACCOUNT, AddAccount, account=account)
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
        assert (await caller.ask(GET_TOKEN, GetToken, bound, id=other.id)).code == "account_mismatch"
    unknown = await caller.ask(GET_TOKEN, GetToken, bound, id=new_id("tok_"))
    assert unknown.code == "account_mismatch", "it is not told which ids exist"
    assert (await caller.ask(GET_TOKEN, GetToken, bound, id=same.id)).id == same.id
    assert (await caller.edit(same, by=bound, disabled=True)).disabled
    assert (await caller.revoke(same, by=bound)).deleted
    assert (await caller.edit(bound, by=bound, description="mine")).description == "mine"


async def test_what_a_limited_token_rotates_shares_its_count(caller, edge_client):
    """A11"""
    limits = Restrictions(rate_limit=RateLimit(max_requests=5, time_window=86_400))
    maker = await caller.create("api", restrictions=limits)
    sibling = await caller.create("api", restrictions=limits)
    successor = await caller.rotate(sibling, by=maker)
    granted = 0
    for _ in range(5):
        for each in (maker, successor):
            quota = await call(edge_client, TAKE_QUOTA, TakeQuota(id=each.id))
            assert isinstance(quota, Quota)
            granted += quota.granted
    assert granted == 5


async def test_no_secret_survives_its_account_by_rotating_itself(caller, subtests: pytest.Subtests):
    """A3: the token rotates itself in a loop while its account's tokens are revoked."""
    for operation, kind in ((DELETE_ACCOUNT, DeleteAccount), (REVOKE_ALL, RevokeAll)):
        for attempt in range(8):
            with subtests.test(kind.__name__, attempt=attempt):
                account = f"{kind.__name__}-{attempt}"
                await caller.ask(ADD_ACCOUNT, AddAccount, account=account)
                token = await caller.create("orders", account=account)
                held = [token]

                async def rotate_on(held: list[Held] = held) -> None:
                    while isinstance(successor := await caller.rotate(held[-1], by=held[-1], grace=0), Held):
                        held.append(successor)

                loop = asyncio.create_task(rotate_on())
                while len(held) < 3:
                    await asyncio.sleep(0.001)
                reply = await caller.ask_until_done(operation, kind, account=account)
                assert reply.tokens > 0
                async with asyncio.timeout(20):
                    await loop
                assert not any(await caller.valid(*held))


async def test_no_token_is_created_for_an_account_that_is_being_deleted(caller):
    """A3, for creations: a maker goes on creating tokens for the account."""
    maker = await caller.create("api")
    for attempt in range(8):
        account = f"account{attempt}"
        await caller.ask(ADD_ACCOUNT, AddAccount, account=account)
        held = [await caller.create("api", account=account, by=maker)]

        async def create_on(account: str = account, held: list[Held] = held) -> None:
            while isinstance(created := await caller.create("api", account=account, by=maker), Held):
                held.append(created)

        loops = [asyncio.create_task(create_on()) for _ in range(3)]
        while len(held) < 5:
            await asyncio.sleep(0.001)
        deleted = await caller.ask_until_done(DELETE_ACCOUNT, DeleteAccount, account=account)
        assert not isinstance(deleted, Failure), deleted
        async with asyncio.timeout(20):
            await asyncio.gather(*loops)
        assert not any(await caller.valid(*held)), attempt


async def test_fifty_changes_of_one_family_and_account_at_once_wait_for_no_deadlock(caller, database):
    await caller.ask(ADD_ACCOUNT, AddAccount, account="alice")
    root = await caller.create("api")
    makers = [await caller.create("api", by=root) for _ in range(4)]
    bound = [await caller.create("api", account="alice", by=root) for _ in range(4)]
    connection = await asyncpg.connect(database.owner)
    count = "select deadlocks from pg_stat_database where datname = current_database()"
    before = await connection.fetchval(count)
    work: list[Any] = []
    for n in range(50):
        maker, target = makers[n % 4], bound[n % 3]
        match n % 7:
            case 0:
                work.append(caller.edit(makers[(n + 1) % 4], by=maker, description=str(n)))
            case 1:
                work.append(caller.rotate(target, by=maker, grace=60))
            case 2:
                work.append(caller.create("api", account="alice", by=maker))
            case 3:
                work.append(caller.revoke(bound[3], by=maker, descendants=True))
            case 4:
                work.append(caller.ask(REVOKE_ALL, RevokeAll, maker, account="alice"))
            case 5:
                work.append(caller.edit(root, by=maker, description=str(n)))
            case _:
                work.append(caller.revoke(root, by=maker, descendants=True, dry_run=True))
    replies = await asyncio.gather(*work)
    assert len(replies) == 50
    codes = [getattr(reply, "code", reply) for reply in replies]
    assert "internal" not in codes
    await connection.execute("select pg_stat_force_next_flush()")
    assert await connection.fetchval(count) == before
    await connection.close()

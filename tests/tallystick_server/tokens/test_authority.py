"""The tokens service over NATS: its invariants hold for concurrent, repeated and invalid requests."""

import asyncio
from typing import Any

import asyncpg
import msgspec
import pytest

from tallystick.contracts.accounts import ADD_ACCOUNT, DELETE_ACCOUNT, AddAccount, DeleteAccount
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.quotas import TAKE_QUOTA, Quota, TakeQuota
from tallystick.contracts.records import NewToken, RateLimit, Restrictions
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    CreatedToken,
    CreateToken,
    EditToken,
    RevokeToken,
    RotateToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY, VERIFY_MANY, Verdict, VerifyToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tallystick_server.runtime import postgres
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app
from tallystick_server.tokens.settings import Settings
from tallystick_server.tokens.store import schema as tokens_schema
from tests.support.servers import Database, Nats
from tests.support.services import issue, running

OPERATOR = Actor(name="test")


async def send(client, operation, request) -> Any:
    return await call(client, operation, request)


def creation(value: str, **fields) -> CreateToken:
    fields.setdefault("token", NewToken(scopes=("api",)))
    return CreateToken(digest=token_format.digest(value) or "", hint=value[:8], actor=OPERATOR, **fields)


@pytest.fixture
async def second_replica(tokens_service, database: Database, nats_server: Nats, operator):
    stop = Shutdown()
    settings = Settings(nats_url=nats_server.tokens, database_url=database.tokens, startup_timeout_s=10)
    async with running(app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats()):
        async with asyncio.timeout(30):
            while len(await replicas(operator)) < 2:
                await asyncio.sleep(0.02)
        yield


async def replicas(operator) -> dict[str, int]:
    """The number of verify requests that each replica has received, by its id."""
    inbox = operator.new_inbox()
    subscription = await operator.subscribe(inbox)
    await operator.publish("$SRV.STATS.tallystick-tokens", reply=inbox)
    counts = {}
    try:
        while True:
            message = await subscription.next_msg(timeout=0.3)
            stats = msgspec.json.decode(message.data)
            counts[stats["id"]] = next(
                endpoint["num_requests"]
                for endpoint in stats["endpoints"]
                if endpoint["name"] == "tokens-verify"
            )
    except TimeoutError:
        return counts
    finally:
        await subscription.unsubscribe()


async def test_replicas_share_the_requests(second_replica, operator):
    value, _ = await issue(operator)
    request = VerifyToken(digest=token_format.digest(value) or "")
    verdicts = await asyncio.gather(*(send(operator, VERIFY, request) for _ in range(100)))
    assert all(isinstance(verdict, Verdict) and verdict.code == "active" for verdict in verdicts)
    assert all(count > 10 for count in (await replicas(operator)).values())


async def test_a_token_is_verified_with_or_without_a_scope(second_replica, operator):
    await send(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=OPERATOR))
    value, _ = await issue(operator, account="alice")
    for fields, code in (
        ({}, "active"),
        ({"account": "alice"}, "active"),
        ({"account": "bob"}, "account_mismatch"),
        ({"address": "192.0.2.1"}, "active"),
        ({"scope": "*"}, "account_mismatch"),
    ):
        verdict = await send(operator, VERIFY, VerifyToken(digest=token_format.digest(value) or "", **fields))
        assert verdict.code == code, fields


async def test_of_many_concurrent_first_tokens_one_is_created(second_replica, operator):
    replies = await asyncio.gather(
        *(
            send(operator, CREATE_TOKEN.by_operator, creation(token_format.mint(), first_only=True))
            for _ in range(10)
        )
    )
    assert sum(isinstance(reply, CreatedToken) for reply in replies) == 1
    assert {reply.code for reply in replies if isinstance(reply, Failure)} == {"conflict"}


async def test_concurrent_requests_with_the_same_key_create_one_token(second_replica, operator):
    replies = await asyncio.gather(
        *(
            send(operator, CREATE_TOKEN.by_operator, creation(token_format.mint(), idempotency_key="k"))
            for _ in range(8)
        )
    )
    created = [reply for reply in replies if isinstance(reply, CreatedToken)]
    assert len(created) == 8
    assert len({reply.token.id for reply in created}) == 1
    assert sum(not reply.replayed for reply in created) == 1


async def test_a_rate_limit_is_exact_across_replicas(second_replica, operator, edge_client):
    limit = Restrictions(rate_limit=RateLimit(max_requests=50, time_window=86_400))
    _, token = await issue(operator, "api", restrictions=limit)

    async def take() -> Quota:
        # A take whose reply does not come in time is repeated, and counts once.
        request = TakeQuota(id=token.id, holder=new_id("holder_"))
        async with asyncio.timeout(30):
            while isinstance(quota := await send(edge_client, TAKE_QUOTA, request), Failure):
                assert quota.code == "unavailable"
        assert isinstance(quota, Quota)
        return quota

    quotas = await asyncio.gather(*(take() for _ in range(120)))
    assert sum(quota.granted for quota in quotas) == 50


async def test_another_service_may_verify(tokens_service, operator, service_client):
    value, _ = await issue(operator, "orders", description="for orders")
    digest = token_format.digest(value)
    for scope, code in (("orders:read", "active"), ("invoices", "insufficient_scope")):
        payload = msgspec.json.encode({"digest": digest, "scope": scope})
        reply = await service_client.request(VERIFY.subject, payload, timeout=10)
        assert msgspec.json.decode(reply.data)["code"] == code
    requests = {"requests": [{"digest": digest}, {"digest": "0" * 64}]}
    reply = await service_client.request(VERIFY_MANY.subject, msgspec.json.encode(requests), timeout=10)
    codes = [verdict["code"] for verdict in msgspec.json.decode(reply.data)["verdicts"]]
    assert codes == ["active", "invalid_token"]


INVALID_DIGESTS: list[Any] = [
    "",
    "0" * 63,
    "0" * 65,
    "G" * 64,
    "A" * 64,
    "tly_" + "0" * 49,
    "0" * 63 + "\n",
    None,
    5,
    ["0"],
]


async def test_an_invalid_digest_is_a_bad_request(tokens_service, operator, subtests: pytest.Subtests):
    for digest in INVALID_DIGESTS:
        with subtests.test(digest=digest):
            payload = msgspec.json.encode({"digest": digest})
            reply = await operator.request(VERIFY.subject, payload, timeout=10)
            assert msgspec.json.decode(reply.data)["code"] == "bad_request"
            assert not isinstance(digest, str) or len(digest) < 10 or digest.encode() not in reply.data


async def test_every_change_has_an_audit_row_and_an_event(tokens_service, operator, connection, nats_server):
    _, token = await issue(operator)
    await send(
        operator,
        EDIT_TOKEN.by_operator,
        EditToken(id=token.id, changes=TokenUpdate(description="x"), actor=OPERATOR),
    )
    new = token_format.mint()
    rotation = RotateToken(
        id=token.id, grace=60, digest=token_format.digest(new) or "", hint="", actor=OPERATOR
    )
    assert isinstance(await send(operator, ROTATE_TOKEN.by_operator, rotation), CreatedToken)
    # A change that is rolled back leaves no audit row and no gap in the sequence.
    rejection = await send(operator, ROTATE_TOKEN.by_operator, rotation)
    assert isinstance(rejection, Failure)
    await send(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=OPERATOR))
    await send(operator, ADD_ACCOUNT.by_operator, AddAccount(account="a", actor=OPERATOR))
    await send(operator, DELETE_ACCOUNT.by_operator, DeleteAccount(account="a", actor=OPERATOR))
    expected = [
        "token.created",
        "token.updated",
        "token.rotated",
        "token.created",
        "token.revoked",
        "token.revoked",
        "account.added",
        "account.deleted",
    ]
    audited = [row["action"] for row in await connection.fetch("select action from audit order by id")]
    assert audited == expected
    async with asyncio.timeout(20):
        while await connection.fetchval("select count(*) from outbox"):
            await asyncio.sleep(0.02)
    assert await connection.fetchval("select n from outbox_number") == len(expected)


async def test_the_schema_is_the_result_of_the_migrations(connection, database: Database):
    assert await tokens_schema.bring_up_to_date(connection) == []
    applied = await connection.fetch("select number, checksum from migration order by number")
    assert [tuple(row) for row in applied] == [
        (migration.number, migration.checksum) for migration in tokens_schema.available_migrations()
    ]


async def test_a_schema_from_a_newer_program_is_rejected(connection):
    await connection.execute("insert into migration (number, name, checksum) values (9999, 'newer', '')")
    with pytest.raises(postgres.SchemaTooNew):
        await tokens_schema.bring_up_to_date(connection)


async def test_an_edited_migration_is_rejected(connection):
    await connection.execute("update migration set checksum = 'other'")
    with pytest.raises(postgres.MigrationChanged):
        await tokens_schema.bring_up_to_date(connection)


async def test_concurrent_migrations_apply_each_migration_once(database: Database, connection):
    await connection.execute("drop schema tokens cascade")
    other = await asyncpg.connect(database.owner)
    applied = await asyncio.gather(
        tokens_schema.bring_up_to_date(connection), tokens_schema.bring_up_to_date(other)
    )
    await other.close()
    assert sorted(map(len, applied)) == [0, len(tokens_schema.available_migrations())]

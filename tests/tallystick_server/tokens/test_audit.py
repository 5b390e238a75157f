"""The audit records changes and a bounded number of rejected attempts, and its rows never change."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tallystick.contracts.accounts import ADD_ACCOUNT, DELETE_ACCOUNT, AddAccount, DeleteAccount
from tallystick.contracts.audit import RejectedAttempt
from tallystick.contracts.metrics import EXPOSITION, AskExposition, Exposition
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken, Restrictions
from tallystick.contracts.sessions import SIGN_IN, SignIn
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    GET_LOG,
    GET_TOKEN,
    LIST_TOKENS,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    EditToken,
    GetLog,
    GetToken,
    ListTokens,
    RevokeToken,
    RotateToken,
    TokenUpdate,
)
from tallystick.rpc.call import call
from tallystick.tokens.record import TokenRecord
from tallystick_server.local import postgres as embedded
from tallystick_server.tokens.store import queries as module, schema
from tallystick_server.tokens.store.queries import MAX_REJECTIONS_PER_MINUTE, Store
from tallystick_server.tokens.store.writes import Transaction
from tests.support.servers import _database
from tests.tallystick_server.tokens.chains import IssuedToken

OTHER_ADDRESS = "198.51.100.7"


def acting(token: IssuedToken, request_id: str = "req_1") -> Actor:
    return Actor(
        token=token.digest, address=OTHER_ADDRESS, referrer="https://b.example/", request_id=request_id
    )


async def rejections(connection: asyncpg.Connection) -> list[dict[str, Any]]:
    rows = await connection.fetch("select * from audit where rejected order by id")
    return [{**row, "details": json.loads(row["details"])} for row in rows]


async def test_a_rejected_attempt_is_audited_with_its_actor_target_and_code(caller, connection):
    await caller.call(ADD_ACCOUNT, AddAccount, account="alice")
    target = await caller.create("*")
    reader = await caller.create("api:tokens:read")
    bound = await caller.create("api:tokens:delete", account="alice")
    address_bound = await caller.create("*", restrictions=Restrictions(addresses=("192.0.2.0/24",)))
    referrer_bound = await caller.create("*", restrictions=Restrictions(referrers=("https://a.example/*",)))
    writer = await caller.create("api:tokens:write")
    edit = {"id": target.id, "changes": TokenUpdate(description="x")}
    changes = await connection.fetchval("select max(seq) from change")
    for token, operation, kind, fields in (
        (reader, EDIT_TOKEN, EditToken, edit),
        (bound, REVOKE_TOKEN, RevokeToken, {"digest": target.digest}),
        (address_bound, EDIT_TOKEN, EditToken, edit),
        (referrer_bound, EDIT_TOKEN, EditToken, edit),
        (writer, EDIT_TOKEN, EditToken, edit),
        (bound, DELETE_ACCOUNT, DeleteAccount, {"account": "alice"}),
        (bound, REVOKE_TOKEN, RevokeToken, {"id": target.id, "descendants": True, "dry_run": True}),
    ):
        reply = await caller.call(operation, kind, acting(token), **fields)
        assert isinstance(reply, Failure), (token, operation)
    audited = [
        (row["actor"], row["actor_token"], row["token"], row["action"], row["details"]["code"])
        for row in await rejections(connection)
    ]
    assert audited == [
        (reader.id, reader.id, target.id, "token.edit.rejected", "insufficient_scope"),
        (bound.id, bound.id, target.id, "token.revoke.rejected", "account_mismatch"),
        (address_bound.id, address_bound.id, target.id, "token.edit.rejected", "address_not_allowed"),
        (referrer_bound.id, referrer_bound.id, target.id, "token.edit.rejected", "referrer_not_allowed"),
        (writer.id, writer.id, target.id, "token.edit.rejected", "exceeds_authority"),
        (bound.id, bound.id, None, "account.delete.rejected", "insufficient_scope"),
        (bound.id, bound.id, target.id, "token.revoke.rejected", "account_mismatch"),
    ]
    assert {(row["address"], row["request_id"]) for row in await rejections(connection)} == {
        (OTHER_ADDRESS, "req_1")
    }
    assert [row["details"].get("account") for row in await rejections(connection)][5] == "alice"
    assert await connection.fetchval("select max(seq) from change") == changes, "nothing changed"


async def test_an_attempt_with_a_session_is_audited_as_its_token(caller, connection, edge_client):
    token = await caller.create("admin")
    target = await caller.create("*")
    sign_in = await caller.call(SIGN_IN, SignIn, Actor(token=token.digest), session="5" * 64)
    assert sign_in.code == "active"
    reply = await caller.call(
        EDIT_TOKEN,
        EditToken,
        Actor(session="5" * 64),
        id=target.id,
        changes=TokenUpdate(description="x"),
    )
    assert reply.code == "insufficient_scope"
    (row,) = await rejections(connection)
    assert (row["actor"], row["token"]) == (token.id, target.id)


async def test_reads_invalid_requests_and_unknown_targets_audit_no_rejection_of_a_token(caller, connection):
    lesser, target = await caller.create("metrics"), await caller.create("*")
    admin = await caller.create("*")
    unknown = "tok_" + "0" * 26
    for reply, code in (
        (await caller.call(GET_TOKEN, GetToken, lesser, id=target.id), "insufficient_scope"),
        (await caller.call(LIST_TOKENS, ListTokens, lesser), "insufficient_scope"),
        (await caller.call(REVOKE_TOKEN, RevokeToken, Actor(token="0" * 64), id=target.id), "invalid_token"),
        (await caller.call(REVOKE_TOKEN, RevokeToken, admin, id=unknown), "not_found"),
        (await caller.call(ROTATE_TOKEN, RotateToken, admin, id=target.id, grace=-1, digest="1" * 64, hint=""),
         "bad_request"),
    ):  # fmt: skip
        assert reply.code == code
    assert await rejections(connection) == []
    for id_ in (unknown, "\0", "x" * 10_000):
        reply = await caller.call(REVOKE_TOKEN, RevokeToken, lesser, id=id_)
        assert reply.code == "insufficient_scope"
    assert [row["token"] for row in await rejections(connection)] == [None] * 3


@pytest.fixture
def frequent_reports(monkeypatch):
    """Makes the services report their metrics without delay."""
    monkeypatch.setattr("tallystick.producer.HEARTBEAT_S", 0.2)


@pytest.mark.usefixtures("frequent_reports")  # before the services start
async def test_the_audited_rejections_of_one_actor_are_limited(caller, connection, metrics_service, operator):
    lesser, other = await caller.create("metrics"), await caller.create("metrics")
    target = await caller.create("*")
    attempts = MAX_REJECTIONS_PER_MINUTE + 15
    for _ in range(5):
        replies = await asyncio.gather(*(caller.revoke(target, by=lesser) for _ in range(attempts // 5)))
        assert set(replies) == {"insufficient_scope"}, "the reply does not depend on the audit"
    assert await caller.revoke(target, by=other) == "insufficient_scope"
    actors = [row["actor"] for row in await rejections(connection)]
    assert actors.count(lesser.id) == MAX_REJECTIONS_PER_MINUTE
    assert actors.count(other.id) == 1
    async with asyncio.timeout(20):
        while "tallystick_rejections_not_audited_total 15\n" not in await exposition(operator):
            await asyncio.sleep(0.1)
    log = await caller.call(GET_LOG, GetLog, id=target.id)
    assert [change.action for change in log.changes] == ["token.created"], "attempts displace no change"
    assert len(log.attempts) == MAX_REJECTIONS_PER_MINUTE + 1
    assert log.attempts[0] == RejectedAttempt(
        time=log.attempts[0].time,
        action="token.revoke.rejected",
        code="insufficient_scope",
        actor=other.id,
        address=None,
        request_id=None,
    )


async def exposition(operator) -> str:
    reply = await call(operator, EXPOSITION, AskExposition())
    return reply.text if isinstance(reply, Exposition) else ""


async def test_the_limit_applies_to_the_last_minute(caller, connection, monkeypatch):
    monkeypatch.setattr(module, "MAX_REJECTIONS_PER_MINUTE", 1)
    lesser, target = await caller.create("metrics"), await caller.create("*")
    await connection.execute("alter table audit alter column at set default now() - interval '61 seconds'")
    for count in (1, 2):
        await caller.revoke(target, by=lesser)
        assert len(await rejections(connection)) == count
    await connection.execute("alter table audit alter column at set default now()")
    for _ in range(3):
        await caller.revoke(target, by=lesser)
    assert len(await rejections(connection)) == 3


async def test_a_request_is_rejected_even_if_the_rejection_cannot_be_audited(
    caller, connection, monkeypatch, subtests: pytest.Subtests
):
    for error in (TimeoutError(), asyncpg.DataError("a NUL")):
        with subtests.test(error=error):

            async def fail(*_: object, error: Exception = error) -> bool:
                raise error

            monkeypatch.setattr(Store, "audit_rejection", fail)
            lesser, target = await caller.create("metrics"), await caller.create("*")
            assert await caller.revoke(target, by=lesser) == "insufficient_scope"
            assert await rejections(connection) == []


# Append-only


@pytest.fixture
async def owner(postgres_server: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the service's role as `tallystick up` creates it, to a database that this role has migrated."""
    name, password = f"audit_{secrets.token_hex(4)}", secrets.token_hex(8)
    admin = await asyncpg.connect(postgres_server)
    await admin.execute(f"create role {name} login password '{password}'")
    await admin.execute(f"create database {name}")
    grants = embedded._GRANTS.replace(f"database {embedded.DATABASE} ", f"database {name} ")
    for line in grants.splitlines():
        if "to metrics" not in line:
            await admin.execute(line.replace("to tokens", f"to {name}"))
    connection = await asyncpg.connect(_database(postgres_server, name), user=name, password=password)
    await schema.bring_up_to_date(connection)
    await connection.execute("set search_path to tokens")
    yield connection
    await connection.close()
    await admin.execute(f"drop database {name} with (force)")
    await admin.execute(f"drop role {name}")
    await admin.close()


CHANGES = ["update audit set actor = 'x'", "delete from audit", "truncate audit", "truncate token cascade"]
ROW = "insert into audit (action, actor) values ('token.created', 'x')"


async def test_the_services_role_may_insert_audit_rows_and_remove_none(owner):
    await owner.execute(ROW)
    for statement in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await owner.execute(statement)
    assert await owner.fetchval("select count(*) from audit") == 1


async def test_a_superuser_cannot_change_the_audit_by_accident(connection, subtests: pytest.Subtests):
    for statement in (*CHANGES, "delete from audit where false"):
        with subtests.test(statement):
            await connection.execute(ROW)
            before = await connection.fetch("select * from audit order by id")
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await connection.execute(statement)
            assert await connection.fetch("select * from audit order by id") == before


async def test_the_trigger_stops_a_role_that_grants_itself_the_privileges(owner):
    await owner.execute(ROW)
    await owner.execute("grant update, delete, truncate on audit to current_user")
    for statement in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(statement)


async def test_a_later_migration_may_alter_the_table(owner):
    await owner.execute(ROW)
    await owner.execute(
        """
        alter table audit add column later bigint generated always as (id * 2) stored;
        alter table audit alter column address type varchar(64);
        create index audit_later on audit (later);
        alter table audit add constraint named check (actor <> '');
        alter table audit disable trigger append_only;
        grant update on audit to current_user;
        update audit set details = '{}';
        revoke update on audit from current_user;
        alter table audit enable trigger append_only;
        """
    )
    assert await owner.fetchval("select later from audit") == 2 * await owner.fetchval("select id from audit")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute(CHANGES[0])


async def test_deleting_an_account_and_its_tokens_needs_no_privilege_on_the_audit(owner):
    """The tokens service runs as superuser in the other tests. Here its statements run with its own role."""
    change = Transaction(owner, Actor(name="test"))
    async with owner.transaction():
        await change.authenticate()
        await change.add_account("alice", "")
        record = TokenRecord(
            id="tok_" + "1" * 26,
            digest="1" * 64,
            token=NewToken(scopes=("api",), account="alice"),
            hint="x",
        )
        await change.insert(record)
        await change.revoke([record.id])
        await change.delete_account("alice", 1)
        await change.finish()
    actions = [row["action"] for row in await owner.fetch("select action from audit order by id")]
    assert actions == ["account.added", "token.created", "token.revoked", "account.deleted"]

"""Every audit row records the values before and after the change, and never a secret or a digest."""

import json
from importlib.resources import files
from typing import Any

import msgspec

from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    GET_ACCOUNT_LOG,
    AddAccount,
    DeleteAccount,
    GetAccountLog,
)
from tallystick.contracts.operation import Actor
from tallystick.contracts.records import RateLimit, Restrictions
from tallystick.contracts.sessions import MAKE_SIGN_IN_LINK, SIGN_IN, MakeSignInLink, SignIn
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    GET_LOG,
    GET_TOKEN,
    EditToken,
    GetLog,
    GetToken,
    RateLimitUpdate,
    RestrictionsUpdate,
    TokenUpdate,
)

LIMITS = Restrictions(addresses=("192.0.2.7",), rate_limit=RateLimit(max_requests=5, time_window=60))


async def changes(caller, id_: str) -> list[tuple[str, dict[str, Any]]]:
    """The actions of a token's log with their details, oldest first."""
    log = await caller.call(GET_LOG, GetLog, id=id_)
    return [(change.action, change.details) for change in reversed(log.changes)]


async def test_each_change_of_a_token_records_what_it_changed(caller):
    creator = await caller.create("*")
    token = await caller.create("b", "a", by=creator, description="x", restrictions=LIMITS)
    (created,) = await changes(caller, token.id)
    addresses = ["192.0.2.7/32"]
    assert created == (
        "token.created",
        {
            "changes": {
                "description": {"from": "", "to": "x"},
                "scopes": {"from": [], "to": ["b", "a"]},
                "restrictions.addresses": {"from": None, "to": addresses},
                "restrictions.rateLimit": {"from": None, "to": {"maxRequests": 5, "timeWindow": 60}},
            }
        },
    )
    update = TokenUpdate(
        description="y",
        scopes=("a",),
        metadata={"k": [1]},
        restrictions=RestrictionsUpdate(addresses=None, rate_limit=RateLimitUpdate(max_requests=6)),
    )
    await caller.call(EDIT_TOKEN, EditToken, creator, id=token.id, changes=update)
    for disabled in (True, True, False, False):
        await caller.call(EDIT_TOKEN, EditToken, creator, id=token.id, changes=TokenUpdate(disabled=disabled))
    successor = await caller.rotate(token, by=creator, grace=60)
    await caller.revoke(successor, by=creator)
    old, new = await changes(caller, token.id), await changes(caller, successor.id)
    records = {
        member.id: await caller.call(GET_TOKEN, GetToken, id=member.id, revoked=True)
        for member in (token, successor)
    }
    revoked = msgspec.to_builtins(records[token.id].revoked)
    assert old[1:] == [
        (
            "token.updated",
            {
                "changes": {
                    "description": {"from": "x", "to": "y"},
                    "scopes": {"from": ["b", "a"], "to": ["a"]},
                    "metadata": {"from": None, "to": {"k": [1]}},
                    "restrictions.addresses": {"from": addresses, "to": None},
                    "restrictions.rateLimit": {
                        "from": {"maxRequests": 5, "timeWindow": 60},
                        "to": {"maxRequests": 6, "timeWindow": 60},
                    },
                }
            },
        ),
        ("token.disabled", {"changes": {"disabled": {"from": False, "to": True}}}),
        ("token.enabled", {"changes": {"disabled": {"from": True, "to": False}}}),
        (
            "token.rotated",
            {
                "to": successor.id,
                "grace": 60,
                "changes": {
                    "rotatedTo": {"from": None, "to": successor.id},
                    "expires": {"from": None, "to": msgspec.to_builtins(records[token.id].expires)},
                },
            },
        ),
        ("token.revoked", {"changes": {"revoked": {"from": None, "to": revoked}}}),
    ]
    assert new[0][1]["rotatedFrom"] == token.id
    assert new[0][1]["changes"]["scopes"] == {"from": [], "to": ["a"]}
    assert records[token.id].revoked_by == records[successor.id].revoked_by == creator.id


async def test_an_account_s_log_outlives_it_and_shows_rejected_attempts(caller):
    """B3: audit rows of accounts were written but could not be read."""
    add = {"account": "alice", "name": "Alice"}
    await caller.call(ADD_ACCOUNT, AddAccount, **add)
    await caller.call(ADD_ACCOUNT, AddAccount, **add)  # changes nothing
    await caller.call(ADD_ACCOUNT, AddAccount, account="alicette")
    await caller.create("api", account="alice")
    lesser = await caller.create("metrics")
    assert (
        await caller.call(DELETE_ACCOUNT, DeleteAccount, lesser, account="alice")
    ).code == "insufficient_scope"
    await caller.call(DELETE_ACCOUNT, DeleteAccount, account="alice")
    log = await caller.call(GET_ACCOUNT_LOG, GetAccountLog, account="alice")
    assert [(change.action, change.details) for change in log.changes] == [
        (
            "account.deleted",
            {"account": "alice", "tokens": 1, "changes": {"name": {"from": "Alice", "to": None}}},
        ),
        ("account.added", {"account": "alice", "changes": {"name": {"from": None, "to": "Alice"}}}),
    ]
    assert [(attempt.action, attempt.actor) for attempt in log.attempts] == [
        ("account.delete.rejected", lesser.id)
    ]
    assert log.next is None


async def test_an_actor_that_may_not_read_an_account_may_not_read_its_log(caller):
    for name in ("alice", "bob"):
        await caller.call(ADD_ACCOUNT, AddAccount, account=name)
    bound = await caller.create("api:accounts:read", account="alice")
    lesser = await caller.create("metrics")
    for by, account, code in (
        (bound, "bob", "account_mismatch"),
        (bound, "nobody", "account_mismatch"),
        (lesser, "alice", "insufficient_scope"),
        (None, "nobody", "not_found"),
        (None, "\0", "not_found"),
    ):
        reply = await caller.call(GET_ACCOUNT_LOG, GetAccountLog, by, account=account)
        assert reply.code == code, (by, account)
    log = await caller.call(GET_ACCOUNT_LOG, GetAccountLog, bound, account="alice")
    assert [change.action for change in log.changes] == ["account.added"]


async def test_a_log_with_rows_without_details_is_readable(caller, connection):
    token = await caller.create("api")
    rows: list[tuple[str, str | None]] = [
        ("token.updated", None),
        ("token.updated", '{"changes": {"restrictions": {"from": {}, "to": {"addresses": ["10.0.0.0/8"]}}}}'),
    ]
    for action, details in rows:
        await connection.execute(
            "insert into audit (token, action, actor, details) values ($1, $2, 'x', $3)",
            token.id,
            action,
            details,
        )
    assert (await changes(caller, token.id))[1:] == [
        (action, json.loads(details) if details else {}) for action, details in rows
    ]


async def test_the_audit_holds_no_secret_and_no_digest(caller, connection):
    token = await caller.create("*")
    successor = await caller.rotate(token, grace=60)
    await caller.call(MAKE_SIGN_IN_LINK, MakeSignInLink, id=successor.id, link="7" * 64)
    await caller.call(SIGN_IN, SignIn, Actor(token=successor.digest), session="5" * 64)
    await caller.revoke(token)
    text = "".join(str(dict(row)) for row in await connection.fetch("select * from audit"))
    for secret in (token.digest, successor.digest, "7" * 64, "5" * 64):
        assert secret not in text


async def test_the_migration_fills_in_who_revoked_a_token(connection, caller):
    """The column is filled from the audit, for tokens that were revoked before it existed."""
    token = await caller.create("api")
    creator = await caller.create("*")
    await caller.revoke(token, by=creator)
    await connection.execute("update token set revoked_by = null")
    sql = (files("tallystick_server.tokens") / "migrations" / "0009_lists.sql").read_text()
    await connection.execute(sql.partition("add column revoked_by text;")[2].partition("create index")[0])
    records = await connection.fetch("select id, revoked_by from token where revoked_by is not null")
    assert [tuple(row) for row in records] == [(token.id, creator.id)]

"""An edge has no permissions of its own: with its NATS credentials and no token, one can verify tokens but change nothing."""

import asyncio
import json
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.errors import NoRespondersError

from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    GET_ACCOUNT,
    GET_ACCOUNT_LOG,
    LIST_ACCOUNTS,
    AddAccount,
)
from tallystick.contracts.imports import EXPORT_TOKEN, IMPORT_TOKENS
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.propagation import CHANGED, GET_CHANGES
from tallystick.contracts.quotas import TAKE_QUOTA, TakeQuota
from tallystick.contracts.records import NewToken, RateLimit, Restrictions, Token
from tallystick.contracts.registry import ADMINISTRATIVE
from tallystick.contracts.sessions import MAKE_SIGN_IN_LINK, SIGN_IN, SignIn
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    FIND_REJECTED_REQUESTS,
    GET_LOG,
    GET_TOKEN,
    GET_USE,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    CreateToken,
    EditToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY, Verdict, VerifyToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick_server.tokens import operations
from tests.support.services import issue

ID = "tok_" + "0" * 26
NEW = {"token": {"scopes": ["*"]}, "hint": ""}
REQUESTS: dict[str, dict[str, Any]] = {
    CREATE_TOKEN.subject: NEW,
    EDIT_TOKEN.subject: {"changes": {"scopes": ["*"]}},
    ROTATE_TOKEN.subject: {"grace": 60, "hint": ""},
    REVOKE_TOKEN.subject: {},
    REVOKE_ALL.subject: {"account": "alice"},
    GET_TOKEN.subject: {},
    LIST_TOKENS.subject: {},
    GET_LOG.subject: {},
    GET_USE.subject: {"ids": []},
    FIND_REJECTED_REQUESTS.subject: {"requestId": "x"},
    ADD_ACCOUNT.subject: {"account": "mallory"},
    GET_ACCOUNT.subject: {"account": "alice"},
    LIST_ACCOUNTS.subject: {},
    GET_ACCOUNT_LOG.subject: {"account": "alice"},
    DELETE_ACCOUNT.subject: {"account": "alice"},
}
ACTORS: list[tuple[Any, str]] = [
    (None, "bad_request"),
    ({}, "bad_request"),
    ({"name": "operator"}, "bad_request"),
    ({"name": "operator", "token": "0" * 64}, "bad_request"),
    ({"token": "0" * 64, "session": "0" * 64}, "bad_request"),
    ({"token": ID}, "bad_request"),
    ({"token": "0" * 64}, "invalid_token"),
    ({"session": "0" * 64}, "invalid_token"),
]


async def state(connection: asyncpg.Connection) -> list[Any]:
    """Everything that is stored."""
    tables = (
        "token",
        "account",
        "audit",
        "session",
        "sign_in_link",
        "idempotency",
        "change",
        "outbox_number",
    )
    return [await connection.fetch(f"select * from {table} order by 1") for table in tables]  # noqa: S608


def request_body(operation: Operation[Any, Any], token: Token, digest: str) -> dict[str, Any]:
    """A request that changes or reads this token, with a new digest if it needs one."""
    fields = {field.encode_name for field in msgspec.structs.fields(operation.request)}
    body = dict(REQUESTS[operation.subject])
    if "id" in fields:
        body["id"] = token.id
    if ("digest" in fields and "id" not in body) or operation is ROTATE_TOKEN:
        body["digest"] = digest
    return body


async def test_without_a_token_an_edge_changes_and_reads_nothing(
    tokens_service, operator, edge_client, connection
):
    assert set(REQUESTS) == {operation.subject for operation in ADMINISTRATIVE}, "every operation is tried"
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=Actor(name="test")))
    value, token = await issue(operator, "*")
    before = await state(connection)
    for operation in ADMINISTRATIVE:
        for actor, code in ACTORS:
            body = {**request_body(operation, token, token_format.new_secret().digest), "actor": actor}
            reply = await edge_client.request(operation.subject, json.dumps(body).encode(), timeout=10)
            assert json.loads(reply.data)["code"] == code, (operation.subject, actor, reply.data)
    assert await state(connection) == before
    verdict = await call(edge_client, VERIFY, VerifyToken(digest=token_format.digest(value) or ""))
    assert isinstance(verdict, Verdict)
    assert verdict.code == "active", "an edge may verify"


async def test_an_edge_cannot_act_as_an_operator(tokens_service, operator, edge_client, connection):
    _, token = await issue(operator, "*")
    before = await state(connection)
    operators = [
        *(operation.by_operator for operation in ADMINISTRATIVE), IMPORT_TOKENS, EXPORT_TOKEN, MAKE_SIGN_IN_LINK
    ]  # fmt: skip
    payload = json.dumps({"id": token.id, "actor": {"name": "operator"}}).encode()
    # Each request waits for a reply until its timeout.
    replies = await asyncio.gather(
        *(edge_client.request(operation.subject, payload, timeout=0.3) for operation in operators),
        return_exceptions=True,
    )
    for operation, reply in zip(operators, replies, strict=True):
        assert isinstance(reply, NoRespondersError | TimeoutError), (operation.subject, reply)
    assert await state(connection) == before


async def test_a_change_notice_does_not_contain_the_digest(tokens_service, operator, edge_client):
    """With the digest, a reader of notices could act for the token."""
    payloads: list[bytes] = []

    async def collect(message) -> None:
        payloads.append(message.data)

    await edge_client.subscribe(CHANGED, cb=collect)
    await edge_client.flush()
    value, token = await issue(operator, "*")
    edit = EditToken(id=token.id, changes=TokenUpdate(description="x"), actor=Actor(name="test"))
    await call(operator, EDIT_TOKEN.by_operator, edit)
    async with asyncio.timeout(20):
        while len(payloads) < 2:
            await asyncio.sleep(0.01)
    payloads.append((await edge_client.request(GET_CHANGES.subject, b'{"after":0}', timeout=10)).data)
    digest = token_format.digest(value) or ""
    assert all(b'"seq"' in payload and digest.encode() not in payload for payload in payloads)


async def test_an_invalid_token_is_no_longer_accepted_as_an_actor(
    tokens_service, operator, edge_client, connection
):
    """The tokens service does not trust the edge: it looks the token up for each request."""
    invalid = [await issue(operator, "*") for _ in range(4)]
    _, target = await issue(operator, "orders")
    for (_, token), change in zip(
        invalid,
        (
            "revoked = now()",
            "disabled = true",
            "expires = now() - interval '1 s'",
            "not_before = now() + interval '1 h'",
        ),
        strict=True,
    ):
        await connection.execute(f"update token set {change} where id = $1", token.id)  # noqa: S608  # a constant
    before = await state(connection)
    for value, _ in invalid:
        actor = {"token": token_format.digest(value)}
        for operation in ADMINISTRATIVE:
            body = {**request_body(operation, target, token_format.new_secret().digest), "actor": actor}
            reply = await edge_client.request(operation.subject, json.dumps(body).encode(), timeout=10)
            assert json.loads(reply.data)["code"] == "invalid_token", operation.subject
    assert await state(connection) == before


async def test_a_change_waits_for_one_that_withdraws_its_authority(
    tokens_service, operator, edge_client, connection, subtests: pytest.Subtests
):
    """It is authorized by the state that is committed when it is carried out, not by the state when it arrived."""
    for kind, session in (("token", "5" * 64), ("session", "6" * 64)):
        with subtests.test(kind):
            value, token = await issue(operator, "admin", "api")
            digest = token_format.digest(value) or ""
            actor = Actor(token=digest) if kind == "token" else Actor(session=session)
            await call(edge_client, SIGN_IN, SignIn(session=session, actor=Actor(token=digest)))
            async with connection.transaction():
                if kind == "token":
                    await connection.execute(
                        "update token set scopes = array['orders'] where id = $1", token.id
                    )
                else:
                    await connection.execute("delete from session")
                secret = token_format.new_secret()
                request = CreateToken(
                    token=NewToken(scopes=("api",)), digest=secret.digest, hint="", actor=actor
                )
                task: Any = asyncio.create_task(call(edge_client, CREATE_TOKEN, request))
                async with asyncio.timeout(20):
                    while not await connection.fetchval(
                        "select exists (select from pg_locks where not granted)"
                    ):
                        await asyncio.sleep(0.01)
            reply = await task
            assert isinstance(reply, Failure)
            assert reply.code == ("insufficient_scope" if kind == "token" else "invalid_token")


async def test_a_sign_in_waits_for_a_change_that_narrows_its_token(
    tokens_service, operator, edge_client, connection
):
    value, token = await issue(operator, "admin")
    request = SignIn(session="5" * 64, actor=Actor(token=token_format.digest(value)))
    async with connection.transaction():
        await connection.execute("update token set scopes = array['orders'] where id = $1", token.id)
        task: Any = asyncio.create_task(call(edge_client, SIGN_IN, request))
        async with asyncio.timeout(20):
            while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
    assert (await task).code == "insufficient_scope"
    assert await connection.fetchval("select count(*) from session") == 0


async def test_a_rejected_sign_in_consumes_no_rate_limit(tokens_service, operator, edge_client):
    limit = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=86_400))
    value, token = await issue(operator, "orders", restrictions=limit)
    for _ in range(3):
        request = SignIn(session="5" * 64, actor=Actor(token=token_format.digest(value)))
        verdict: Any = await call(edge_client, SIGN_IN, request)
        assert verdict.code == "insufficient_scope"
    quota: Any = await call(edge_client, TAKE_QUOTA, TakeQuota(id=token.id))
    assert quota.remaining == 1


ONE_NETWORK = Restrictions(addresses=("192.0.2.0/24",))
CASES: list[tuple[tuple[str, ...], Restrictions, str | None, str | None]] = [
    (("admin", "api"), Restrictions(), None, None),
    (("admin", "api:tokens:read"), Restrictions(), None, "insufficient_scope"),
    (("admin", "api"), ONE_NETWORK, "192.0.2.1", None),
    (("admin", "api"), ONE_NETWORK, "198.51.100.1", "address_not_allowed"),
    (("admin", "api"), ONE_NETWORK, None, "address_not_allowed"),
]
"""A token's scopes and restrictions, the address of its request, and the code of the failure."""


async def test_the_tokens_service_checks_what_an_edge_reports(
    tokens_service, operator, edge_client, subtests: pytest.Subtests
):
    """Whatever the edge claims about the token, its scopes, account, restrictions and state are looked up."""
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=Actor(name="test")))
    for kind in ("token", "session"):
        for scopes, restrictions, address, code in CASES:
            with subtests.test(kind, scopes=scopes, address=address):
                value, _ = await issue(operator, *scopes, restrictions=restrictions)
                digest = token_format.digest(value) or ""
                session = token_format.new_secret().digest
                if kind == "session":
                    sign_in = SignIn(session=session, actor=Actor(token=digest, address="192.0.2.1"))
                    assert isinstance(await call(edge_client, SIGN_IN, sign_in), Verdict)
                actor = Actor(
                    token=digest if kind == "token" else None,
                    session=session if kind == "session" else None,
                    address=address,
                )
                secret = token_format.new_secret()
                request = CreateToken(
                    token=NewToken(scopes=("api",), restrictions=restrictions),
                    digest=secret.digest,
                    hint="",
                    actor=actor,
                )
                reply = await call(edge_client, CREATE_TOKEN, request)
                assert (reply.code if isinstance(reply, Failure) else None) == code


async def test_each_operation_has_one_rule_that_its_route_enforces():
    """The routes' scopes are those of the table."""
    from tallystick_server.edge.app import routes as edge_routes
    from tallystick_server.edge.authorization.routes import rules_of
    from tallystick_server.edge.settings import Settings

    app = edge_routes(Settings(nats_url="nats://x"))
    routes = {
        f"{method} {route.path_format}": rules_of(handler)
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods
    }
    scopes_by_route: dict[str, set[str]] = {}
    for rule in operations.RULES:
        for way in rule.ways:
            if way.partition(" ")[0] in {"GET", "POST", "PATCH", "DELETE"}:
                scopes_by_route.setdefault(way.partition("?")[0], set()).update((rule.scopes or ())[:1])
    administrative = ("/v1/token", "/v1/account", "/v1/self", "/oauth2/revoke")
    assert set(scopes_by_route) == {
        route
        for route in routes
        if route.partition(" ")[2].startswith(administrative) and "OPTIONS" not in route
    }
    for way, scopes in scopes_by_route.items():
        rules = routes[way]
        if rules.scope is not None:
            assert {rules.scope, *([rules.alternative] if rules.alternative else [])} == scopes, way

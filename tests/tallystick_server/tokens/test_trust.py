"""An edge has no rights of its own: whoever has its NATS credentials and no token verifies, and changes nothing."""

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
QUESTIONS: dict[str, dict[str, Any]] = {
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


def question(operation: Operation[Any, Any], token: Token, digest: str) -> dict[str, Any]:
    """What somebody would ask who wants to change or see this token, with a digest of their own."""
    fields = {field.encode_name for field in msgspec.structs.fields(operation.request)}
    request = dict(QUESTIONS[operation.subject])
    if "id" in fields:
        request["id"] = token.id
    if ("digest" in fields and "id" not in request) or operation is ROTATE_TOKEN:
        request["digest"] = digest
    return request


async def test_without_a_token_an_edge_changes_and_sees_nothing(
    tokens_service, operator, edge_client, connection
):
    assert set(QUESTIONS) == {each.subject for each in ADMINISTRATIVE}, "every operation is tried"
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=Actor(name="test")))
    value, token = await issue(operator, "*")
    before = await state(connection)
    for operation in ADMINISTRATIVE:
        for actor, code in ACTORS:
            asked = {**question(operation, token, token_format.new_secret().digest), "actor": actor}
            answer = await edge_client.request(operation.subject, json.dumps(asked).encode(), timeout=10)
            assert json.loads(answer.data)["code"] == code, (operation.subject, actor, answer.data)
    assert await state(connection) == before
    verdict = await call(edge_client, VERIFY, VerifyToken(digest=token_format.digest(value) or ""))
    assert isinstance(verdict, Verdict)
    assert verdict.code == "active", "verifying works"


async def test_an_edge_cannot_ask_as_an_operator(tokens_service, operator, edge_client, connection):
    _, token = await issue(operator, "*")
    before = await state(connection)
    operators = [
        *(each.by_operator for each in ADMINISTRATIVE), IMPORT_TOKENS, EXPORT_TOKEN, MAKE_SIGN_IN_LINK
    ]  # fmt: skip
    asked = json.dumps({"id": token.id, "actor": {"name": "operator"}}).encode()
    # Each waits for an answer until its time is over.
    answers = await asyncio.gather(
        *(edge_client.request(operation.subject, asked, timeout=0.3) for operation in operators),
        return_exceptions=True,
    )
    for operation, answer in zip(operators, answers, strict=True):
        assert isinstance(answer, NoRespondersError | TimeoutError), (operation.subject, answer)
    assert await state(connection) == before


async def test_a_notice_of_a_change_does_not_hold_the_digest(tokens_service, operator, edge_client):
    """With the digest, whoever reads notices could act for the token."""
    seen: list[bytes] = []

    async def see(message) -> None:
        seen.append(message.data)

    await edge_client.subscribe(CHANGED, cb=see)
    await edge_client.flush()
    value, token = await issue(operator, "*")
    edit = EditToken(id=token.id, changes=TokenUpdate(description="x"), actor=Actor(name="test"))
    await call(operator, EDIT_TOKEN.by_operator, edit)
    async with asyncio.timeout(20):
        while len(seen) < 2:
            await asyncio.sleep(0.01)
    seen.append((await edge_client.request(GET_CHANGES.subject, b'{"after":0}', timeout=10)).data)
    digest = token_format.digest(value) or ""
    assert all(b'"seq"' in each and digest.encode() not in each for each in seen)


async def test_a_token_that_is_not_valid_any_more_acts_for_nobody(
    tokens_service, operator, edge_client, connection
):
    """Whatever the edge believes: the tokens service looks it up for each request."""
    others = [await issue(operator, "*") for _ in range(4)]
    _, target = await issue(operator, "orders")
    for (_, token), change in zip(
        others,
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
    for value, _ in others:
        actor = {"token": token_format.digest(value)}
        for operation in ADMINISTRATIVE:
            asked = {**question(operation, target, token_format.new_secret().digest), "actor": actor}
            answer = await edge_client.request(operation.subject, json.dumps(asked).encode(), timeout=10)
            assert json.loads(answer.data)["code"] == "invalid_token", operation.subject
    assert await state(connection) == before


async def test_a_change_waits_for_one_that_takes_its_authority_away(
    tokens_service, operator, edge_client, connection, subtests: pytest.Subtests
):
    """It is judged by what is committed when it is made, not by what was there when it came."""
    for way, session in (("token", "5" * 64), ("session", "6" * 64)):
        with subtests.test(way):
            value, token = await issue(operator, "admin", "api")
            digest = token_format.digest(value) or ""
            actor = Actor(token=digest) if way == "token" else Actor(session=session)
            await call(edge_client, SIGN_IN, SignIn(session=session, actor=Actor(token=digest)))
            async with connection.transaction():
                if way == "token":
                    await connection.execute(
                        "update token set scopes = array['orders'] where id = $1", token.id
                    )
                else:
                    await connection.execute("delete from session")
                secret = token_format.new_secret()
                wanted = CreateToken(
                    token=NewToken(scopes=("api",)), digest=secret.digest, hint="", actor=actor
                )
                asked: Any = asyncio.create_task(call(edge_client, CREATE_TOKEN, wanted))
                async with asyncio.timeout(20):
                    while not await connection.fetchval(
                        "select exists (select from pg_locks where not granted)"
                    ):
                        await asyncio.sleep(0.01)
            reply = await asked
            assert isinstance(reply, Failure)
            assert reply.code == ("insufficient_scope" if way == "token" else "invalid_token")


async def test_a_sign_in_waits_for_a_change_that_narrows_its_token(
    tokens_service, operator, edge_client, connection
):
    value, token = await issue(operator, "admin")
    asked = SignIn(session="5" * 64, actor=Actor(token=token_format.digest(value)))
    async with connection.transaction():
        await connection.execute("update token set scopes = array['orders'] where id = $1", token.id)
        signing_in: Any = asyncio.create_task(call(edge_client, SIGN_IN, asked))
        async with asyncio.timeout(20):
            while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
    assert (await signing_in).code == "insufficient_scope"
    assert await connection.fetchval("select count(*) from session") == 0


async def test_a_rejected_sign_in_uses_up_no_rate_limit(tokens_service, operator, edge_client):
    limit = Restrictions(rate_limit=RateLimit(max_requests=2, time_window=86_400))
    value, token = await issue(operator, "orders", restrictions=limit)
    for _ in range(3):
        asked = SignIn(session="5" * 64, actor=Actor(token=token_format.digest(value)))
        verdict: Any = await call(edge_client, SIGN_IN, asked)
        assert verdict.code == "insufficient_scope"
    quota: Any = await call(edge_client, TAKE_QUOTA, TakeQuota(id=token.id))
    assert quota.remaining == 1


HERE = Restrictions(addresses=("192.0.2.0/24",))
SHOWN: list[tuple[tuple[str, ...], Restrictions, str | None, str | None]] = [
    (("admin", "api"), Restrictions(), None, None),
    (("admin", "api:tokens:read"), Restrictions(), None, "insufficient_scope"),
    (("admin", "api"), HERE, "192.0.2.1", None),
    (("admin", "api"), HERE, "198.51.100.1", "address_not_allowed"),
    (("admin", "api"), HERE, None, "address_not_allowed"),
]
"""A token's scopes and restrictions, the address of its request, and the code of the failure."""


async def test_what_an_edge_was_shown_is_judged_by_the_tokens_service(
    tokens_service, operator, edge_client, subtests: pytest.Subtests
):
    """The edge may say what it likes about the token: scope, account, address and state are looked up."""
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=Actor(name="test")))
    for way in ("token", "session"):
        for scopes, restrictions, address, code in SHOWN:
            with subtests.test(way, scopes=scopes, address=address):
                value, _ = await issue(operator, *scopes, restrictions=restrictions)
                digest = token_format.digest(value) or ""
                session = token_format.new_secret().digest
                if way == "session":
                    began = SignIn(session=session, actor=Actor(token=digest, address="192.0.2.1"))
                    assert isinstance(await call(edge_client, SIGN_IN, began), Verdict)
                actor = Actor(
                    token=digest if way == "token" else None,
                    session=session if way == "session" else None,
                    address=address,
                )
                secret = token_format.new_secret()
                wanted = CreateToken(
                    token=NewToken(scopes=("api",), restrictions=restrictions),
                    digest=secret.digest,
                    hint="",
                    actor=actor,
                )
                reply = await call(edge_client, CREATE_TOKEN, wanted)
                assert (reply.code if isinstance(reply, Failure) else None) == code


async def test_each_operation_has_one_rule_and_each_route_names_it():
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
    named: dict[str, set[str]] = {}
    for rule in operations.RULES:
        for way in rule.ways:
            if way.partition(" ")[0] in {"GET", "POST", "PATCH", "DELETE"}:
                named.setdefault(way.partition("?")[0], set()).update((rule.scopes or ())[:1])
    managing = ("/v1/token", "/v1/account", "/v1/self", "/oauth2/revoke")
    assert set(named) == {
        each for each in routes if each.partition(" ")[2].startswith(managing) and "OPTIONS" not in each
    }
    for way, scopes in named.items():
        rules = routes[way]
        if rules.scope is not None:
            assert {rules.scope, *([rules.alternative] if rules.alternative else [])} == scopes, way

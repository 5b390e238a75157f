"""Lists and logs continue from a cursor, so that insertions and deletions between two pages shift nothing. Lists take the
same filters over HTTP and over NATS.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from tallystick.contracts.accounts import LIST_ACCOUNTS
from tallystick.contracts.operation import Actor
from tallystick.contracts.tokens import GET_TOKEN, LIST_TOKENS, TokenPage
from tallystick.rpc.call import call
from tests.support.api import bearer, create_token
from tests.support.services import issue

OPERATOR = Actor(name="test")


@pytest.fixture
async def connection(database):
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    yield connection
    await connection.close()


async def get_page(client: httpx.AsyncClient, path: str, **parameters: Any) -> dict[str, Any]:
    response = await client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def over_nats(operator, operation: Any, **fields: Any) -> Any:
    return await call(operator, operation.by_operator, operation.request(actor=OPERATOR, **fields))


async def insert(connection: asyncpg.Connection, count: int, **columns: str) -> list[str]:
    """Inserts tokens in bulk, with columns in SQL. Returns their ids in the order of creation."""
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", {value}" for value in columns.values())
    rows = await connection.fetch(
        f"""
        insert into token (id, digest, hint, description, scopes, restrictions, created_by, family, chain{names})
        select id, sha256(id::bytea), 'hint', 'bulk', '{{bulk}}', '{{}}', 'test', id, id{values}
        from (select 'tok_' || lpad((n + (select count(*) from token))::text, 26, '0') as id, n
            from generate_series(1, {count}) as n) as ids
        returning id
        """  # noqa: S608  # the test's own
    )
    return [row["id"] for row in rows]


async def test_revoking_every_token_while_paging_leaves_none(admin):
    """C10: 20 of 45 tokens remained, since the second page skipped as many as had been revoked."""
    root = await create_token(admin, scopes=["*"])
    headers = bearer(root["token"])
    for _ in range(45):
        assert (await admin.post("/v1/tokens", json={"scopes": ["api"]}, headers=headers)).status_code == 201
    after: dict[str, str] = {}
    revoked = 0
    while True:
        page = await get_page(admin, "/v1/tokens", createdBy=root["id"], **after)
        assert page["total"] == 45
        for token in page["tokens"]:
            revoked += (await admin.delete(f"/v1/tokens/{token['id']}")).json()["deleted"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert revoked == 45
    assert page["page"] == page["pages"] - 1 == 2
    assert (await get_page(admin, "/v1/tokens", createdBy=root["id"]))["total"] == 0


async def test_revoking_every_token_while_paging_leaves_none_over_nats(tokens_service, operator, connection):
    ids = await insert(connection, 45)
    after, listed_ids = None, []
    while True:
        page = await over_nats(operator, LIST_TOKENS, after=after, query="bulk")
        listed_ids += [token.id for token in page.tokens]
        await connection.execute("update token set revoked = now() where id = any($1)", listed_ids)
        await insert(connection, 3)  # newer tokens sort before the cursor
        if (after := page.next) is None:
            break
    assert listed_ids == ids[::-1]


@pytest.mark.parametrize(
    ("order", "columns"),
    [
        ("created", {}),
        ("used", {"last_used": "case when n % 3 > 0 then timestamptz '2026-01-01' + n % 4 * interval '1 us' end"}),
        ("expires", {"expires": "case when n % 3 > 0 then timestamptz '2100-01-01' + n % 4 * interval '1 us' end"}),
        (
            "expires",
            {"expires": "case when n % 3 > 0 then now() + (n % 4 - 1.5) * interval '1 day' + n % 2 * interval '1 us' end"},
        ),
    ],
)  # fmt: skip
async def test_every_order_lists_each_token_once_in_pages_of_any_size(
    tokens_service, operator, connection, order: Any, columns: dict[str, str]
):
    await insert(connection, 23, **columns)
    await connection.execute(
        "update token set description = (array['b', 'A', 'ä', '', repeat('x', 99)])[1 + length(id) % 5]"
    )
    whole = await over_nats(operator, LIST_TOKENS, order=order, page_size=100)
    assert (len(whole.tokens), whole.next) == (23, None)
    for size in (1, 5, 22, 23):
        after, tokens, numbers = None, [], []
        while True:
            page = await over_nats(operator, LIST_TOKENS, order=order, page_size=size, after=after)
            tokens += page.tokens
            numbers.append((page.page, page.pages, page.total))
            by_number = await over_nats(operator, LIST_TOKENS, order=order, page_size=size, page=page.page)
            # A cursor of the order by expiry contains the time at which its list started.
            assert (by_number.tokens, by_number.next is None) == (page.tokens, page.next is None)
            assert (by_number.total, by_number.page, by_number.pages) == (page.total, page.page, page.pages)
            if (after := page.next) is None:
                break
        assert tuple(tokens) == whole.tokens
        assert numbers == [(number, len(numbers), 23) for number in range(len(numbers))]


async def test_the_order_by_description_continues_from_a_cursor(tokens_service, operator, connection):
    await insert(connection, 9)
    for number, text in enumerate(["b", "B", "a", "A", "", "", "ä\n", "x" * 99, "x" * 100]):
        await connection.execute(
            "update token set description = $1 where id = (select id from token order by id offset $2 limit 1)",
            text,
            number,
        )
    after, ids = None, []
    while True:
        page = await over_nats(operator, LIST_TOKENS, order="description", page_size=2, after=after)
        ids += [token.id for token in page.tokens]
        if (after := page.next) is None:
            break
    assert len(set(ids)) == len(ids) == 9


async def all_by_expiry(operator, size: int, **filters: Any) -> list[str]:
    """The descriptions of all tokens, read page by page."""
    after, descriptions = None, []
    while True:
        page = await over_nats(operator, LIST_TOKENS, order="expires", page_size=size, after=after, **filters)
        descriptions += [token.description for token in page.tokens]
        if (after := page.next) is None:
            return descriptions


async def test_the_next_expiring_token_is_first_and_expired_tokens_are_last(
    tokens_service, operator, connection
):
    """The list started with tokens that had expired long ago."""
    await insert(connection, 6)
    ids = [row["id"] for row in await connection.fetch("select id from token order by id")]
    for id_, name, days in zip(
        ids,
        ("in a year", "long ago", "never", "tomorrow", "yesterday", "in a month"),
        (365, -900, None, 1, -1, 30),
        strict=True,
    ):
        await connection.execute(
            "update token set description = $2, expires = now() + $3::int * interval '1 day' where id = $1",
            id_,
            name,
            days,
        )
    expected = ["tomorrow", "in a month", "in a year", "never", "yesterday", "long ago"]
    for size in range(1, 8):
        assert await all_by_expiry(operator, size) == expected
        pages = [
            await over_nats(operator, LIST_TOKENS, order="expires", page_size=size, page=number)
            for number in range(6 // size + 2)
        ]
        assert [token.description for page in pages for token in page.tokens] == expected
        assert {page.total for page in pages} == {6}
    assert await all_by_expiry(operator, 2, state="expired") == expected[-2:]


async def test_a_token_that_expires_between_two_pages_is_listed_once(tokens_service, operator, connection):
    await insert(connection, 3, expires="now() + n * interval '1 day'")
    await connection.execute(
        "update token set description = 'soon', expires = now() + interval '1 s' where id = (select max(id) from token)"
    )
    first = await over_nats(operator, LIST_TOKENS, order="expires", page_size=1)
    assert [token.description for token in first.tokens] == ["soon"]
    expired = "select bool_or(expires <= now()) from token"
    await until_true(lambda: connection.fetchval(expired))
    rest = await over_nats(operator, LIST_TOKENS, order="expires", after=first.next)
    assert [token.description for token in rest.tokens] == ["bulk", "bulk"]
    assert rest.next is None


async def test_the_order_by_expiry_is_read_from_its_index(tokens_service, operator, connection):
    await insert(connection, 20_000, expires="now() + (n - 10000) * interval '1 hour'")
    await connection.execute("analyze token")
    scans = "select idx_scan from pg_stat_user_indexes where indexrelname = 'token_by_expiry'"
    before = await connection.fetchval(scans)
    first = await over_nats(operator, LIST_TOKENS, order="expires", page_size=10)
    # This page starts in the second part.
    last = await over_nats(operator, LIST_TOKENS, order="expires", page_size=10, page=1000)
    await over_nats(operator, LIST_TOKENS, order="expires", page_size=10, after=first.next)
    await over_nats(operator, LIST_TOKENS, order="expires", page_size=10, after=last.next)
    await until_true(lambda: has_scans(connection, scans, before + 4))


async def has_scans(connection: asyncpg.Connection, scans: str, minimum: int) -> bool:
    """Whether the statistics show at least so many scans. The server updates them with a delay."""
    await connection.execute("select pg_stat_clear_snapshot()")
    return int(await connection.fetchval(scans)) >= minimum


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_accounts_continue_from_a_cursor_and_can_be_searched(admin, operator):
    for name in ("stark", "wayne", "starling", "acme", "stardust"):
        await admin.post("/v1/account", json={"account": name, "name": name.upper()})
    page = await get_page(admin, "/v1/accounts", query="star", pageSize=2)
    assert [account["account"] for account in page["accounts"]] == ["stardust", "stark"]
    await admin.delete("/v1/account/stark")
    await admin.post("/v1/account", json={"account": "stara"})
    rest = await get_page(admin, "/v1/accounts", query="star", pageSize=2, after=page["next"])
    assert ([account["account"] for account in rest["accounts"]], rest["next"]) == (["starling"], None)
    assert (rest["total"], rest["page"], rest["pages"]) == (3, 1, 2)
    assert (await get_page(admin, "/v1/accounts", query=" STARK "))["total"] == 0
    assert (await over_nats(operator, LIST_ACCOUNTS, query="WAY")).total == 1


async def test_a_cursor_is_valid_only_for_its_list(admin, connection, subtests: pytest.Subtests):
    for path in ("/v1/tokens", "/v1/accounts"):
        with subtests.test(path=path):
            await insert(connection, 3)
            for name in ("a", "b"):
                await admin.post("/v1/account", json={"account": name})
            cursor = (await get_page(admin, path, pageSize=1))["next"]
            assert cursor
            other = (
                await get_page(admin, "/v1/accounts" if path == "/v1/tokens" else "/v1/tokens", pageSize=1)
            )["next"]
            for parameters, field in (
                ({"after": cursor, "query": "x"}, "after"),
                ({"after": other}, "after"),
                ({"after": "x"}, "after"),
                ({"after": ""}, "after"),
                ({"after": "e30"}, "after"),
                ({"after": "é" * 9}, "after"),
                ({"after": "x" * 5000}, "after"),
                ({"after": cursor, "page": 1}, "page"),
            ):
                response = await admin.get(path, params=parameters)
                assert response.status_code == 400, (parameters, response.text)
                assert [error["field"] for error in response.json()["errors"]] == [field], response.text
            assert (await admin.get(path, params={"after": cursor, "pageSize": 2})).status_code == 200


@pytest.mark.parametrize("order", ["used", "expires"])
async def test_a_forged_cursor_causes_no_internal_error(admin, operator, connection, order: Any):
    await insert(connection, 3)
    page = await over_nats(operator, LIST_TOKENS, order=order, page_size=1)
    position = json.loads(base64.urlsafe_b64decode(page.next + "=="))
    for change in (
        {"key": "x"},
        {"key": "\0"},
        {"id": "\0"},
        {"page": "x"},
        {"key": None},
        {"total": 2**63},
        {"more": 1},
        {"part": 99},
        {"part": -1},
        {"part": "x"},
        {"part": 1, "time": "x"},
        {"time": "\0"},
    ):
        forged = base64.urlsafe_b64encode(json.dumps({**position, **change}).encode()).decode()
        reply = await over_nats(operator, LIST_TOKENS, order=order, after=forged)
        assert isinstance(reply, TokenPage) or reply.code == "bad_request", (change, reply)


async def test_the_filters_are_the_same_over_http_and_nats(admin, operator, connection):
    _, exact = await issue(operator, "orders", description="exact")
    _, below = await issue(operator, "invoices", "orders:read", description="below")
    _, beside = await issue(operator, "orderss:read", "order", description="beside")
    _, unused = await issue(operator, "metrics", description="unused")
    await connection.execute(
        "update token set created = now() - interval '90 days', last_used = now() - interval '30 days' where id = $1",
        exact.id,
    )
    await connection.execute("update token set created = now() - interval '90 days' where id = $1", unused.id)
    now = datetime.now(UTC)
    cases: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [
        ({"scope": "orders"}, {"scope": "orders"}, {exact.id, below.id}),
        ({"scope": "orders:read"}, {"scope": "orders:read"}, {below.id}),
        ({"scope": "order"}, {"scope": "order"}, {beside.id}),
        ({"scope": "orders%"}, {"scope": "orders%"}, set()),
        ({"scope": "metrics", "state": "active"}, {"scope": "metrics", "state": "active"}, {unused.id}),
        *(
            (
                {"unusedSince": f"{now - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"},
                {"unused_since": now - timedelta(days=days)},
                expected,
            )
            for days, expected in ((100, set()), (60, {unused.id}), (7, {unused.id, exact.id}))
        ),
    ]
    for http, nats, expected in cases:
        page = await get_page(admin, "/v1/tokens", **http)
        assert {token["id"] for token in page["tokens"]} == expected, http
        reply = await over_nats(operator, LIST_TOKENS, **nats)
        assert {token.id for token in reply.tokens} == expected, nats
    first = await get_page(admin, "/v1/tokens", order="description", pageSize=1)
    assert first["tokens"][0]["description"] == ""
    for query in (
        "order=newest",
        "unusedSince=yesterday",
        "unusedSince=2026-01-01T00:00:00",
        "order=",
        "createdBy=%00",
    ):
        response = await admin.get(f"/v1/tokens?{query}")
        assert response.status_code == 400, query
        assert [error["field"] for error in response.json()["errors"]] == [query.partition("=")[0]], (
            response.text
        )


async def test_the_default_page_size_is_twenty_over_http_and_nats(admin, operator, connection):
    await insert(connection, 30)
    assert len((await get_page(admin, "/v1/tokens"))["tokens"]) == 20
    reply = await operator.request(LIST_TOKENS.by_operator.subject, b'{"actor":{"name":"x"}}', timeout=10)
    assert len(json.loads(reply.data)["tokens"]) == 20


async def test_a_revoked_token_shows_its_revocation_and_cannot_be_changed(admin, operator):
    """B4: its record was a 404, while the list and its log showed it."""
    editor = await create_token(admin, scopes=["api:tokens"])
    token = await create_token(admin, description="revoked")
    assert (
        await admin.delete(f"/v1/tokens/{token['id']}", headers=bearer(editor["token"]))
    ).status_code == 200
    response = await admin.get(f"/v1/tokens/{token['id']}")
    assert response.status_code == 200
    assert response.json()["revokedBy"] == editor["id"]
    assert response.json()["revoked"] is not None
    assert response.headers["etag"] == f'"{response.json()["revision"]}"'
    (listed_token,) = (await get_page(admin, "/v1/tokens", state="revoked"))["tokens"]
    assert listed_token == response.json()
    reply = await over_nats(operator, GET_TOKEN, id=token["id"], revoked=True)
    assert msgspec.json.decode(msgspec.json.encode(reply)) == response.json()
    assert (await admin.patch(f"/v1/tokens/{token['id']}", json={"description": "x"})).status_code == 404
    assert (await admin.post(f"/v1/tokens/{token['id']}/rotate", json={})).status_code == 404
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 401


async def test_a_revoked_token_is_hidden_from_unauthorized_callers(admin):
    for name in ("alice", "bob"):
        await admin.post("/v1/account", json={"account": name})
    bob_token = await create_token(admin, account="bob")
    reader = await create_token(admin, scopes=["api:tokens:read"], account="alice")
    stranger = await create_token(admin, scopes=["orders"])
    for _ in range(2):
        for caller, code in ((reader, "account_mismatch"), (stranger, "insufficient_scope")):
            response = await admin.get(f"/v1/tokens/{bob_token['id']}", headers=bearer(caller["token"]))
            assert (response.status_code, response.json()["code"]) == (403, code)
        await admin.delete(f"/v1/tokens/{bob_token['id']}")


async def test_a_log_continues_from_a_cursor(admin, connection):
    token = await create_token(admin)
    await connection.execute(
        "insert into audit (token, action, actor, details) select $1, 'token.updated', 'x' || n, '{\"n\": 1}'"
        " from generate_series(1, 250) as n",
        token["id"],
    )
    path = f"/v1/tokens/{token['id']}/log"
    first = await get_page(admin, path)
    second = await get_page(admin, path, after=first["next"])
    await admin.patch(f"/v1/tokens/{token['id']}", json={"description": "newer"})
    third = await get_page(admin, path, after=second["next"])
    actors = [change["actor"] for page in (first, second, third) for change in page["changes"]]
    assert actors[:250] == [f"x{number}" for number in range(250, 0, -1)]
    assert (len(actors), third["next"], third["changes"][-1]["action"]) == (251, None, "token.created")
    for invalid in ("x", "", "e30", first["next"][:-3]):
        response = await admin.get(path, params={"after": invalid})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "after")


async def test_a_log_of_large_changes_is_split_by_message_size(admin):
    token = await create_token(admin)
    for number in range(70):
        metadata = {"text": str(number % 10) * 7000}
        assert (
            await admin.patch(f"/v1/tokens/{token['id']}", json={"metadata": metadata})
        ).status_code == 200
    path = f"/v1/tokens/{token['id']}/log"
    after: dict[str, str] = {}
    lengths = []
    while True:
        page = await get_page(admin, path, **after)
        lengths.append(len(page["changes"]))
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert sum(lengths) == 71
    assert len(lengths) > 1

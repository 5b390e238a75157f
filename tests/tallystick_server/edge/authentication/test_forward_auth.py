"""Forward-auth: under `/auth/`, where Envoy appends the client's target, and the problem in a header, for nginx."""

import json
from typing import Any

import httpx
import pytest

from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.operation import Actor
from tallystick.rpc.call import call
from tests.support.coherence import leased, make_cold
from tests.support.dashboard import ready
from tests.support.services import issue

ACCOUNT = AddAccount(account="alice", actor=Actor(name="test"))
SCOPE, OF_ACCOUNT = "X-Tallystick-Scope", "X-Tallystick-Account"
WRONG = {"authorization": f"Bearer {'f' * 64}"}


@pytest.fixture
async def tokens(edge, operator, tokens_service) -> dict[str, str]:
    await ready(edge)
    await call(operator, ADD_ACCOUNT.by_operator, ACCOUNT)
    issued = {
        "orders": await issue(operator, "orders"),
        "of alice": await issue(operator, "orders", account="alice"),
        "all": await issue(operator, "*"),
    }
    return {kind: value for kind, (value, _) in issued.items()}


async def statuses(
    edge: httpx.AsyncClient, token: str, target: str, *headers: tuple[str, str], method: str = "GET"
):
    """The statuses of three equal checks, the first with a cold cache."""
    fields = [("authorization", f"Bearer {token}"), *headers]
    make_cold(edge, token)
    codes = set()
    for _ in range(3):
        codes.add((await edge.request(method, target, headers=fields)).status_code)
    return codes


TARGETS = ("/auth/", "/auth//", "/auth/a/b", "/auth/auth", "/auth/v1/self", "/auth/a%20b")
QUERIES = (
    "scope=orders",
    "scope=invoices",
    "scope=invoices&account=alice",
    "sc%6fpe=invoices&acc%6funt=alice",
    "scope=orders&scope=orders",
    "a=%20&b",
)


async def test_the_target_of_the_client_s_request_is_ignored(edge, tokens):
    for kind, headers, status in (
        ("orders", [(SCOPE, "orders:read")], 200),
        ("orders", [(SCOPE, "invoices")], 403),
        ("of alice", [(SCOPE, "orders")], 403),
        ("of alice", [(SCOPE, "orders"), (OF_ACCOUNT, "alice")], 200),
        ("of alice", [(SCOPE, "orders"), (OF_ACCOUNT, "bob")], 403),
        ("of alice", [(SCOPE, "orders"), (OF_ACCOUNT, "")], 403),
        ("all", [], 400),
    ):
        for target, query in zip(TARGETS, QUERIES, strict=True):
            codes = await statuses(edge, tokens[kind], f"{target}?{query}", *headers)
            assert codes == {status}, (kind, headers, target)


async def test_a_check_without_exactly_one_scope_is_a_bad_request(edge, tokens):
    for headers in (
        [],
        [(SCOPE, "")],
        [(SCOPE, "Orders")],
        [(SCOPE, "orders, orders")],
        [(SCOPE, "orders&account=alice")],
        [(SCOPE, "orders%26account=alice")],
        [(SCOPE, "orders#")],
        [(SCOPE, "orders"), (SCOPE, "orders")],
        [(SCOPE, "orders"), (SCOPE, "")],
        [(SCOPE, "orders"), (OF_ACCOUNT, "alice"), (OF_ACCOUNT, "alice")],
        [(SCOPE.replace("-", "_"), "orders")],
        [(OF_ACCOUNT, "alice")],
    ):
        for kind in ("all", "of alice"):
            codes = await statuses(edge, tokens[kind], "/auth/x?scope=orders&account=alice", *headers)
            assert codes == {400}, (kind, headers)


async def test_the_headers_count_only_where_envoy_appends_a_target(edge, tokens):
    assert await statuses(edge, tokens["orders"], "/auth?scope=invoices", (SCOPE, "orders")) == {403}
    assert await statuses(edge, tokens["orders"], "/auth?scope=orders", (SCOPE, "invoices")) == {200}
    assert await statuses(edge, tokens["of alice"], "/auth?scope=orders", (OF_ACCOUNT, "alice")) == {403}


async def test_a_token_in_the_client_s_query_is_accepted(edge, tokens):
    scope = {SCOPE: "orders"}
    value = tokens["orders"]
    for query, status in (
        (f"access_token={value}", 200),
        (f"scope=invoices&access%5ftoken={value}&b", 200),
        (f"access_token={'f' * 64}", 401),
        ("access_token=", 400),
        (f"access_token={value}&access_token={value}", 400),
        (f"my_access_token={value}", 401),
    ):
        assert (await edge.get(f"/auth/x?{query}", headers=scope)).status_code == status, query
    both = {**scope, "authorization": f"Bearer {value}"}
    assert (await edge.get(f"/auth/x?access_token={value}", headers=both)).status_code == 400


async def test_the_method_of_the_client_s_request_does_not_matter(edge, tokens):
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "get"):
        assert await statuses(edge, tokens["orders"], "/auth/x", (SCOPE, "orders"), method=method) == {200}, (
            method
        )
        assert await statuses(edge, tokens["orders"], "/auth/x", (SCOPE, "other"), method=method) == {403}, (
            method
        )
        wrong = await edge.request(method, "/auth/x", headers=WRONG | {SCOPE: "orders"})
        assert (wrong.status_code, method == "HEAD") == (401, wrong.content == b"")
    assert await statuses(edge, tokens["orders"], "/auth/x", (SCOPE, "orders"), method="TRACE") == {405}


async def test_a_check_of_a_cached_token_does_not_enter_the_framework(edge, operator, tokens):
    headers = {"authorization": f"Bearer {tokens['orders']}"}
    await leased([edge], operator)
    assert (await edge.get("/v1/self", headers=headers)).status_code == 200
    transport: Any = edge._transport
    transport.app._app = None
    transport.app._counter._counts.clear()
    for scope, status in (("orders", 200), ("invoices", 403)):
        response = await edge.get("/auth/a%20b?c=%20", headers=headers | {SCOPE: scope})
        assert response.status_code == status
    assert {route for _, _, route in transport.app._counter._counts} == {"/auth"}


async def test_a_rejected_check_has_its_body_in_a_header_too(edge, tokens):
    valid = {"authorization": f"Bearer {tokens['orders']}"}
    for path, headers, status in (
        ("/auth?scope=orders", {}, 401),
        ("/auth?scope=orders", WRONG, 401),
        ("/auth?scope=orders", {"authorization": "Bearer a b"}, 400),
        ("/auth?scope=invoices", valid, 403),
        ("/auth?scope=invoices", valid, 403),
        ("/auth", valid, 400),
        (f"/auth?scope={'a' * 9000}", valid, 414),
        ("/auth?scope=orders", valid | {"x": "a" * 17000}, 431),
        (f"/auth/{'a' * 9000}", valid, 414),
    ):
        response = await edge.get(path, headers=headers)
        assert response.status_code == status
        assert response.headers["x-token-problem"] == response.text
        assert json.loads(response.headers["x-token-problem"])["status"] == status
    assert "x-token-problem" not in (await edge.get("/auth?scope=orders", headers=valid)).headers
    for path in ("/v1/self", "/v1/self/x", f"/{'a' * 9000}"):
        assert "x-token-problem" not in (await edge.get(path, headers=WRONG)).headers

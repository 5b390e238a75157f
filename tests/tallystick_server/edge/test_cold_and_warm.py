"""An edge gives the same response whether it has cached the token (warm: a cached response, without the framework) or has
to look it up (cold).
"""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from nats.aio.client import Client

from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.imports import IMPORT_TOKENS, Imported, ImportTokens
from tallystick.contracts.operation import Actor
from tallystick.contracts.records import NewToken, Restrictions
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tests.support.coherence import cache_of, leased, make_cold
from tests.support.dashboard import ready
from tests.support.services import issue

ACTOR = Actor(name="test")
COMPARED = (
    "www-authenticate",
    "x-token-id",
    "x-token-account",
    "x-token-scopes",
    "cache-control",
    "ratelimit-policy",
)
HEX = "0123456789abcdef" * 4
OPAQUE_64 = "0123456789abcdeg" * 4
IMPORTED = {"hex": HEX, "HEX": HEX.upper(), "opaque": OPAQUE_64}
KINDS = ("all", "orders", "of alice", "of null", "from elsewhere", "from here", *IMPORTED)


@pytest.fixture
async def tokens(edge, operator, tokens_service) -> dict[str, str]:
    """A token of each kind, by kind."""
    await ready(edge)
    for account in ("alice", "null"):
        await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account=account, actor=ACTOR))
    limits = {kind: Restrictions(addresses=(network,)) for kind, network in (
        ("from elsewhere", "192.0.2.0/24"), ("from here", "127.0.0.0/8")
    )}  # fmt: skip
    tokens_by_kind = {
        "all": await issue(operator, "*"),
        "orders": await issue(operator, "orders"),
        "of alice": await issue(operator, "orders", account="alice"),
        "of null": await issue(operator, "orders", account="null"),
        **{kind: await issue(operator, "orders", restrictions=limit) for kind, limit in limits.items()},
    }
    await import_tokens(operator, HEX, OPAQUE_64)
    await leased([edge], operator)
    return {kind: value for kind, (value, _) in tokens_by_kind.items()} | IMPORTED


async def import_tokens(operator: Client, *values: str) -> None:
    """Imports tokens of scope ``orders`` by their digests."""
    records = tuple(
        TokenRecord(
            id=new_id("tok_"),
            digest=token_format.digest(value) or "",
            token=NewToken(scopes=("orders",)),
        )
        for value in values
    )
    imported = await call(operator, IMPORT_TOKENS, ImportTokens(records=records, actor=ACTOR))
    assert isinstance(imported, Imported), imported


def response_facts(response: httpx.Response) -> tuple[Any, ...]:
    code = response.json()["code"] if response.status_code >= 400 and response.content else response.content
    return (response.status_code, code, *(response.headers.get(name) for name in COMPARED))


SCOPES = st.one_of(
    st.sampled_from(
        ["orders", "orders:read", "orders:", ":orders", "*", "", "null", "asked", "own", "ORDERS"]
    ),
    st.text("ord:._-*+%2", max_size=6),
    st.from_regex(r"[a-z]{1,3}(:[a-z.]{0,2}){0,2}", fullmatch=True),
    st.integers(120, 130).map(lambda length: "o" * length),
)
ACCOUNTS = st.one_of(
    st.sampled_from(["alice", "bob", "null", "None", "", "a%6cice", "alice%20", "+alice", ".", "al=ice"]),
    st.text("alice.~@%5", max_size=6),
)
PARTS = st.one_of(
    SCOPES.map("scope={}".format),
    ACCOUNTS.map("account={}".format),
    SCOPES.map("sc%6fpe={}".format),
    st.sampled_from(["", "scope", "account", "x=1", "access_token=x", "Scope=orders", "scope=orders#x"]),
)
QUERIES = st.one_of(
    SCOPES.map("scope={}".format),
    st.tuples(SCOPES, ACCOUNTS).map(lambda pair: f"scope={pair[0]}&account={pair[1]}"),
    st.lists(PARTS, max_size=4).map("&".join),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "DELETE", "TRACE"]),
    query=QUERIES,
)
@example(kind="orders", method="GET", query="scope=orders:")
@example(kind="hex", method="GET", query="scope=orders")
@example(kind="HEX", method="HEAD", query="scope=invoices")
@example(kind="opaque", method="GET", query="scope=orders&account=alice")
@example(kind="all", method="GET", query="scope=a..b:")
@example(kind="of null", method="GET", query="scope=orders&account=null")
@example(kind="of alice", method="GET", query="scope=orders&account=bob&account=alice")
@example(kind="of alice", method="GET", query="scope=orders&account=alice&scope=orders")
async def test_a_proxy_gets_the_same_response_cold_and_warm(edge, tokens, kind: str, method: str, query: str):
    headers = {"authorization": f"Bearer {tokens[kind]}"}
    target = httpx.URL("http://edge/auth", query=query.partition("#")[0].encode())
    make_cold(edge, tokens[kind])
    cold = response_facts(await edge.request(method, target, headers=headers))
    await edge.get("/v1/self", headers=headers)  # caches the token, whatever the first response was
    for _ in range(2):  # checked, then from the cache
        warm = response_facts(await edge.request(method, target, headers=headers))
        assert warm == cold, (method, query)


async def test_warm_responses_come_from_the_cache(edge, tokens):
    """Otherwise the test above would compare the cold path with itself."""
    headers = {"authorization": f"Bearer {tokens['orders']}"}
    make_cold(edge, tokens["orders"])
    assert (await edge.get("/auth?scope=orders", headers=headers)).status_code == 200
    (entry,) = cache_of(edge)._entries.values()
    assert list(entry.check_results) == []
    assert (await edge.get("/auth?scope=orders", headers=headers)).status_code == 200
    assert (await edge.get("/auth?scope=orders:", headers=headers)).status_code == 400
    assert list(entry.check_results) == [b"scope=orders"]


async def test_requests_with_a_cached_token_of_any_kind_bypass_the_framework(
    edge, tokens, monkeypatch, subtests: pytest.Subtests
):
    for kind in ("orders", *IMPORTED):
        with subtests.test(kind=kind), monkeypatch.context() as without_framework:
            make_cold(edge, tokens[kind])  # two of these are the same token
            headers = {"authorization": f"Bearer {tokens[kind]}"}
            assert (await edge.get("/v1/self", headers=headers)).status_code == 200
            transport: Any = edge._transport
            without_framework.setattr(transport.app, "_app", None)
            for query, status in (("scope=orders:read", 200), ("scope=invoices", 403)):
                assert (await edge.get(f"/auth?{query}", headers=headers)).status_code == status


async def test_upper_and_lower_case_hex_is_one_token(edge, tokens):
    for kind in ("hex", "HEX"):
        headers = {"authorization": f"Bearer {tokens[kind]}"}
        assert (await edge.get("/auth?scope=orders", headers=headers)).status_code == 200
    assert len(cache_of(edge)) == 1
    # A hexadecimal token with a missing or an extra character is detected by its length.
    for value in (HEX[1:], HEX + "0"):
        response = await edge.get("/v1/self", headers={"authorization": f"Bearer {value}"})
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")


async def test_a_token_with_a_comma_is_one_token_cold_and_warm(edge, operator, tokens_service):
    await ready(edge)
    opaque = "an-opaque-token,with-a-comma"
    await import_tokens(operator, opaque)
    await leased([edge], operator)
    in_header = {"headers": {"authorization": f"Bearer {opaque}"}, "params": {"scope": "orders"}}
    in_query = {"params": {"scope": "orders", "access_token": opaque}}
    two = {"headers": {"authorization": f"Bearer {opaque}, Bearer {opaque}"}, "params": {"scope": "orders"}}
    assert (await edge.get("/auth", **two)).status_code == 400
    assert (await edge.get("/auth", **in_header)).status_code == 200
    assert (await edge.get("/auth", **in_query)).status_code == 200
    assert len(cache_of(edge)) == 1
    assert (await edge.get("/auth", **in_header)).status_code == 200
    assert (await edge.get("/auth", **two)).status_code == 400


async def test_a_bound_token_accepted_for_its_account_is_rejected_for_another(edge, operator, tokens_service):
    """Data cached with a token must not depend on the account that a request names."""
    await ready(edge)
    for account in ("alice", "bob"):
        await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account=account, actor=ACTOR))
    value, _ = await issue(operator, "api", account="alice")
    await leased([edge], operator)
    edge.headers["authorization"] = f"Bearer {value}"
    for _ in range(3):  # looked up, then from the cache
        for path, status in (
            ("/v1/account/alice", 200),
            ("/v1/account/bob", 403),
            ("/v1/accounts", 403),
            ("/v1/tokens?account=alice", 200),
            ("/v1/tokens?account=bob", 403),
            ("/v1/tokens", 403),
            ("/auth?scope=api&account=alice", 200),
            ("/auth?scope=api&account=bob", 403),
        ):
            response = await edge.get(path)
            assert response.status_code == status, path
            assert status == 200 or response.json()["code"] == "account_mismatch"
    # The tokens service would reject these requests too, but the edge must do so by itself.
    (cached,) = cache_of(edge)._entries.values()
    assert cached.admitted == set()

"""Introspection checks a token as forward-auth does, and reveals no reason why a token is inactive."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import nats
import pytest
from hypothesis import given, strategies as st

from tallystick.coherence import propagation
from tallystick.coherence.transport import NatsTransport
from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.operation import Actor
from tallystick.contracts.quotas import TAKE_QUOTA, Quota, TakeQuota
from tallystick.contracts.records import LastUse, RateLimit, Restrictions, Token
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    GET_LOG,
    GET_TOKEN,
    REVOKE_TOKEN,
    EditToken,
    GetLog,
    GetToken,
    RevokeToken,
    TokenLog,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY
from tallystick.errors import AuthError, Unavailable
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.access import AccessRequest, check_access
from tallystick_server.edge.api.introspection import Question, read_question, rejection
from tallystick_server.edge.http.errors import ProblemError
from tests.support.coherence import leased
from tests.support.dashboard import another_edge, ready
from tests.support.services import issue

pytestmark = pytest.mark.usefixtures("sent_once")
INACTIVE = b'{"active":false}'
ACTOR = Actor(name="test")
DAY = 86_400
ADDRESSES = Restrictions(addresses=("10.9.0.0/16", "2001:db8::/32"))
REFERRERS = Restrictions(referrers=("https://example.org/*",))


def limit(requests: int) -> Restrictions:
    return Restrictions(rate_limit=RateLimit(max_requests=requests, time_window=DAY))


@pytest.fixture
async def client(edge, operator, tokens_service) -> httpx.AsyncClient:
    """A client that sends a token with the scope `introspect`."""
    await ready(edge)
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=ACTOR))
    value, _ = await issue(operator, "introspect")
    edge.headers["authorization"] = f"Bearer {value}"
    await leased([edge], operator)
    return edge  # type: ignore[no-any-return]


async def introspect(client: httpx.AsyncClient, value: str, **fields: str) -> dict[str, Any]:
    response = await client.post("/oauth2/introspect", data={"token": value, **fields})
    assert response.status_code == 200, response.text
    claims: dict[str, Any] = response.json()
    if not claims["active"]:
        assert response.content == INACTIVE
    return claims


async def spent_requests(edge_client, token: Token) -> int:
    """The spent requests of a token's limit, without the one taken here. Quota that an edge holds counts as spent."""
    quota = await call(edge_client, TAKE_QUOTA, TakeQuota(id=token.id))
    assert isinstance(quota, Quota)
    return quota.limit - quota.remaining - quota.granted


# The rules


def make_token(**fields: Any) -> Token:
    facts: dict[str, Any] = {
        "id": "tok_1",
        "description": "",
        "scopes": ("orders",),
        "account": None,
        "metadata": None,
        "restrictions": Restrictions(),
        "not_before": None,
        "expires": None,
        "disabled": False,
        "hint": "",
        "created": datetime.now(UTC),
        "created_by": "",
        "rotated_to": None,
        "access": LastUse(),
    }
    return Token(**{**facts, **fields})


TOKENS = st.builds(
    make_token,
    scopes=st.sampled_from([("orders",), ("orders:read", "stock"), ("*",), ("stock",)]),
    account=st.sampled_from([None, "alice"]),
    restrictions=st.builds(
        Restrictions,
        addresses=st.sampled_from([None, ("10.9.0.0/16",)]),
        referrers=st.sampled_from([None, ("https://example.org/*",)]),
    ),
)
QUESTIONS = st.builds(
    Question,
    scopes=st.sampled_from(
        [(), ("orders",), ("orders:read",), ("orders:read", "stock"), ("stock", "orders")]
    ),
    account=st.sampled_from([None, "", "alice", "bob"]),
    address=st.sampled_from([None, "10.9.1.1", "192.0.2.1"]),
    referrer=st.sampled_from([None, "", "https://example.org/page", "https://elsewhere.example/"]),
    show=st.just(False),
)


@given(TOKENS, QUESTIONS)
def test_several_scopes_are_checked_like_one_request_per_scope(token: Token, question: Question):
    if not question.scopes:
        return
    _, account, address, referrer, _ = question
    access_requests = [
        AccessRequest(scope, account=account, address=address, referrer=referrer) for scope in question.scopes
    ]
    assert (rejection(token, question) is None) == all(
        check_access(token, access_request) is None for access_request in access_requests
    )


@given(TOKENS, QUESTIONS)
def test_show_skips_only_restrictions_without_a_value(token: Token, question: Question):
    limits = token.restrictions
    complete = (limits.addresses is None or question.address is not None) and (
        limits.referrers is None or question.referrer is not None
    )
    lenient, strict = rejection(token, question._replace(show=True)), rejection(token, question)
    if complete or strict not in {"address_not_allowed", "referrer_not_allowed"}:
        assert lenient == strict
    elif lenient is not None:
        values = {"address_not_allowed": question.address, "referrer_not_allowed": question.referrer}
        assert values[lenient] is not None


@given(TOKENS, QUESTIONS)
def test_a_missing_value_rejects_a_token_that_requires_it(token: Token, question: Question):
    """Except the account in a question without scopes: the caller compares it with `sub`."""
    if token.restrictions.addresses is not None:
        assert rejection(token, question._replace(address=None)) is not None
    if token.restrictions.referrers is not None:
        assert rejection(token, question._replace(referrer=None)) is not None
    if token.account is not None and question.scopes:
        assert rejection(token, question._replace(account=None)) is not None


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({"scope": ""}, {"scope"}),
        ({"scope": "orders "}, {"scope"}),
        ({"scope": "orders  stock"}, {"scope"}),
        ({"scope": "orders\tstock"}, {"scope"}),
        ({"scope": "orders,stock"}, {"scope"}),
        ({"scope": "Orders"}, {"scope"}),
        ({"scope": "orders:"}, {"scope"}),
        ({"scope": "o" * 129}, {"scope"}),
        ({"scope": " ".join(["orders"] * 65)}, {"scope"}),
        ({"address": ""}, {"address"}),
        ({"address": "10.0.0.1:80"}, {"address"}),
        ({"address": "10.0.0.0/8"}, {"address"}),
        ({"address": "unknown"}, {"address"}),
        ({"restrictions": ""}, {"restrictions"}),
        ({"restrictions": "hide"}, {"restrictions"}),
        ({"restrictions": "Show"}, {"restrictions"}),
        ({"scope": "!", "address": "!", "restrictions": "!"}, {"scope", "address", "restrictions"}),
    ],
)
def test_an_invalid_field_is_named(form: dict[str, str], fields: set[str]):
    with pytest.raises(ProblemError) as error_info:
        read_question(form)
    assert error_info.value.code == "bad_request"
    assert {error.field for error in error_info.value.errors} == fields


@pytest.mark.parametrize(
    ("address", "normalized"),
    [
        ("::ffff:10.9.0.1", "10.9.0.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%" + "x" * 5000, "fe80::1"),
    ],
)
def test_an_address_is_normalized_to_its_shortest_form(address: str, normalized: str):
    assert read_question({"address": address}).address == normalized


# Over HTTP


async def test_without_further_fields_an_unrestricted_token_is_shown_in_full(client, operator):
    expires = datetime.now(UTC) + timedelta(hours=1)
    value, token = await issue(operator, "orders", "stock", account="alice", expires=expires)
    for _ in range(2):  # unknown to the edge, then cached
        assert await introspect(client, value) == {
            "active": True,
            "scope": "orders stock",
            "client_id": token.id,
            "token_type": "Bearer",
            "sub": "alice",
            "iat": int(token.created.timestamp()),
            "exp": int(expires.timestamp()),
            "jti": token.id,
        }


async def test_scopes_are_echoed_if_all_are_covered(client, operator):
    value, _ = await issue(operator, "orders", "stock:read")
    for scope, active in (
        ("orders", True),
        ("orders:read", True),
        ("orders:read stock:read", True),
        ("stock:read orders orders:read orders", True),
        ("orders stock", False),
        ("stock orders", False),
        ("*", False),
        ("invoices", False),
    ):
        claims = await introspect(client, value, scope=scope)
        assert claims["active"] is active, scope
        assert not active or claims["scope"] == scope


async def test_an_uncheckable_restriction_makes_a_token_inactive_unless_it_is_shown(client, operator):
    for restrictions, right, wrong in (
        (ADDRESSES, {"address": "10.9.1.2"}, {"address": "10.10.1.2"}),
        (ADDRESSES, {"address": "::ffff:10.9.1.2"}, {"address": "::1"}),
        (REFERRERS, {"referrer": "https://example.org/page"}, {"referrer": "https://elsewhere.example/"}),
        (REFERRERS, {"referrer": "https://example.org/"}, {"referrer": ""}),
        (limit(1000), {"address": "192.0.2.1"}, None),
        (limit(1000), {"scope": "orders"}, None),
    ):
        value, _ = await issue(operator, "orders", restrictions=restrictions)
        assert not (await introspect(client, value))["active"]
        claims = await introspect(client, value, restrictions="show")
        assert claims["active"]
        assert claims["restrictions"] == {
            "addresses": list(restrictions.addresses) if restrictions.addresses else None,
            "referrers": list(restrictions.referrers) if restrictions.referrers else None,
            "rateLimit": {"maxRequests": 1000, "timeWindow": DAY} if restrictions.rate_limit else None,
        }
        for scope in ({}, {"scope": "orders:read"}):
            claims = await introspect(client, value, **{**right, **scope})
            assert claims["active"]
            assert "restrictions" not in claims
            assert (await introspect(client, value, **{**right, **scope}, restrictions="show"))["active"]
            if wrong is not None:
                # A value is always checked, with and without `show`.
                assert not (await introspect(client, value, **wrong, **scope))["active"]
                assert not (await introspect(client, value, **wrong, **scope, restrictions="show"))["active"]
                assert not (await introspect(client, value, **scope))["active"]
                assert (await introspect(client, value, **scope, restrictions="show"))["active"]
    value, _ = await issue(operator, "orders")
    no_restrictions = {"addresses": None, "referrers": None, "rateLimit": None}
    assert (await introspect(client, value, restrictions="show"))["restrictions"] == no_restrictions


async def test_an_account_bound_token_is_active_for_its_account_only(client, operator):
    value, _ = await issue(operator, "orders", account="alice")
    for fields, active in (
        ({}, True),
        ({"address": "192.0.2.1"}, True),
        ({"account": "alice"}, True),
        ({"account": "bob"}, False),
        ({"account": ""}, False),
        ({"scope": "orders"}, False),
        ({"scope": "orders", "restrictions": "show"}, False),
        ({"scope": "orders", "account": "alice"}, True),
        ({"scope": "orders", "account": "Alice"}, False),
    ):
        claims = await introspect(client, value, **fields)
        assert claims["active"] is active, fields
        assert not active or claims["sub"] == "alice"
    unbound, _ = await issue(operator, "orders")
    assert (await introspect(client, unbound, scope="orders", account="bob"))["active"]


async def test_each_question_about_a_request_consumes_exactly_one_request(client, operator, edge_client):
    for fields in (
        {"scope": "orders"},
        {"scope": "orders orders:read orders:write"},
        {"address": "192.0.2.1"},
        {"account": "alice"},
        {"referrer": ""},
        {"scope": "orders", "restrictions": "show"},
    ):
        value, token = await issue(operator, "orders", restrictions=limit(3))
        for expected in (True, True, True, False, False):
            assert (await introspect(client, value, **fields))["active"] is expected, fields
        quota = await call(edge_client, TAKE_QUOTA, TakeQuota(id=token.id))
        assert isinstance(quota, Quota)
        assert quota.granted == quota.remaining == 0


async def test_other_questions_consume_nothing(client, operator, edge_client):
    value, token = await issue(operator, "orders", restrictions=limit(3))
    for _ in range(5):
        assert not (await introspect(client, value))["active"]
        assert (await introspect(client, value, restrictions="show"))["active"]
        assert not (await introspect(client, value, scope="invoices"))["active"]
        assert not (await introspect(client, value, scope="orders invoices"))["active"]
    assert await spent_requests(edge_client, token) == 0
    # Introspection and forward-auth share one limit.
    assert (await introspect(client, value, scope="orders"))["active"]
    headers = {"authorization": f"Bearer {value}"}
    assert (await client.get("/auth?scope=orders", headers=headers)).status_code == 200
    assert (await client.get("/auth?scope=orders", headers=headers)).status_code == 429
    assert not (await introspect(client, value, scope="orders"))["active"]


async def test_the_reason_for_an_inactive_token_is_not_revealed(client, operator):
    values = [token_format.mint(), "x", "f" * 64, "tly_" + "0" * 49, "caf\xe9" * 8, "x" * 5000]
    revoked, token = await issue(operator, "orders")
    await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=ACTOR))
    disabled, token = await issue(operator, "orders")
    change = EditToken(id=token.id, changes=TokenUpdate(disabled=True), actor=ACTOR)
    await propagation.call_and_wait(operator, EDIT_TOKEN.by_operator, change)
    later = (await issue(operator, "orders", not_before=datetime.now(UTC) + timedelta(hours=1)))[0]
    soon = (await issue(operator, "orders", expires=datetime.now(UTC) + timedelta(seconds=0.3)))[0]
    await asyncio.sleep(0.4)
    for value in (*values, revoked, disabled, later, soon):
        for fields in (
            {},
            {"scope": "orders"},
            {"restrictions": "show"},
            {"scope": "orders", "restrictions": "show"},
        ):
            assert await introspect(client, value, **fields) == {"active": False}


async def test_a_revoked_token_is_inactive_at_once(client, operator):
    value, token = await issue(operator, "orders")
    assert (await introspect(client, value, scope="orders"))["active"]
    await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=ACTOR))
    assert not (await introspect(client, value, scope="orders"))["active"]
    assert not (await introspect(client, value))["active"]


async def test_a_token_revoked_before_its_limit_is_checked_is_inactive(client, operator, monkeypatch):
    """The response is not a 401: the revoked token is not the one that authenticates the caller."""
    value, _ = await issue(operator, "orders", restrictions=limit(3))

    async def spend(*_: object) -> None:
        raise AuthError("invalid_token")

    monkeypatch.setattr(client._transport.app._verifier.limiter, "spend", spend)
    assert not (await introspect(client, value, scope="orders"))["active"]


async def test_an_undecidable_question_is_a_503(client, operator, monkeypatch):
    value, _ = await issue(operator, "orders", restrictions=limit(3))

    async def spend(*_: object) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(client._transport.app._verifier.limiter, "spend", spend)
    response = await client.post("/oauth2/introspect", data={"token": value, "scope": "orders"})
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")


async def test_the_edge_checks_the_question_itself_and_sends_only_the_digest(client, operator, nats_server):
    """A tokens service of an earlier version would ignore a field that it does not know."""
    payloads: list[bytes] = []

    async def watch(message) -> None:
        payloads.append(message.data)

    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe(VERIFY.subject, cb=watch)
    await watcher.flush()
    value, _ = await issue(operator, "orders")
    await introspect(
        client, value, scope="orders invoices", account="alice", address="192.0.2.1", referrer="x"
    )
    await watcher.flush()
    await watcher.close()
    assert f'{{"digest":"{token_format.digest(value)}"'.encode() in b"".join(payloads)
    for field in (b"invoices", b"alice", b"192.0.2.1"):
        assert field not in b"".join(payloads)


async def test_a_question_about_a_request_counts_as_a_use_of_the_token(client, operator):
    value, token = await issue(operator, "orders", restrictions=ADDRESSES)
    app: Any = client._transport.app
    await introspect(client, value, restrictions="show")
    await introspect(client, value)
    assert token.id not in app._verifier.usage._uses
    await introspect(client, value, scope="orders", address="10.9.0.1")
    await introspect(client, value, scope="invoices", address="10.9.0.1")
    await introspect(client, value, scope="orders", address="192.0.2.1")
    await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=ACTOR))
    await introspect(client, value)
    await introspect(client, value, scope="orders")
    await app._verifier.usage.flush(NatsTransport(app._app.state.client))
    record = await call(operator, GET_TOKEN.by_operator, GetToken(id=token.id, revoked=True, actor=ACTOR))
    assert isinstance(record, Token)
    assert record.access.ip == "10.9.0.1"
    log = await call(operator, GET_LOG.by_operator, GetLog(id=token.id, actor=ACTOR))
    assert isinstance(log, TokenLog)
    assert {(refusal.reason, refusal.address, refusal.route) for refusal in log.refusals} == {
        ("insufficient_scope", "10.9.0.1", "/oauth2/introspect"),
        ("address_not_allowed", "192.0.2.1", "/oauth2/introspect"),
        ("revoked", None, "/oauth2/introspect"),
    }


class Twins(NamedTuple):
    """Two tokens with the same properties: one for `/auth`, one for introspection. Each has a separate rate limit."""

    facts: dict[str, Any]
    at_auth: str
    introspected: str


async def test_a_token_is_active_if_and_only_if_forward_auth_returns_200(
    client, operator, nats_server, tokens_service
):
    rng = random.Random(20261126)
    pairs: list[Twins] = []
    for _ in range(40):
        facts: dict[str, Any] = {
            "scopes": tuple(
                rng.sample(["orders", "orders:read", "stock", "stock:eu:read", "*"], rng.randint(1, 2))
            ),
            "account": rng.choice([None, None, "alice"]),
            "restrictions": Restrictions(
                addresses=rng.choice([None, None, ("10.9.0.0/16",), ("10.9.1.0/24", "2001:db8::/32")]),
                referrers=rng.choice(
                    [None, None, ("https://example.org/*",), ("*.example.net/*", "https://*")]
                ),
                rate_limit=rng.choice(
                    [None, None, RateLimit(max_requests=rng.randint(1, 9), time_window=DAY)]
                ),
            ),
        }
        fields = {name: value for name, value in facts.items() if name != "scopes"}
        first, _ = await issue(operator, *facts["scopes"], **fields)
        second, _ = await issue(operator, *facts["scopes"], **fields)
        pairs.append(Twins(facts, first, second))
    counts = {True: 0, False: 0}
    async with another_edge(nats_server, trusted_proxies="127.0.0.1/32") as edge:
        await leased([client, edge], operator)
        for _ in range(1500):
            pair = rng.choice(pairs)
            scope = rng.choice(["orders", "orders:read", "stock", "stock:eu", "stock:eu:read"])
            account = rng.choice([None, "alice", "bob"]) if rng.random() < 0.5 else pair.facts["account"]
            address = rng.choice(["10.9.0.1", "10.9.1.1", "192.0.2.1", "2001:db8::1", "::ffff:10.9.1.9"])
            referrer = rng.choice(
                [
                    None,
                    "https://example.org/",
                    "https://a.example.net/b",
                    "http://a.example.net/?x",
                    "",
                    "nonsense",
                ]
            )
            headers = {"authorization": f"Bearer {pair.at_auth}", "x-forwarded-for": address}
            headers |= {} if referrer is None else {"referer": referrer}
            params = {"scope": scope} | ({} if account is None else {"account": account})
            status = (await edge.get("/auth", params=params, headers=headers)).status_code
            assert status in {200, 403, 429}
            request = params | {"address": address} | ({} if referrer is None else {"referrer": referrer})
            claims = await introspect(client, pair.introspected, **request)
            assert claims["active"] is (status == 200), (pair.facts, request, status)
            counts[claims["active"]] += 1
    assert min(counts.values()) > 200, counts

"""EmailEngine's routes: they take its ids and request bodies, return its responses, and never create a broader token than
requested.
"""

import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import httpx
import nats
import pytest

from tallystick.coherence.notices import notice_key
from tallystick.contracts.imports import IMPORT_TOKENS, Imported, ImportTokens
from tallystick.contracts.operation import Actor
from tallystick.contracts.records import NewToken
from tallystick.rpc.call import call
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tallystick.tokens.rules import MAX_REFERRER, MAX_REFERRERS
from tallystick_server.edge.api import emailengine
from tests.support.services import issue

ACTOR = Actor(name="test")
UNKNOWN = "ab" * 32


@pytest.fixture
async def admin(edge: httpx.AsyncClient, operator, tokens_service) -> httpx.AsyncClient:
    """An HTTP client that sends an all-powerful token; accounts alice and bob exist."""
    value, _ = await issue(operator)
    edge.headers["authorization"] = f"Bearer {value}"
    for account in ("alice", "bob"):
        assert (await edge.post("/v1/account", json={"account": account})).status_code == 200
    return edge


def digest_of(value: str) -> str:
    return sha256(bytes.fromhex(value)).hexdigest()


async def import_token(operator, digest: str, account: str | None = None) -> str:
    """Imports a token by EmailEngine's id, and returns its public id."""
    record = TokenRecord(
        id=new_id("tok_"),
        digest=digest,
        hint=digest[:8],
        token=NewToken(scopes=("api",), account=account),
    )
    imported = await call(operator, IMPORT_TOKENS, ImportTokens(records=(record,), actor=ACTOR))
    assert isinstance(imported, Imported), imported
    return record.id


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


async def is_valid(admin: httpx.AsyncClient, value: str) -> bool:
    return (await admin.get("/auth?scope=api", headers=bearer(value))).status_code == 200


# Ids


async def test_a_token_is_deleted_by_any_of_its_names(admin, operator, subtests: pytest.Subtests):
    for name in ("value", "VALUE", "id", "ID", "public id"):
        with subtests.test(name=name):
            value = secrets.token_hex(32)
            public_id = await import_token(operator, digest_of(value))
            names = {"value": value, "id": digest_of(value), "public id": public_id}
            path = f"/v1/token/{names[name.lower()].upper() if name.isupper() else names[name.lower()]}"
            assert await is_valid(admin, value)
            deleted = await admin.delete(path)
            assert (deleted.status_code, deleted.json()["deleted"], deleted.json()["covered"]) == (
                200,
                True,
                [public_id],
            )
            assert digest_of(value) not in deleted.text
            assert not await is_valid(admin, value)
            repeated = await admin.delete(path)
            assert (repeated.status_code, repeated.json()) == (200, {"deleted": False})


async def test_an_unknown_token_is_reported_as_not_deleted(admin, subtests: pytest.Subtests):
    for name in (UNKNOWN, "x", "tok_" + "0" * 26, "tly_unknown", "an-opaque-unknown-token"):
        with subtests.test(name=name):
            response = await admin.delete(f"/v1/token/{name}")
            assert (response.status_code, response.json()) == (200, {"deleted": False})


async def test_a_repeated_request_with_its_idempotency_key_gets_the_same_response(admin, operator):
    value = secrets.token_hex(32)
    await import_token(operator, digest_of(value))
    key = {"idempotency-key": "k1"}
    first, second = [await admin.delete(f"/v1/token/{digest_of(value)}", headers=key) for _ in range(2)]
    assert first.json()["deleted"] is second.json()["deleted"] is True


async def test_an_ambiguous_name_deletes_neither_token(admin, operator):
    """The value of the first token is the id of the second, which only an import can cause."""
    first = secrets.token_hex(32)
    ids = [await import_token(operator, digest_of(first)), await import_token(operator, first)]
    response = await admin.delete(f"/v1/token/{first}")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert await is_valid(admin, first)
    for public_id in ids:
        assert (await admin.get(f"/v1/tokens/{public_id}")).status_code == 200
    assert (await admin.delete(f"/v1/token/{ids[1]}")).json()["deleted"]
    assert await is_valid(admin, first)


async def test_a_bound_token_deletes_only_tokens_of_its_account(admin, operator):
    creator, _ = await issue(operator, "api:tokens", account="alice")
    values = {account: secrets.token_hex(32) for account in ("alice", "bob")}
    for account, value in values.items():
        await import_token(operator, digest_of(value), account)
    for account, status in (("bob", 403), ("alice", 200)):
        response = await admin.delete(f"/v1/token/{digest_of(values[account])}", headers=bearer(creator))
        assert response.status_code == status, account
    assert await is_valid(admin, "x" * 20) is False
    for account, remains in (("bob", True), ("alice", False)):
        path = f"/auth?scope=api&account={account}"
        assert ((await admin.get(path, headers=bearer(values[account]))).status_code == 200) is remains


async def test_records_logs_and_lists_accept_the_emailengine_id(admin, operator):
    value = secrets.token_hex(32)
    ee_id = digest_of(value)
    public_id = await import_token(operator, ee_id)
    await import_token(operator, digest_of(secrets.token_hex(32)))
    for name in (ee_id, ee_id.upper()):
        record = await admin.get(f"/v1/tokens/{name}")
        assert (record.status_code, record.json()["id"]) == (200, public_id)
        log = await admin.get(f"/v1/tokens/{name}/log")
        assert [change["action"] for change in log.json()["changes"]] == ["token.created"]
    for query in (ee_id, ee_id.upper(), ee_id[:8], ee_id[:8].upper(), f" {ee_id} "):
        token_list = await admin.get("/v1/tokens", params={"query": query})
        assert [token["id"] for token in token_list.json()["tokens"]] == [public_id], query
        assert ee_id not in token_list.text
    for query in (value, ee_id[:-1], ee_id[1:], UNKNOWN):
        assert (await admin.get("/v1/tokens", params={"query": query})).json()["total"] == 0, query
    assert (await admin.get("/v1/tokens", params={"query": "  "})).json()["total"] == 3
    # A value does not identify a record, and an id does not authenticate.
    for path in (f"/v1/tokens/{value}", f"/v1/tokens/{value}/log", f"/v1/tokens/{UNKNOWN}"):
        assert (await admin.get(path)).status_code == 404
    assert (await admin.get("/v1/self", headers=bearer(ee_id))).status_code == 401
    # A revoked token keeps its record and its log.
    await admin.delete(f"/v1/token/{ee_id}")
    assert (await admin.get(f"/v1/tokens/{ee_id}")).json()["revoked"]
    assert len((await admin.get(f"/v1/tokens/{ee_id}/log")).json()["changes"]) == 2
    token_list = await admin.get("/v1/tokens", params={"query": ee_id, "state": "revoked"})
    assert [token["id"] for token in token_list.json()["tokens"]] == [public_id]


async def test_neither_a_value_nor_an_id_travels_over_nats(admin, operator, nats_server):
    payloads: list[bytes] = []

    async def watch(message) -> None:
        payloads.append(message.data)

    known, unknown = secrets.token_hex(32), secrets.token_hex(32)
    await import_token(operator, digest_of(known))
    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe("tallystick.v1.edge.>", cb=watch)
    await watcher.flush()
    for path in ("/v1/tokens/{}", "/v1/tokens/{}/log", "/v1/token/{}"):
        for name in (known, digest_of(known), unknown):
            await admin.request("DELETE" if path == "/v1/token/{}" else "GET", path.format(name))
    await watcher.flush()
    await watcher.close()
    traffic = b"\n".join(payloads)
    assert notice_key(bytes.fromhex(digest_of(known))).encode() in traffic
    assert known.encode() not in traffic
    assert unknown.encode() not in traffic


# Request bodies

NEW: dict[str, Any] = {"description": "moved", "scopes": ["api"], "account": "alice"}
STATS = {"actions": ["read"], "groups": ["diagnostics"]}


def limits(**fields: Any) -> dict[str, Any]:
    return {"restrictions": fields}


ACCEPTED_FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"scopes": "api"}, {"scopes": ["api"]}),
    ({"description": "  moved  "}, {"description": "moved"}),
    ({"account": None}, {"account": None}),
    ({"metadata": '{"example": "value"}', "ip": "192.0.2.1"}, {"metadata": {"example": "value"}}),
    ({"metadata": {"example": "value"}}, {"metadata": {"example": "value"}}),
    ({"metadata": "[1, 2]"}, {"metadata": {"emailengine": "[1, 2]"}}),
    ({"metadata": ""}, {"metadata": None}),
    ({"ip": "", "remoteAddress": None}, {}),
    (
        {"restrictions": False},
        {"restrictions": {"addresses": None, "referrers": None, "rateLimit": None}},
    ),
    (
        limits(addresses=False, referrers="", rateLimit=False),
        {"restrictions": {"addresses": None, "referrers": None, "rateLimit": None}},
    ),
    (limits(addresses="127.0.0.1/8"), limits(addresses=["127.0.0.0/8"], referrers=None, rateLimit=None)),
    (
        limits(addresses=["2001:db8::1/32", "192.0.2.7"]),
        limits(addresses=["2001:db8::/32", "192.0.2.7/32"], referrers=None, rateLimit=None),
    ),
    (
        limits(referrers="*web.domain.org/*"),
        limits(addresses=None, referrers=["*web.domain.org/*"], rateLimit=None),
    ),
    (limits(referrers=[]), limits(addresses=None, referrers=None, rateLimit=None)),
    (
        limits(rateLimit={"maxRequests": 20, "timeWindow": 2}),
        limits(addresses=None, referrers=None, rateLimit={"maxRequests": 20, "timeWindow": 2}),
    ),
    ({"permissions": None}, {"scopes": ["api"]}),
    ({"permissions": STATS}, {"scopes": ["api:stats:read"]}),
    ({"scopes": "*", "permissions": STATS}, {"scopes": ["api:stats:read", "metrics"]}),
    (
        {"permissions": {"grants": [{"action": "read", "group": "account"}]}},
        {"scopes": ["api:accounts:read"]},
    ),
    ({"expires": "2030-01-31"}, {"expires": "2030-01-31T00:00:00Z"}),
    ({"expires": "2030-01-31T09:00:00+09:00"}, {"expires": "2030-01-31T00:00:00Z"}),
    ({"expires": None}, {"expires": None}),
]


async def test_emailengine_request_bodies_are_accepted(admin, subtests: pytest.Subtests):
    for form, expected in ACCEPTED_FORMS:
        with subtests.test(form=form, expected=expected):
            created = await admin.post("/v1/token", json={**NEW, **form})
            assert created.status_code == 200, created.text
            record = (await admin.get(f"/v1/tokens/{created.json()['id']}")).json()
            values = {name: record[name] for name in expected}
            assert values == expected
            # The route for new clients is strict.
            if form.keys() & {"permissions", "ip"} or isinstance(form.get("scopes"), str):
                assert (await admin.post("/v1/tokens", json={**NEW, **form})).status_code == 400


async def test_an_expiry_over_ten_years_away_is_limited_to_ten_years(admin, subtests: pytest.Subtests):
    for year in (2099, 9999):
        with subtests.test(year=year):
            key = {"idempotency-key": f"far-{year}"}
            form = {**NEW, "expires": f"{year}-01-01"}
            created, repeated = [await admin.post("/v1/token", json=form, headers=key) for _ in range(2)]
            assert created.status_code == 200, created.text
            lifetime = datetime.fromisoformat(created.json()["expires"]) - datetime.now(UTC)
            assert timedelta(days=3650) < lifetime <= timedelta(days=3652)
            assert repeated.json()["id"] == created.json()["id"]


REJECTED_FORMS: list[tuple[dict[str, Any], str | None]] = [
    ({"permissions": {"actions": ["read"]}}, "permissions"),
    ({"permissions": {"actions": ["read", "send"], "groups": ["message"]}}, "permissions"),
    ({"permissions": {}}, "permissions"),
    ({"permissions": {"actions": []}}, "permissions"),
    ({"permissions": False}, "permissions"),
    ({"permissions": ""}, "permissions"),
    ({"permissions": {"actions": "read"}}, "permissions"),
    ({"permissions": STATS, "scopes": ["api:tokens:read"]}, "permissions"),
    ({"permissions": STATS, "scopes": "smtp"}, "permissions"),
    ({"scopes": []}, "scopes"),
    ({"scopes": ""}, "scopes[0]"),
    ({"scopes": False}, "scopes"),
    ({"scopes": None}, "scopes"),
    ({"someFutureNarrowing": True}, "someFutureNarrowing"),
    ({"description": None}, "description"),
    ({"metadata": "not JSON"}, "metadata"),
    ({"metadata": '{"a": 1e999999}'}, "metadata"),
    ({"metadata": f'{{"a": {2**70}}}'}, "metadata"),
    ({"metadata": '{"a": "\\u0000"}'}, "metadata"),
    ({"metadata": "[" * 5000}, "metadata"),
    ({"metadata": False}, "metadata"),
    ({"restrictions": True}, "restrictions"),
    ({"restrictions": ""}, "restrictions"),
    (limits(addresses=True), "restrictions.addresses"),
    (limits(addresses=[]), "restrictions.addresses"),
    (limits(addresses=[""]), "restrictions.addresses[0]"),
    (limits(addresses="10.0.0.0/255.0.0.0"), "restrictions.addresses[0]"),
    (limits(addresses=["192.0.2.7", "10.0.0.1/33"]), "restrictions.addresses[1]"),
    (limits(referrers=True), "restrictions.referrers"),
    (limits(referrers="https://good.example/page"), "restrictions.referrers[0]"),
    (limits(referrers=["https://GOOD.example/*"]), "restrictions.referrers[0]"),
    (limits(rateLimit=True), "restrictions.rateLimit"),
    (limits(rateLimit=""), "restrictions.rateLimit"),
    (limits(rateLimit={"maxRequests": 3}), "restrictions.rateLimit.timeWindow"),
    (limits(rateLimit={"maxRequests": 0, "timeWindow": 1}), "restrictions.rateLimit.maxRequests"),
    (limits(methods=["GET"]), "restrictions.methods"),
    ({"expires": ""}, "expires"),
    ({"expires": False}, "expires"),
    ({"expires": 4_070_908_800_000}, "expires"),
    ({"expires": "2030-02-31"}, "expires"),
    ({"expires": "2030-01-31T09:00:00"}, "expires"),
    ({"expires": "2020-01-01"}, "expires"),
    ({"expires": "0001-01-01T00:00:00+23:59"}, "expires"),
    ({"expires": "9999-12-31T23:59:59-23:59"}, None),
]


async def test_broader_or_meaningless_values_are_rejected(admin, subtests: pytest.Subtests):
    for form, field in REJECTED_FORMS:
        with subtests.test(form=form, field=field):
            before = (await admin.get("/v1/tokens/account/alice")).json()["total"]
            response = await admin.post("/v1/token", json={**NEW, **form})
            if field is None:
                assert response.status_code == 200, response.text
                continue
            assert response.status_code == 400, response.text
            assert {error["field"] for error in response.json()["errors"]} == {field}, response.text
            assert response.json()["errors"][0]["message"]
            assert "import" not in response.text
            assert (await admin.get("/v1/tokens/account/alice")).json()["total"] == before


async def test_all_errors_of_a_request_body_are_reported_at_once(admin):
    form = {**NEW, "permissions": {}, "expires": "soon", "metadata": "x", **limits(referrers="x")}
    response = await admin.post("/v1/token", json=form)
    assert {error["field"] for error in response.json()["errors"]} == {
        "permissions",
        "expires",
        "metadata",
        "restrictions.referrers[0]",
    }


async def test_an_unknown_account_is_not_found(admin, subtests: pytest.Subtests):
    for account in ("nobody", "", "ac c/é", "a" * 200):
        with subtests.test(account=account):
            response = await admin.post("/v1/token", json={**NEW, "account": account})
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert (await admin.post("/v1/tokens", json={**NEW, "account": account})).status_code == 400


async def test_a_bound_token_creates_tokens_for_its_account_only(admin, operator):
    creator, _ = await issue(operator, "api:tokens", account="alice")
    for account, status in (("alice", 200), ("bob", 403), ("", 403), (None, 403), (" alice", 403)):
        form = {"scopes": "api:tokens:read", "account": account}
        response = await admin.post("/v1/token", json=form, headers=bearer(creator))
        assert response.status_code == status, account


# Lists


async def fill(database, count: int, account: str = "alice", restrictions: str = "{}") -> None:
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        """
        insert into tokens.token
            (id, digest, hint, description, scopes, account, restrictions, created_by, family, chain)
        select id, sha256(id::bytea), '', '', '{api}', $2, $3, 'test', id, id
        from generate_series(1, $1) n
            cross join lateral (select 'tok_' || lpad($2 || n, 26, '0') as id) as named
        """,
        count,
        account,
        restrictions,
    )
    await connection.close()


async def test_a_list_contains_all_tokens_of_the_account(admin, database):
    await fill(database, 38)
    await fill(database, 3, "bob")
    token_list = (await admin.get("/v1/tokens/account/alice")).json()
    assert (token_list["account"], token_list["total"], token_list["truncated"]) == ("alice", 38, False)
    assert len({token["id"] for token in token_list["tokens"]}) == 38
    assert {token["account"] for token in token_list["tokens"]} == {"alice"}
    empty = await admin.get("/v1/tokens/account/nobody")
    assert (empty.status_code, empty.json()["tokens"], empty.json()["truncated"]) == (200, [], False)


async def test_a_list_of_more_than_a_thousand_is_truncated(admin, database):
    await fill(database, 1003)
    token_list = (await admin.get("/v1/tokens/account/alice")).json()
    assert (token_list["total"], token_list["truncated"], len(token_list["tokens"])) == (1003, True, 1000)
    ids = [token["id"] for token in token_list["tokens"]]
    assert ids == sorted(ids, reverse=True)


async def test_a_list_too_large_for_one_message_is_read_in_parts(admin, database, monkeypatch):
    pattern = ",".join(f'"{number:0{MAX_REFERRER}}"' for number in range(MAX_REFERRERS))
    await fill(database, 60, restrictions=f'{{"referrers": [{pattern}]}}')
    token_list = (await admin.get("/v1/tokens/account/alice")).json()
    assert (token_list["total"], token_list["truncated"]) == (60, False)
    assert len({token["id"] for token in token_list["tokens"]}) == 60
    monkeypatch.setattr(emailengine, "MAX_PARTS", 6)
    token_list = (await admin.get("/v1/tokens/account/alice")).json()
    assert (token_list["total"], token_list["truncated"], len(token_list["tokens"])) == (60, True, 50)


async def test_a_list_that_changes_during_the_read_is_read_again(admin, database, monkeypatch):
    await fill(database, 20)
    monkeypatch.setattr(emailengine, "PART_SIZES", (5, 1))
    read = emailengine._part

    async def revoking(request, account, page, size):
        if page == 2:
            monkeypatch.setattr(emailengine, "_part", read)
            part = await read(request, account, 0, 1)
            assert part is not None
            newest = part.tokens[0].id
            assert (await admin.delete(f"/v1/tokens/{newest}")).status_code == 200
        return await read(request, account, page, size)

    monkeypatch.setattr(emailengine, "_part", revoking)
    token_list = (await admin.get("/v1/tokens/account/alice")).json()
    assert (token_list["total"], token_list["truncated"]) == (19, False)
    assert len({token["id"] for token in token_list["tokens"]}) == 19

"""Edits merge as RFC 7396 does, on every way, and a stale one changes nothing."""

import json
from typing import Any

import asyncpg
import httpx
import pytest

from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import CREATE_TOKEN, EDIT_TOKEN, CreateToken, EditToken, TokenUpdate
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tests.support.api import bearer, create_token
from tests.support.services import issue

OPERATOR = Actor(name="test")
RESTRICTIONS = {
    "addresses": ["192.0.2.0/24"],
    "referrers": ["https://a.example/*"],
    "rateLimit": {"maxRequests": 5, "timeWindow": 60},
}
METADATA = {"team": "billing", "links": {"wiki": "x", "chat": "y"}, "list": [1, 2]}
LIMIT = {"maxRequests": 5, "timeWindow": 60}


async def over_http(admin: httpx.AsyncClient, operator, token_id: str, patch: Any) -> dict[str, Any]:
    del operator
    headers = {"content-type": "application/merge-patch+json"}
    answer = await admin.patch(f"/v1/tokens/{token_id}", content=json.dumps(patch), headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def over_nats(admin: httpx.AsyncClient, operator, token_id: str, patch: Any) -> dict[str, Any]:
    asked = json.dumps({"id": token_id, "changes": patch, "actor": {"name": "test"}}).encode()
    answer = await operator.request(EDIT_TOKEN.by_operator.subject, asked, timeout=10)
    return dict((await admin.get(f"/v1/tokens/{token_id}")).json() if answer.headers is None else {})


PATCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"restrictions": {}}, {}),
    ({"restrictions": {"rateLimit": {}}}, {}),
    (
        {"restrictions": {"rateLimit": {"maxRequests": 9}}},
        {"restrictions": {**RESTRICTIONS, "rateLimit": {"maxRequests": 9, "timeWindow": 60}}},
    ),
    (
        {"restrictions": {"addresses": ["192.0.2.7"]}},
        {"restrictions": {**RESTRICTIONS, "addresses": ["192.0.2.7/32"]}},
    ),
    ({"restrictions": {"addresses": None}}, {"restrictions": {**RESTRICTIONS, "addresses": None}}),
    ({"restrictions": {"rateLimit": None}}, {"restrictions": {**RESTRICTIONS, "rateLimit": None}}),
    (
        {"restrictions": None},
        {"restrictions": {"addresses": None, "referrers": None, "rateLimit": None}},
    ),
    ({"metadata": {"team": "orders"}}, {"metadata": {**METADATA, "team": "orders"}}),
    (
        {"metadata": {"links": {"wiki": None}, "list": None, "new": {"a": None, "b": 1}}},
        {"metadata": {"team": "billing", "links": {"chat": "y"}, "new": {"b": 1}}},
    ),
    ({"metadata": {"links": 5}}, {"metadata": {**METADATA, "links": 5}}),
    ({"metadata": None}, {"metadata": None}),
    ({"description": None}, {"description": ""}),
    ({"scopes": ["metrics"]}, {"scopes": ["metrics"]}),
]


async def test_an_edit_changes_what_it_names_and_nothing_else(admin, operator, subtests: pytest.Subtests):
    """C1: a PATCH of the rate limit removed addresses and referrers."""
    for way in (over_http, over_nats):
        for patch, changed in PATCHES:
            with subtests.test(way=way.__name__, patch=patch):
                made = await create_token(
                    admin, description="before", restrictions=RESTRICTIONS, metadata=METADATA
                )
                before = (await admin.get(f"/v1/tokens/{made['id']}")).json()
                after = await way(admin, operator, made["id"], patch)
                after.pop("covered", None)
                revision = before["revision"] + bool(changed)
                assert after == {**before, **changed, "revision": revision}


INVALID_PATCHES: list[tuple[dict[str, Any], str]] = [
    ({"restrictions": {"rateLimit": {"maxRequests": None}}}, "restrictions.rateLimit.maxRequests"),
    ({"restrictions": {"addresses": []}}, "restrictions.addresses"),
    ({"scopes": []}, "scopes"),
    ({"scopes": None}, "scopes"),
    ({"restrictions": {"colour": 1}}, "restrictions.colour"),
    ({"account": "alice"}, "account"),
    ({"expires": "2020-01-01T00:00:00Z"}, "expires"),
]


async def test_the_result_of_a_merge_is_validated(admin, subtests: pytest.Subtests):
    for patch, field in INVALID_PATCHES:
        with subtests.test(patch=patch):
            made = await create_token(admin, restrictions=RESTRICTIONS)
            answer = await admin.patch(f"/v1/tokens/{made['id']}", json=patch)
            assert answer.status_code == 400
            assert [error["field"] for error in answer.json()["errors"]] == [field]
            assert (await admin.get(f"/v1/tokens/{made['id']}")).json()["revision"] == made["revision"]


async def test_an_edit_that_changes_nothing_writes_nothing(admin, operator, database):
    made = await create_token(admin, description="x", restrictions=RESTRICTIONS, metadata=METADATA)
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    counts = (
        "select (select count(*) from audit), (select count(*) from change), (select n from outbox_number)"
    )
    before = await connection.fetchrow(counts)
    for patch in (
        {},
        {"description": "x"},
        {"scopes": ["api", "api"]},
        {"restrictions": {"addresses": ["192.0.2.0/24"]}},
        {"metadata": {"team": "billing"}},
        {"disabled": False},
    ):
        answer = await admin.patch(f"/v1/tokens/{made['id']}", json=patch)
        assert (answer.status_code, answer.headers["etag"]) == (200, f'"{made["revision"]}"'), patch
    assert await connection.fetchrow(counts) == before
    await connection.close()


async def test_the_audit_holds_each_field_before_and_after(admin, database):
    made = await create_token(admin, description="before", scopes=["api"])
    await admin.patch(f"/v1/tokens/{made['id']}", json={"description": "after", "scopes": ["api:tokens"]})
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    details = await connection.fetchval("select details from audit where action = 'token.updated'")
    await connection.close()
    assert json.loads(details)["changes"] == {
        "description": {"from": "before", "to": "after"},
        "scopes": {"from": ["api"], "to": ["api:tokens"]},
    }


async def test_every_record_has_its_revision_as_its_entity_tag(admin):
    made = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    path = f"/v1/tokens/{made.json()['id']}"
    shown = await admin.get(path)
    own = await admin.get("/v1/self", headers=bearer(made.json()["token"]))
    edited = await admin.patch(path, json={"description": "x"})
    rotated = await admin.post(f"{path}/rotate", json={"grace": 60})
    for answer in (made, shown, own, edited, rotated):
        assert answer.headers["etag"] == f'"{answer.json()["revision"]}"'
    assert edited.json()["revision"] > shown.json()["revision"]


async def change_if_match(admin: httpx.AsyncClient, path: str, method: str, tags: str) -> httpx.Response:
    headers = {"if-match": tags}
    if method == "rotate":
        return await admin.post(f"{path}/rotate", json={"grace": 60}, headers=headers)
    if method == "DELETE":
        return await admin.delete(path, headers=headers)
    return await admin.patch(path, json={"description": "mine"}, headers=headers)


async def test_a_change_that_is_meant_for_another_revision_is_stale(admin, subtests: pytest.Subtests):
    for method in ("PATCH", "rotate", "DELETE"):
        with subtests.test(method=method):
            made = await create_token(admin)
            path = f"/v1/tokens/{made['id']}"

            first = (await admin.get(path)).headers["etag"]
            theirs = await admin.patch(path, json={"description": "theirs"})
            for tags in (first, f"W/{first}", f'{first}, "x"', '"x"', '"99999999999999999999"', '""'):
                answer = await change_if_match(admin, path, method, tags)
                assert (answer.status_code, answer.json()["code"]) == (412, "stale"), tags
                assert answer.headers["etag"] == theirs.headers["etag"]
                assert answer.json()["current"]["description"] == "theirs"
                assert "token" not in answer.json()["current"]
            for tags in ("3", "x", '"a" "b"', '"a', ""):
                assert (await change_if_match(admin, path, method, tags)).status_code == 400, tags
            valid = await change_if_match(admin, path, method, f'"x", W/{theirs.headers["etag"]}')
            assert valid.status_code in {200, 201}


async def test_if_match_with_an_asterisk_takes_any_revision(admin):
    made = await create_token(admin)
    answer = await admin.patch(
        f"/v1/tokens/{made['id']}", json={"description": "x"}, headers={"if-match": "*"}
    )
    assert answer.status_code == 200


async def test_who_may_only_delete_may_disable(admin, operator):
    """Those on duty stop a leak, and need no right to give what the token has."""
    duty, _ = await issue(operator, "api:tokens:delete")
    made = await create_token(admin, scopes=["*"])
    path = f"/v1/tokens/{made['id']}"
    for body in ({"description": "x"}, {"disabled": False}, {"disabled": True, "description": "x"}):
        answer = await admin.patch(path, json=body, headers=bearer(duty))
        assert (answer.status_code, answer.json()["scope"]) == (403, "api:tokens:write")
        assert 'scope="api:tokens:write"' in answer.headers["www-authenticate"]
    answer = await admin.patch(path, json={"disabled": True}, headers=bearer(duty))
    assert (answer.status_code, answer.json()["covered"]) == (200, [made["id"]])
    writer, _ = await issue(operator, "api:tokens:write", "orders")
    other = await create_token(admin, scopes=["orders"])
    answer = await admin.patch(f"/v1/tokens/{other['id']}", json={"disabled": True}, headers=bearer(writer))
    assert (answer.status_code, answer.json()["scope"]) == (403, "api:tokens:delete")


async def test_a_stored_answer_is_given_only_to_who_may_still_ask(admin, operator):
    maker, token = await issue(operator, "api:tokens:write", "orders")
    headers = {**bearer(maker), "idempotency-key": "k"}
    wanted = {"scopes": ["orders"]}
    assert (await admin.post("/v1/tokens", json=wanted, headers=headers)).status_code == 201
    assert (await admin.post("/v1/tokens", json=wanted, headers=headers)).status_code == 200
    edit = EditToken(id=token.id, changes=TokenUpdate(scopes=("orders",)), actor=OPERATOR)
    assert not isinstance(await call(operator, EDIT_TOKEN.by_operator, edit), Failure)
    secret = token_format.new_secret()
    asked = CreateToken(
        token=NewToken(scopes=("orders",)),
        digest=secret.digest,
        hint="",
        actor=Actor(token=token_format.digest(maker)),
        idempotency_key="k",
    )
    client = admin._transport.app._app.state.client
    reply = await call(client, CREATE_TOKEN, asked)
    assert isinstance(reply, Failure)
    assert reply.code == "insufficient_scope"

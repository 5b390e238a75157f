"""Edits merge as in RFC 7396, over HTTP and over NATS, and a stale edit changes nothing."""

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
    response = await admin.patch(f"/v1/tokens/{token_id}", content=json.dumps(patch), headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def over_nats(admin: httpx.AsyncClient, operator, token_id: str, patch: Any) -> dict[str, Any]:
    payload = json.dumps({"id": token_id, "changes": patch, "actor": {"name": "test"}}).encode()
    reply = await operator.request(EDIT_TOKEN.by_operator.subject, payload, timeout=10)
    assert reply.headers is None, reply.data
    return dict((await admin.get(f"/v1/tokens/{token_id}")).json())


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


async def test_an_edit_changes_only_the_fields_in_the_patch(admin, operator, subtests: pytest.Subtests):
    """C1: a PATCH of the rate limit removed addresses and referrers."""
    for edit in (over_http, over_nats):
        for patch, changed in PATCHES:
            with subtests.test(edit=edit.__name__, patch=patch):
                token = await create_token(
                    admin, description="before", restrictions=RESTRICTIONS, metadata=METADATA
                )
                before = (await admin.get(f"/v1/tokens/{token['id']}")).json()
                after = await edit(admin, operator, token["id"], patch)
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
            token = await create_token(admin, restrictions=RESTRICTIONS)
            response = await admin.patch(f"/v1/tokens/{token['id']}", json=patch)
            assert response.status_code == 400
            assert [error["field"] for error in response.json()["errors"]] == [field]
            assert (await admin.get(f"/v1/tokens/{token['id']}")).json()["revision"] == token["revision"]


async def test_an_edit_that_changes_nothing_writes_nothing(admin, operator, database):
    token = await create_token(admin, description="x", restrictions=RESTRICTIONS, metadata=METADATA)
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
        response = await admin.patch(f"/v1/tokens/{token['id']}", json=patch)
        assert (response.status_code, response.headers["etag"]) == (200, f'"{token["revision"]}"'), patch
    assert await connection.fetchrow(counts) == before
    await connection.close()


async def test_the_audit_contains_each_field_before_and_after(admin, database):
    token = await create_token(admin, description="before", scopes=["api"])
    await admin.patch(f"/v1/tokens/{token['id']}", json={"description": "after", "scopes": ["api:tokens"]})
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    details = await connection.fetchval("select details from audit where action = 'token.updated'")
    await connection.close()
    assert json.loads(details)["changes"] == {
        "description": {"from": "before", "to": "after"},
        "scopes": {"from": ["api"], "to": ["api:tokens"]},
    }


async def test_every_record_has_its_revision_as_its_entity_tag(admin):
    created = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    path = f"/v1/tokens/{created.json()['id']}"
    record = await admin.get(path)
    own_record = await admin.get("/v1/self", headers=bearer(created.json()["token"]))
    edited = await admin.patch(path, json={"description": "x"})
    rotated = await admin.post(f"{path}/rotate", json={"grace": 60})
    for response in (created, record, own_record, edited, rotated):
        assert response.headers["etag"] == f'"{response.json()["revision"]}"'
    assert edited.json()["revision"] > record.json()["revision"]


async def change_if_match(admin: httpx.AsyncClient, path: str, method: str, tags: str) -> httpx.Response:
    headers = {"if-match": tags}
    if method == "rotate":
        return await admin.post(f"{path}/rotate", json={"grace": 60}, headers=headers)
    if method == "DELETE":
        return await admin.delete(path, headers=headers)
    return await admin.patch(path, json={"description": "mine"}, headers=headers)


async def test_a_change_for_another_revision_is_stale(admin, subtests: pytest.Subtests):
    for method in ("PATCH", "rotate", "DELETE"):
        with subtests.test(method=method):
            token = await create_token(admin)
            path = f"/v1/tokens/{token['id']}"

            first = (await admin.get(path)).headers["etag"]
            current = await admin.patch(path, json={"description": "theirs"})
            for tags in (first, f"W/{first}", f'{first}, "x"', '"x"', '"99999999999999999999"', '""'):
                response = await change_if_match(admin, path, method, tags)
                assert (response.status_code, response.json()["code"]) == (412, "stale"), tags
                assert response.headers["etag"] == current.headers["etag"]
                assert response.json()["current"]["description"] == "theirs"
                assert "token" not in response.json()["current"]
            for tags in ("3", "x", '"a" "b"', '"a', ""):
                assert (await change_if_match(admin, path, method, tags)).status_code == 400, tags
            valid = await change_if_match(admin, path, method, f'"x", W/{current.headers["etag"]}')
            assert valid.status_code in {200, 201}


async def test_if_match_with_an_asterisk_matches_any_revision(admin):
    token = await create_token(admin)
    response = await admin.patch(
        f"/v1/tokens/{token['id']}", json={"description": "x"}, headers={"if-match": "*"}
    )
    assert response.status_code == 200


async def test_the_delete_permission_is_sufficient_to_disable(admin, operator):
    """An on-call operator can stop a leak without permission to grant what the token has."""
    on_call, _ = await issue(operator, "api:tokens:delete")
    token = await create_token(admin, scopes=["*"])
    path = f"/v1/tokens/{token['id']}"
    for body in ({"description": "x"}, {"disabled": False}, {"disabled": True, "description": "x"}):
        response = await admin.patch(path, json=body, headers=bearer(on_call))
        assert (response.status_code, response.json()["scope"]) == (403, "api:tokens:write")
        assert 'scope="api:tokens:write"' in response.headers["www-authenticate"]
    response = await admin.patch(path, json={"disabled": True}, headers=bearer(on_call))
    assert (response.status_code, response.json()["covered"]) == (200, [token["id"]])
    writer, _ = await issue(operator, "api:tokens:write", "orders")
    other = await create_token(admin, scopes=["orders"])
    response = await admin.patch(f"/v1/tokens/{other['id']}", json={"disabled": True}, headers=bearer(writer))
    assert (response.status_code, response.json()["scope"]) == (403, "api:tokens:delete")


async def test_a_stored_response_is_returned_only_to_a_still_authorized_caller(admin, operator):
    creator, token = await issue(operator, "api:tokens:write", "orders")
    headers = {**bearer(creator), "idempotency-key": "k"}
    body = {"scopes": ["orders"]}
    assert (await admin.post("/v1/tokens", json=body, headers=headers)).status_code == 201
    assert (await admin.post("/v1/tokens", json=body, headers=headers)).status_code == 200
    edit = EditToken(id=token.id, changes=TokenUpdate(scopes=("orders",)), actor=OPERATOR)
    assert not isinstance(await call(operator, EDIT_TOKEN.by_operator, edit), Failure)
    secret = token_format.new_secret()
    request = CreateToken(
        token=NewToken(scopes=("orders",)),
        digest=secret.digest,
        hint="",
        actor=Actor(token=token_format.digest(creator)),
        idempotency_key="k",
    )
    client = admin._transport.app._app.state.client
    reply = await call(client, CREATE_TOKEN, request)
    assert isinstance(reply, Failure)
    assert reply.code == "insufficient_scope"

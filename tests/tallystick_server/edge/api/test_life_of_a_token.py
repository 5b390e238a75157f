"""The life of a token over HTTP, from creation to revocation."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from tests.support.api import bearer, create_token, flush, in_future


async def test_a_secret_is_shown_once_and_is_valid(admin):
    token = await create_token(admin, description="once")
    record = (await admin.get(f"/v1/tokens/{token['id']}")).json()
    assert "token" not in record
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).json()["id"] == token["id"]


async def test_all_invalid_tokens_get_the_same_response_body(admin):
    revoked, disabled, expired = [await create_token(admin) for _ in range(3)]
    later = await create_token(admin, notBefore=in_future(hours=1))
    assert (await admin.delete(f"/v1/tokens/{revoked['id']}")).json()["deleted"]
    assert (await admin.patch(f"/v1/tokens/{disabled['id']}", json={"disabled": True})).json()["disabled"]
    rotated = await admin.post(f"/v1/tokens/{expired['id']}/rotate", json={})
    assert rotated.status_code == 201
    responses = [
        await admin.get("/v1/self", headers=bearer(value))
        for value in (
            "tly_unknown",
            "f" * 64,
            revoked["token"],
            disabled["token"],
            expired["token"],
            later["token"],
        )
    ]
    assert {response.status_code for response in responses} == {401}
    assert len({response.content for response in responses}) == 1
    assert len({response.headers["www-authenticate"] for response in responses}) == 1


async def test_revoking_twice_gives_the_same_response(admin):
    token = await create_token(admin)
    first, second = [await admin.delete(f"/v1/tokens/{token['id']}") for _ in range(2)]
    assert first.status_code == second.status_code == 200
    assert first.json()["deleted"] is second.json()["deleted"] is True


async def test_a_rotated_token_is_valid_for_its_grace_period_but_not_beyond_its_expiry(admin):
    token = await create_token(admin, expires=in_future(seconds=60))
    rotated = (await admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 3600})).json()
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 200
    assert (await admin.get("/v1/self", headers=bearer(rotated["token"]))).status_code == 200
    old = (await admin.get(f"/v1/tokens/{token['id']}")).json()
    assert old["rotatedTo"] == rotated["id"]
    assert old["expires"] == rotated["expires"] == token["expires"]
    assert (await admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 1})).status_code == 409


async def test_a_token_rotates_and_revokes_itself(admin):
    token = await create_token(admin, scopes=["metrics"])
    rotated = await admin.post("/v1/self/rotate", headers=bearer(token["token"]), json={})
    assert rotated.status_code == 201
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 401
    value = rotated.json()["token"]
    assert (await admin.delete("/v1/self", headers=bearer(value))).status_code == 200
    assert (await admin.get("/v1/self", headers=bearer(value))).status_code == 401


async def test_the_same_idempotency_key_creates_one_token_and_reports_it(admin):
    body = {"scopes": ["api"], "description": "once"}
    headers = {"idempotency-key": "k1"}
    first = await admin.post("/v1/tokens", json=body, headers=headers)
    repeated = await admin.post("/v1/tokens", json=body, headers=headers)
    other = await admin.post("/v1/tokens", json={"scopes": ["metrics"]}, headers=headers)
    assert first.status_code == 201
    assert repeated.status_code == 200
    assert repeated.json()["code"] == "already_created"
    assert repeated.json()["id"] == first.json()["id"]
    assert "token" not in repeated.json()
    assert other.status_code == 409


async def test_a_token_cannot_grant_more_than_it_has(admin):
    creator = await create_token(admin, scopes=["api", "metrics"], expires=in_future(hours=1))
    headers = bearer(creator["token"])
    excessive_bodies = [
        {"scopes": ["*"], "expires": in_future(minutes=5)},
        {"scopes": ["admin"], "expires": in_future(minutes=5)},
        {"scopes": ["api"]},
        {"scopes": ["api"], "expires": in_future(hours=2)},
    ]
    for body in excessive_bodies:
        response = await admin.post("/v1/tokens", json=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "exceeds_authority"), body
    permitted_body = {"scopes": ["api:tokens:read"], "expires": in_future(minutes=5)}
    assert (await admin.post("/v1/tokens", json=permitted_body, headers=headers)).status_code == 201


async def test_a_narrower_token_can_neither_widen_nor_rotate_a_broader_one(admin):
    broader = await create_token(admin, scopes=["*"])
    narrower = await create_token(admin, scopes=["api"])
    headers = bearer(narrower["token"])
    for attempt in (
        admin.patch(f"/v1/tokens/{narrower['id']}", json={"scopes": ["*"]}, headers=headers),
        admin.patch(f"/v1/tokens/{broader['id']}", json={"description": "mine"}, headers=headers),
        admin.post(f"/v1/tokens/{broader['id']}/rotate", json={}, headers=headers),
    ):
        assert (await attempt).json()["code"] == "exceeds_authority"


async def test_an_account_bound_token_is_accepted_for_its_account_only(admin):
    for account in ("alice", "bob"):
        assert (await admin.post("/v1/account", json={"account": account})).status_code == 200
    token = await create_token(admin, account="alice", scopes=["api:tokens", "api:accounts"])
    headers = bearer(token["token"])
    expected = {
        "/v1/account/alice": 200,
        "/v1/account/bob": 403,
        "/v1/accounts": 403,
        "/v1/tokens?account=alice": 200,
        "/v1/tokens?account=bob": 403,
        "/v1/tokens?account=alice&account=bob": 400,
        "/v1/tokens": 403,
        "/v1/tokens/account/alice": 200,
        "/v1/self": 200,
    }
    statuses = {path: (await admin.get(path, headers=headers)).status_code for path in expected}
    assert statuses == expected
    body = {"scopes": ["api:tokens:read"], "account": "alice"}
    assert (await admin.post("/v1/tokens", json=body, headers=headers)).status_code == 201
    body["account"] = "bob"
    assert (await admin.post("/v1/tokens", json=body, headers=headers)).status_code == 403


async def test_deleting_an_account_revokes_its_tokens(admin):
    await admin.post("/v1/account", json={"account": "carol"})
    token = await create_token(admin, account="carol")
    assert (await admin.delete("/v1/account/carol")).json()["tokens"] == 1
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 401
    assert (await admin.delete("/v1/account/carol")).status_code == 404


async def test_addresses_and_referrers_are_checked_in_order(admin):
    restricted_elsewhere = await create_token(admin, restrictions={"addresses": ["10.0.0.0/8"]})
    response = await admin.get("/v1/tokens", headers=bearer(restricted_elsewhere["token"]))
    assert (response.status_code, response.json()["code"]) == (403, "address_not_allowed")
    assert response.json()["address"] == "127.0.0.1"
    restricted_to_localhost = await create_token(
        admin, restrictions={"addresses": ["::ffff:127.0.0.0/104"], "referrers": ["https://good.example/*"]}
    )
    for referrer, status in (
        (None, 403),
        ("https://good.example/page", 200),
        ("https://evil.example/?https://good.example/", 403),
        ("https://good.example@evil.example/", 403),
        ("http://good.example/", 403),
    ):
        headers = bearer(restricted_to_localhost["token"]) | ({"referer": referrer} if referrer else {})
        assert (await admin.get("/v1/tokens", headers=headers)).status_code == status, referrer


PAGE = "https://good.example/"


async def test_a_referrer_above_two_kilobytes_is_rejected(admin):
    token = await create_token(admin, restrictions={"referrers": [f"{PAGE}*"]})
    for length, status in ((2048, 200), (2049, 403), (6000, 403)):
        headers = bearer(token["token"]) | {"referer": PAGE + "a" * (length - len(PAGE))}
        response = await admin.get("/v1/tokens", headers=headers)
        assert response.status_code == status, length
        assert status == 200 or response.json()["code"] == "referrer_not_allowed"


BOUNDED_REFERRERS: list[tuple[list[str], str | None]] = [
    ([f"{PAGE}*"] * 64, None),
    ([f"{PAGE}*"] * 65, "restrictions.referrers"),
    ([PAGE + "*a" * 8], None),
    ([f"{PAGE}*", PAGE + "*a" * 9], "restrictions.referrers[1]"),
]


async def test_new_and_edited_referrers_are_bounded(admin, subtests: pytest.Subtests):
    for referrers, field in BOUNDED_REFERRERS:
        with subtests.test(count=len(referrers), last=referrers[-1]):
            body = {"restrictions": {"referrers": referrers}}
            token = await create_token(admin)
            for response in (
                await admin.post("/v1/tokens", json={"scopes": ["api"], **body}),
                await admin.patch(f"/v1/tokens/{token['id']}", json=body),
            ):
                if field is None:
                    assert response.is_success, response.text
                else:
                    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
                    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_referrers_stored_under_wider_limits_stay_valid(admin, database):
    token = await create_token(admin)
    wide = [*(f"https://{number}.example/" for number in range(255)), PAGE + "*a" * 9]
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "update tokens.token set restrictions = $2 where id = $1",
        token["id"],
        json.dumps({"addresses": None, "referrers": wide, "rateLimit": None}),
    )
    await connection.close()
    page = {"referer": PAGE + "-a" * 9}
    assert (await admin.get("/v1/self", headers=bearer(token["token"]) | page)).status_code == 200
    path = f"/v1/tokens/{token['id']}"
    limit = {"maxRequests": 100, "timeWindow": 60}
    for changes in (
        {"description": "edited"},
        {"scopes": ["api", "orders"]},
        {"restrictions": {"referrers": wide, "rateLimit": limit}},
    ):
        edited = await admin.patch(path, json=changes)
        assert edited.status_code == 200, edited.text
        assert edited.json()["restrictions"]["referrers"] == wide
    changed = await admin.patch(path, json={"restrictions": {"referrers": wide[1:]}})
    assert changed.status_code == 400
    assert {error["field"] for error in changed.json()["errors"]} == {"restrictions.referrers"}
    rotated = await admin.post(f"{path}/rotate", json={})
    assert rotated.status_code == 201, rotated.text
    assert rotated.json()["restrictions"]["referrers"] == wide
    assert (await admin.get("/v1/self", headers=bearer(rotated.json()["token"]) | page)).status_code == 200


async def test_a_rate_limit_is_exact_and_reports_when_to_retry(admin):
    token = await create_token(admin, restrictions={"rateLimit": {"maxRequests": 3, "timeWindow": 86400}})
    responses = [await admin.get("/v1/tokens", headers=bearer(token["token"])) for _ in range(5)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]
    assert responses[0].headers["ratelimit-policy"] == '"token";q=3;w=86400'
    assert responses[0].headers["ratelimit"].startswith('"token";r=2;t=')
    assert int(responses[3].headers["retry-after"]) >= 1
    assert responses[3].json()["code"] == "rate_limited"


async def test_a_rotated_token_shares_its_limit_with_its_successor(admin):
    token = await create_token(admin, restrictions={"rateLimit": {"maxRequests": 2, "timeWindow": 86400}})
    new = (await admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 60})).json()
    statuses = [
        (await admin.get("/v1/tokens", headers=bearer(value))).status_code
        for value in (token["token"], new["token"], token["token"], new["token"])
    ]
    assert statuses == [200, 200, 429, 429]


async def test_the_log_shows_changes_and_rejections(admin):
    token = await create_token(admin)
    await admin.patch(f"/v1/tokens/{token['id']}", json={"description": "new", "disabled": True})
    await admin.get("/v1/tokens", headers=bearer(token["token"]))
    async with asyncio.timeout(30):
        # The edge may already be sending a report.
        while not (log := (await admin.get(f"/v1/tokens/{token['id']}/log")).json())["refusals"]:
            await flush(admin)
    assert [change["action"] for change in log["changes"]] == [
        "token.disabled",
        "token.updated",
        "token.created",
    ]
    assert [refusal["reason"] for refusal in log["refusals"]] == ["disabled"]
    assert log["refusals"][0]["route"] == "/v1/tokens"


async def test_last_use_is_recorded(admin):
    token = await create_token(admin)
    await admin.get("/v1/tokens", headers=bearer(token["token"]))
    async with asyncio.timeout(30):
        # The edge may already be sending a report.
        while (record := (await admin.get(f"/v1/tokens/{token['id']}")).json())["access"]["ip"] is None:
            await flush(admin)
    assert record["access"]["ip"] == "127.0.0.1"
    assert record["access"]["time"]


async def test_all_errors_of_a_body_are_reported_at_once(admin):
    response = await admin.post(
        "/v1/tokens", json={"scopes": "api", "expires": 5, "colour": "red", "metadata": []}
    )
    assert response.status_code == 400
    assert {error["field"] for error in response.json()["errors"]} == {
        "scopes",
        "expires",
        "metadata",
        "colour",
    }


INVALID_BODIES: list[dict[str, Any]] = [
    {"scopes": []},
    {"scopes": ["API"]},
    {"scopes": ["a b"]},
    {"expires": "tomorrow"},
    {"expires": "2020-01-01T00:00:00Z"},
    {"expires": "2030-01-01T00:00:00"},
    {"expires": "2199-01-01T00:00:00Z"},
    {"expires": "0001-01-01T00:00:00+23:59"},
    {"notBefore": "0001-01-01T00:00:00+23:59"},
    {"restrictions": {"addresses": []}},
    {"restrictions": {"addresses": ["10.0.0.1/33"]}},
    {"restrictions": {"addresses": ["10.0.0.1/8"]}},
    {"restrictions": {"referrers": []}},
    {"restrictions": {"rateLimit": {"maxRequests": 1}}},
    {"restrictions": {"rateLimit": {"maxRequests": 0, "timeWindow": 1}}},
    {"restrictions": {"rateLimit": {"maxRequests": 1, "timeWindow": -1}}},
    {"restrictions": {"colour": 1}},
    {"description": "x" * 1025},
    {"description": "a\0b"},
    {"metadata": {"a": 2**70}},
    {"metadata": {"a": "\0"}},
    {"account": "nobody"},
    {"account": "../x"},
]


async def test_an_invalid_body_is_400(admin, subtests: pytest.Subtests):
    for body in INVALID_BODIES:
        with subtests.test(body=body):
            response = await admin.post("/v1/tokens", json={"scopes": ["api"], **body})
            assert response.status_code == 400, response.text
            assert response.json()["errors"]


async def test_malformed_bodies_are_400_or_415(admin):
    headers = {"content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"\xff", b"NaN", b'{"scopes":["api"]} x', b"[" * 5000, b'{"a":' * 5000):
        response = await admin.post("/v1/tokens", content=body, headers=headers)
        assert response.status_code == 400, body[:20]
    for kind in ({"content-type": "text/plain"}, headers | {"content-encoding": "gzip"}):
        response = await admin.post("/v1/tokens", content=b"{}", headers=kind)
        assert response.status_code == 415
    assert (await admin.post("/v1/tokens", content=b" " * 70_000, headers=headers)).status_code == 413


async def test_bodies_nested_too_deeply_are_400_at_any_depth(admin, subtests: pytest.Subtests):
    for depth in (65, 100, 400, 470, 900, 1100):
        with subtests.test(depth=depth):
            nested = b"[" * depth + b"]" * depth
            headers = {"content-type": "application/json"}
            for path, body in (
                ("/v1/tokens", b'{"scopes":["api"],"metadata":{"a":%s}}' % nested),
                ("/v1/self/rotate", b'{"grace":%s}' % nested),
            ):
                response = await admin.post(path, content=body, headers=headers)
                assert response.status_code == 400, response.text
                assert response.json()["errors"] == [{"field": "", "message": "nested too deeply"}]


async def test_no_error_repeats_a_token(admin):
    token = (await create_token(admin))["token"]
    response = await admin.get("/v1/tokens", params={"state": token})
    assert response.status_code == 400
    assert token not in response.text
    assert [error["field"] for error in response.json()["errors"]] == ["state"]


async def test_windows_of_different_lengths_in_one_family_are_counted_separately(admin):
    token = await create_token(
        admin, scopes=["api"], restrictions={"rateLimit": {"maxRequests": 5, "timeWindow": 1}}
    )
    new = (await admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 3600})).json()
    limit = {"restrictions": {"rateLimit": {"maxRequests": 5, "timeWindow": 86_400}}}
    assert (await admin.patch(f"/v1/tokens/{new['id']}", json=limit)).status_code == 200
    accepted_count = 0
    for turn in range(3):
        if turn:
            # The next short window begins; the long window continues.
            async with asyncio.timeout(20):
                while (await admin.get("/auth?scope=api", headers=bearer(token["token"]))).status_code != 200:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(1)
        for _ in range(4):
            response = await admin.get("/auth?scope=api", headers=bearer(new["token"]))
            accepted_count += response.status_code == 200
    assert accepted_count <= 5


async def test_only_an_actor_that_can_grant_what_a_token_has_can_edit_it(admin):
    editor = await create_token(admin, scopes=["api:tokens:write"])
    victim = await create_token(admin, scopes=["*"])
    for change, code in (
        ({"description": "x"}, "exceeds_authority"),
        ({"scopes": ["api:tokens:write"]}, "exceeds_authority"),
        ({"disabled": True}, "insufficient_scope"),
    ):
        response = await admin.patch(
            f"/v1/tokens/{victim['id']}", json=change, headers=bearer(editor["token"])
        )
        assert (response.status_code, response.json()["code"]) == (403, code)
    assert (await admin.get("/v1/self", headers=bearer(victim["token"]))).status_code == 200


async def test_revoking_a_token_revokes_its_predecessors(admin):
    first = await create_token(admin, scopes=["api"])
    second = (await admin.post(f"/v1/tokens/{first['id']}/rotate", json={"grace": 3600})).json()
    third = (await admin.post(f"/v1/tokens/{second['id']}/rotate", json={"grace": 3600})).json()

    async def statuses() -> list[int]:
        return [
            (await admin.get("/auth?scope=api", headers=bearer(token["token"]))).status_code
            for token in (first, second, third)
        ]

    assert await statuses() == [200, 200, 200]
    assert (await admin.patch(f"/v1/tokens/{first['id']}", json={"description": "x"})).status_code == 409
    assert (await admin.patch(f"/v1/tokens/{first['id']}", json={"disabled": True})).status_code == 200
    assert await statuses() == [401, 401, 401]
    assert (await admin.patch(f"/v1/tokens/{third['id']}", json={"disabled": False})).status_code == 200
    assert await statuses() == [200, 200, 200]
    assert (await admin.delete(f"/v1/tokens/{third['id']}")).status_code == 200
    assert await statuses() == [401, 401, 401]


async def test_invalid_ids_are_404(admin):
    for token_id in ("x", "tok_", "tok_" + "0" * 26, "..", "%00", "'", "%2e%2e%2fx"):
        response = await admin.get(f"/v1/tokens/{token_id}/log")
        assert response.status_code == 404, token_id
    for query in ("page=-1", "pageSize=1000000", "pageSize=x", "query=%00"):
        assert (await admin.get(f"/v1/tokens?{query}")).status_code == 400, query


async def test_introspection_and_revocation_follow_rfc_7662_and_rfc_7009(admin):
    token = await create_token(admin, scopes=["orders:read"], expires=in_future(hours=1))
    introspection = await admin.post("/oauth2/introspect", data={"token": token["token"]})
    assert introspection.json()["active"] is True
    assert introspection.json()["scope"] == "orders:read"
    assert introspection.json()["token_type"] == "Bearer"
    headers = bearer(token["token"])
    assert (await admin.post("/oauth2/introspect", data={"token": "x"}, headers=headers)).status_code == 403
    other = await create_token(admin)
    assert (
        await admin.post("/oauth2/revoke", data={"token": other["token"]}, headers=headers)
    ).status_code == 403
    assert (
        await admin.post("/oauth2/revoke", data={"token": token["token"]}, headers=headers)
    ).status_code == 200
    assert (await admin.post("/oauth2/introspect", data={"token": token["token"]})).json() == {
        "active": False
    }
    assert (await admin.post("/oauth2/revoke", data={"token": "unknown"})).status_code == 200


async def test_forward_auth_identifies_the_token_or_rejects_it(admin):
    await admin.post("/v1/account", json={"account": "alice"})
    token = await create_token(admin, scopes=["orders"], account="alice")
    headers = bearer(token["token"])
    response = await admin.get("/auth?scope=orders:read&account=alice", headers=headers)
    assert response.status_code == 200
    assert response.headers["x-token-id"] == token["id"]
    assert response.headers["x-token-account"] == "alice"
    assert response.headers["x-token-scopes"] == "orders"
    for query, status in (
        ("scope=invoices&account=alice", 403),
        ("scope=orders", 403),
        ("", 400),
        ("scope=orders&scope=invoices&account=alice", 400),
    ):
        assert (await admin.get(f"/auth?{query}", headers=headers)).status_code == status, query
    for method in ("OPTIONS", "HEAD", "POST", "DELETE"):
        response = await admin.request(method, "/auth?scope=orders", headers=bearer("f" * 64))
        assert response.status_code == 401, method


async def test_options_and_405_list_every_method_of_a_path(admin):
    authorization = admin.headers.pop("authorization")
    for path, methods in (
        ("/v1/tokens", "GET, HEAD, OPTIONS, POST"),
        ("/v1/tokens/x", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("/v1/self/rotate", "OPTIONS, POST"),
    ):
        response = await admin.options(path)
        assert (response.status_code, response.content, response.headers["allow"]) == (204, b"", methods)
        assert (await admin.put(path)).status_code == 401
        response = await admin.put(path, headers={"authorization": authorization})
        assert (response.status_code, response.headers["allow"]) == (405, methods)


async def test_the_list_can_be_filtered_by_state(admin, operator, database):
    await admin.post("/v1/account", json={"account": "carol"})
    tokens = {
        name: await create_token(admin, description=name, account="carol") for name in ("active", "disabled")
    }
    tokens["expiring"] = await create_token(admin, account="carol", expires=in_future(days=1))
    tokens["expired"] = await create_token(admin, account="carol", expires=in_future(hours=1))
    tokens["not_yet_valid"] = await create_token(admin, account="carol", notBefore=in_future(hours=1))
    tokens["rotated"] = await create_token(admin, account="carol")
    tokens["revoked"] = await create_token(admin, account="carol")
    await admin.patch(f"/v1/tokens/{tokens['disabled']['id']}", json={"disabled": True})
    rotated = await admin.post(f"/v1/tokens/{tokens['rotated']['id']}/rotate", json={"grace": 60})
    await admin.delete(f"/v1/tokens/{tokens['revoked']['id']}")
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "update tokens.token set expires = now() - interval '1 s' where id = $1", tokens["expired"]["id"]
    )
    await connection.close()

    async def ids_in_list(query: str) -> set[str]:
        response = await admin.get(f"/v1/tokens?account=carol{query}")
        assert response.status_code == 200, response.text
        assert response.json()["total"] == len(response.json()["tokens"])
        return {token["id"] for token in response.json()["tokens"]}

    ids = {name: token["id"] for name, token in tokens.items()}
    successor = rotated.json()["id"]
    for state in ("disabled", "expired", "not_yet_valid", "revoked"):
        assert await ids_in_list(f"&state={state}") == {ids[state]}, state
    assert await ids_in_list("&state=rotated") == {ids["rotated"]}
    # A rotated token expires with its grace period, which needs no action.
    assert await ids_in_list("&state=expiring") == {ids["expiring"]}
    assert await ids_in_list("&state=active") == {ids["active"], ids["expiring"], ids["rotated"], successor}
    assert await ids_in_list("") == {*ids.values(), successor} - {ids["revoked"]}
    for state in ("lost", "null", "ACTIVE"):
        response = await admin.get(f"/v1/tokens?state={state}")
        assert (response.status_code, response.json()["code"]) == (400, "bad_request"), state


async def test_all_tokens_of_an_account_are_revoked_in_one_request(admin):
    for account in ("alice", "bob"):
        await admin.post("/v1/account", json={"account": account})
    alice_tokens = [await create_token(admin, account="alice") for _ in range(3)]
    bob_token = await create_token(admin, account="bob")
    outsider = await admin.delete("/v1/tokens/account/alice", headers=bearer(bob_token["token"]))
    assert (outsider.status_code, outsider.json()["code"]) == (403, "account_mismatch")
    revoked = (await admin.delete("/v1/tokens/account/alice")).json()
    assert (revoked["account"], revoked["tokens"]) == ("alice", 3)
    for token in alice_tokens:
        assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 401
    assert (await admin.get("/v1/self", headers=bearer(bob_token["token"]))).status_code == 200
    assert (await admin.delete("/v1/tokens/account/alice")).json()["tokens"] == 0
    assert (await admin.get("/v1/account/alice")).status_code == 200
    assert (await admin.delete("/v1/tokens/account/nobody")).status_code == 404


async def test_a_token_type_hint_is_accepted(admin):
    token = await create_token(admin)
    for hint in ("access_token", "refresh_token", "other", ""):
        form = {"token": token["token"], "token_type_hint": hint}
        assert (await admin.post("/oauth2/introspect", data=form)).json()["active"] is True
    repeated_hint = {"token": token["token"], "token_type_hint": ["access_token", "access_token"]}
    assert (await admin.post("/oauth2/introspect", data=repeated_hint)).status_code == 400
    form = {"token": token["token"], "token_type_hint": "refresh_token"}
    assert (await admin.post("/oauth2/revoke", data=form)).status_code == 200
    assert (await admin.post("/oauth2/introspect", data=form)).json() == {"active": False}


async def test_a_proxied_client_may_send_its_token_in_the_query(admin):
    token, other = (
        await create_token(admin, scopes=["orders"]),
        await create_token(admin, scopes=["invoices"]),
    )
    del admin.headers["authorization"]
    uri = f"/page?access_token={token['token']}"
    expected = [
        ({"x-forwarded-uri": uri}, 200),
        ({"x-original-uri": uri}, 200),
        ({"x-original-uri": uri, "x-forwarded-uri": uri}, 200),
        ({"x-original-uri": uri, "x-forwarded-uri": f"/?access_token={other['token']}"}, 400),
        ({"x-original-uri": f"{uri}&access_token={token['token']}"}, 400),
        ({"x-original-uri": "/page?access_token=" + "f" * 64}, 401),
        ({"x-original-uri": "/page"}, 401),
        ({"x-original-url": uri}, 401),
        ({"referer": f"https://example.org{uri}"}, 401),
        # Credentials of the request itself take precedence: the forwarded URI has no influence.
        ({**bearer(token["token"]), "x-original-uri": f"/?access_token={other['token']}"}, 200),
        ({**bearer("f" * 64), "x-original-uri": uri}, 401),
        ({"authorization": "Bearer", "x-original-uri": uri}, 400),
    ]
    for headers, status in expected:
        response = await admin.get("/auth?scope=orders", headers=headers)
        assert response.status_code == status, headers
        assert token["token"] not in response.text + repr(response.headers)
        if status == 200:
            assert response.headers["x-token-id"] == token["id"]
    # No other route reads the forwarded URI.
    for path in ("/v1/self", "/v1/stats", "/metrics", "/oauth2/introspect"):
        assert (await admin.get(path, headers={"x-original-uri": uri})).status_code in {401, 405}


async def test_an_account_name_is_never_read_as_another_type(admin, subtests: pytest.Subtests):
    for name in ("null", "true", "0"):
        with subtests.test(name=name):
            for account in ("alice", name):
                await admin.post("/v1/account", json={"account": account})
            await create_token(admin, account="alice")
            token = await create_token(admin, account=name)
            for query in (f"account={name}", f"account={name}&query={name}", f"account={name}&state=active"):
                response = await admin.get(f"/v1/tokens?{query}", headers=bearer(token["token"]))
                assert {token["account"] for token in response.json()["tokens"]} <= {name}, query
            response = await admin.get(f"/v1/tokens?query={name}-nobody")
            assert response.json()["total"] == 0
            token = await create_token(admin, scopes=["orders"], account=name)
            response = await admin.get(f"/auth?scope=orders&account={name}", headers=bearer(token["token"]))
            assert (response.status_code, response.headers["x-token-account"]) == (200, name)

"""A token from its making to its end, over HTTP."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from tests.support.api import bearer, create_token, flush, in_future


async def test_a_secret_is_shown_once_and_works(admin):
    made = await create_token(admin, description="once")
    shown = (await admin.get(f"/v1/tokens/{made['id']}")).json()
    assert "token" not in shown
    assert (await admin.get("/v1/self", headers=bearer(made["token"]))).json()["id"] == made["id"]


async def test_revoked_unknown_disabled_expired_and_not_yet_valid_get_the_same_bytes(admin):
    revoked, disabled, expired = [await create_token(admin) for _ in range(3)]
    later = await create_token(admin, notBefore=in_future(hours=1))
    assert (await admin.delete(f"/v1/tokens/{revoked['id']}")).json()["deleted"]
    assert (await admin.patch(f"/v1/tokens/{disabled['id']}", json={"disabled": True})).json()["disabled"]
    rotated = await admin.post(f"/v1/tokens/{expired['id']}/rotate", json={})
    assert rotated.status_code == 201
    answers = [
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
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["www-authenticate"] for answer in answers}) == 1


async def test_revoking_twice_gives_the_same_answer(admin):
    made = await create_token(admin)
    first, second = [await admin.delete(f"/v1/tokens/{made['id']}") for _ in range(2)]
    assert first.status_code == second.status_code == 200
    assert first.json()["deleted"] is second.json()["deleted"] is True


async def test_a_rotated_token_lives_on_for_its_grace_and_never_longer_than_it_would_have(admin):
    made = await create_token(admin, expires=in_future(seconds=60))
    rotated = (await admin.post(f"/v1/tokens/{made['id']}/rotate", json={"grace": 3600})).json()
    assert (await admin.get("/v1/self", headers=bearer(made["token"]))).status_code == 200
    assert (await admin.get("/v1/self", headers=bearer(rotated["token"]))).status_code == 200
    old = (await admin.get(f"/v1/tokens/{made['id']}")).json()
    assert old["rotatedTo"] == rotated["id"]
    assert old["expires"] == rotated["expires"] == made["expires"]
    assert (await admin.post(f"/v1/tokens/{made['id']}/rotate", json={"grace": 1})).status_code == 409


async def test_a_token_renews_and_revokes_itself(admin):
    made = await create_token(admin, scopes=["metrics"])
    renewed = await admin.post("/v1/self/rotate", headers=bearer(made["token"]), json={})
    assert renewed.status_code == 201
    assert (await admin.get("/v1/self", headers=bearer(made["token"]))).status_code == 401
    value = renewed.json()["token"]
    assert (await admin.delete("/v1/self", headers=bearer(value))).status_code == 200
    assert (await admin.get("/v1/self", headers=bearer(value))).status_code == 401


async def test_the_same_idempotency_key_makes_one_token_and_says_so(admin):
    wanted = {"scopes": ["api"], "description": "once"}
    headers = {"idempotency-key": "k1"}
    first = await admin.post("/v1/tokens", json=wanted, headers=headers)
    again = await admin.post("/v1/tokens", json=wanted, headers=headers)
    other = await admin.post("/v1/tokens", json={"scopes": ["metrics"]}, headers=headers)
    assert first.status_code == 201
    assert again.status_code == 200
    assert again.json()["code"] == "already_created"
    assert again.json()["id"] == first.json()["id"]
    assert "token" not in again.json()
    assert other.status_code == 409


async def test_a_token_never_gives_what_it_does_not_have(admin):
    maker = await create_token(admin, scopes=["api", "metrics"], expires=in_future(hours=1))
    headers = bearer(maker["token"])
    too_much = [
        {"scopes": ["*"], "expires": in_future(minutes=5)},
        {"scopes": ["admin"], "expires": in_future(minutes=5)},
        {"scopes": ["api"]},
        {"scopes": ["api"], "expires": in_future(hours=2)},
    ]
    for wanted in too_much:
        answer = await admin.post("/v1/tokens", json=wanted, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_authority"), wanted
    enough = {"scopes": ["api:tokens:read"], "expires": in_future(minutes=5)}
    assert (await admin.post("/v1/tokens", json=enough, headers=headers)).status_code == 201


async def test_a_lesser_token_can_neither_widen_nor_rotate_a_greater_one(admin):
    greater = await create_token(admin, scopes=["*"])
    lesser = await create_token(admin, scopes=["api"])
    headers = bearer(lesser["token"])
    for attempt in (
        admin.patch(f"/v1/tokens/{lesser['id']}", json={"scopes": ["*"]}, headers=headers),
        admin.patch(f"/v1/tokens/{greater['id']}", json={"description": "mine"}, headers=headers),
        admin.post(f"/v1/tokens/{greater['id']}/rotate", json={}, headers=headers),
    ):
        assert (await attempt).json()["code"] == "exceeds_authority"


async def test_an_account_bound_token_works_for_that_account_only(admin):
    for account in ("alice", "bob"):
        assert (await admin.post("/v1/account", json={"account": account})).status_code == 200
    made = await create_token(admin, account="alice", scopes=["api:tokens", "api:accounts"])
    headers = bearer(made["token"])
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
    found = {path: (await admin.get(path, headers=headers)).status_code for path in expected}
    assert found == expected
    wanted = {"scopes": ["api:tokens:read"], "account": "alice"}
    assert (await admin.post("/v1/tokens", json=wanted, headers=headers)).status_code == 201
    wanted["account"] = "bob"
    assert (await admin.post("/v1/tokens", json=wanted, headers=headers)).status_code == 403


async def test_deleting_an_account_ends_its_tokens(admin):
    await admin.post("/v1/account", json={"account": "carol"})
    made = await create_token(admin, account="carol")
    assert (await admin.delete("/v1/account/carol")).json()["tokens"] == 1
    assert (await admin.get("/v1/self", headers=bearer(made["token"]))).status_code == 401
    assert (await admin.delete("/v1/account/carol")).status_code == 404


async def test_addresses_and_referrers_are_judged_in_order(admin):
    elsewhere = await create_token(admin, restrictions={"addresses": ["10.0.0.0/8"]})
    refused = await admin.get("/v1/tokens", headers=bearer(elsewhere["token"]))
    assert (refused.status_code, refused.json()["code"]) == (403, "address_not_allowed")
    assert refused.json()["address"] == "127.0.0.1"
    here = await create_token(
        admin, restrictions={"addresses": ["::ffff:127.0.0.0/104"], "referrers": ["https://good.example/*"]}
    )
    for referrer, status in (
        (None, 403),
        ("https://good.example/page", 200),
        ("https://evil.example/?https://good.example/", 403),
        ("https://good.example@evil.example/", 403),
        ("http://good.example/", 403),
    ):
        headers = bearer(here["token"]) | ({"referer": referrer} if referrer else {})
        assert (await admin.get("/v1/tokens", headers=headers)).status_code == status, referrer


PAGE = "https://good.example/"


async def test_a_referrer_above_two_kilobytes_is_rejected(admin):
    made = await create_token(admin, restrictions={"referrers": [f"{PAGE}*"]})
    for length, status in ((2048, 200), (2049, 403), (6000, 403)):
        headers = bearer(made["token"]) | {"referer": PAGE + "a" * (length - len(PAGE))}
        answer = await admin.get("/v1/tokens", headers=headers)
        assert answer.status_code == status, length
        assert status == 200 or answer.json()["code"] == "referrer_not_allowed"


BOUNDED_REFERRERS: list[tuple[list[str], str | None]] = [
    ([f"{PAGE}*"] * 64, None),
    ([f"{PAGE}*"] * 65, "restrictions.referrers"),
    ([PAGE + "*a" * 8], None),
    ([f"{PAGE}*", PAGE + "*a" * 9], "restrictions.referrers[1]"),
]


async def test_new_and_edited_referrers_are_bounded(admin, subtests: pytest.Subtests):
    for referrers, field in BOUNDED_REFERRERS:
        with subtests.test(count=len(referrers), last=referrers[-1]):
            wanted = {"restrictions": {"referrers": referrers}}
            made = await create_token(admin)
            for answer in (
                await admin.post("/v1/tokens", json={"scopes": ["api"], **wanted}),
                await admin.patch(f"/v1/tokens/{made['id']}", json=wanted),
            ):
                if field is None:
                    assert answer.is_success, answer.text
                else:
                    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
                    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_referrers_stored_under_wider_limits_stay_valid(admin, database):
    made = await create_token(admin)
    wide = [*(f"https://{number}.example/" for number in range(255)), PAGE + "*a" * 9]
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "update tokens.token set restrictions = $2 where id = $1",
        made["id"],
        json.dumps({"addresses": None, "referrers": wide, "rateLimit": None}),
    )
    await connection.close()
    page = {"referer": PAGE + "-a" * 9}
    assert (await admin.get("/v1/self", headers=bearer(made["token"]) | page)).status_code == 200
    path = f"/v1/tokens/{made['id']}"
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


async def test_a_rate_limit_is_exact_and_says_when_to_come_again(admin):
    made = await create_token(admin, restrictions={"rateLimit": {"maxRequests": 3, "timeWindow": 86400}})
    answers = [await admin.get("/v1/tokens", headers=bearer(made["token"])) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["ratelimit-policy"] == '"token";q=3;w=86400'
    assert answers[0].headers["ratelimit"].startswith('"token";r=2;t=')
    assert int(answers[3].headers["retry-after"]) >= 1
    assert answers[3].json()["code"] == "rate_limited"


async def test_a_rotated_token_shares_its_limit_with_its_successor(admin):
    made = await create_token(admin, restrictions={"rateLimit": {"maxRequests": 2, "timeWindow": 86400}})
    new = (await admin.post(f"/v1/tokens/{made['id']}/rotate", json={"grace": 60})).json()
    statuses = [
        (await admin.get("/v1/tokens", headers=bearer(value))).status_code
        for value in (made["token"], new["token"], made["token"], new["token"])
    ]
    assert statuses == [200, 200, 429, 429]


async def test_the_log_shows_changes_and_refusals(admin):
    made = await create_token(admin)
    await admin.patch(f"/v1/tokens/{made['id']}", json={"description": "new", "disabled": True})
    await admin.get("/v1/tokens", headers=bearer(made["token"]))
    async with asyncio.timeout(30):
        # The edge's own report may be under way.
        while not (log := (await admin.get(f"/v1/tokens/{made['id']}/log")).json())["refusals"]:
            await flush(admin)
    assert [change["action"] for change in log["changes"]] == [
        "token.disabled",
        "token.updated",
        "token.created",
    ]
    assert [refusal["reason"] for refusal in log["refusals"]] == ["disabled"]
    assert log["refusals"][0]["route"] == "/v1/tokens"


async def test_last_use_is_noted(admin):
    made = await create_token(admin)
    await admin.get("/v1/tokens", headers=bearer(made["token"]))
    async with asyncio.timeout(30):
        # The edge's own report may be under way.
        while (shown := (await admin.get(f"/v1/tokens/{made['id']}")).json())["access"]["ip"] is None:
            await flush(admin)
    assert shown["access"]["ip"] == "127.0.0.1"
    assert shown["access"]["time"]


async def test_everything_wrong_with_a_body_is_told_at_once(admin):
    answer = await admin.post(
        "/v1/tokens", json={"scopes": "api", "expires": 5, "colour": "red", "metadata": []}
    )
    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} == {
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


async def test_a_body_that_is_not_as_it_should_be_is_400(admin, subtests: pytest.Subtests):
    for wanted in INVALID_BODIES:
        with subtests.test(wanted=wanted):
            answer = await admin.post("/v1/tokens", json={"scopes": ["api"], **wanted})
            assert answer.status_code == 400, answer.text
            assert answer.json()["errors"]


async def test_odd_bodies_are_400_or_415(admin):
    headers = {"content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"\xff", b"NaN", b'{"scopes":["api"]} x', b"[" * 5000, b'{"a":' * 5000):
        answer = await admin.post("/v1/tokens", content=body, headers=headers)
        assert answer.status_code == 400, body[:20]
    for kind in ({"content-type": "text/plain"}, headers | {"content-encoding": "gzip"}):
        answer = await admin.post("/v1/tokens", content=b"{}", headers=kind)
        assert answer.status_code == 415
    assert (await admin.post("/v1/tokens", content=b" " * 70_000, headers=headers)).status_code == 413


async def test_what_is_nested_too_deeply_is_400_at_any_depth(admin, subtests: pytest.Subtests):
    for depth in (65, 100, 400, 470, 900, 1100):
        with subtests.test(depth=depth):
            nested = b"[" * depth + b"]" * depth
            headers = {"content-type": "application/json"}
            for path, body in (
                ("/v1/tokens", b'{"scopes":["api"],"metadata":{"a":%s}}' % nested),
                ("/v1/self/rotate", b'{"grace":%s}' % nested),
            ):
                answer = await admin.post(path, content=body, headers=headers)
                assert answer.status_code == 400, answer.text
                assert answer.json()["errors"] == [{"field": "", "message": "nested too deeply"}]


async def test_no_error_repeats_a_token(admin):
    token = (await create_token(admin))["token"]
    answer = await admin.get("/v1/tokens", params={"state": token})
    assert answer.status_code == 400
    assert token not in answer.text
    assert [each["field"] for each in answer.json()["errors"]] == ["state"]


async def test_windows_of_different_lengths_in_one_family_count_apart(admin):
    made = await create_token(
        admin, scopes=["api"], restrictions={"rateLimit": {"maxRequests": 5, "timeWindow": 1}}
    )
    new = (await admin.post(f"/v1/tokens/{made['id']}/rotate", json={"grace": 3600})).json()
    limit = {"restrictions": {"rateLimit": {"maxRequests": 5, "timeWindow": 86_400}}}
    assert (await admin.patch(f"/v1/tokens/{new['id']}", json=limit)).status_code == 200
    allowed = 0
    for turn in range(3):
        if turn:
            # The short window's next one begins; it is not the long one's.
            async with asyncio.timeout(20):
                while (await admin.get("/auth?scope=api", headers=bearer(made["token"]))).status_code != 200:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(1)
        for _ in range(4):
            answer = await admin.get("/auth?scope=api", headers=bearer(new["token"]))
            allowed += answer.status_code == 200
    assert allowed <= 5


async def test_who_may_not_give_what_a_token_has_may_not_edit_it(admin):
    editor = await create_token(admin, scopes=["api:tokens:write"])
    victim = await create_token(admin, scopes=["*"])
    for change, code in (
        ({"description": "x"}, "exceeds_authority"),
        ({"scopes": ["api:tokens:write"]}, "exceeds_authority"),
        ({"disabled": True}, "insufficient_scope"),
    ):
        answer = await admin.patch(f"/v1/tokens/{victim['id']}", json=change, headers=bearer(editor["token"]))
        assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert (await admin.get("/v1/self", headers=bearer(victim["token"]))).status_code == 200


async def test_revoking_a_token_revokes_what_it_replaced(admin):
    first = await create_token(admin, scopes=["api"])
    second = (await admin.post(f"/v1/tokens/{first['id']}/rotate", json={"grace": 3600})).json()
    third = (await admin.post(f"/v1/tokens/{second['id']}/rotate", json={"grace": 3600})).json()

    async def statuses() -> list[int]:
        return [
            (await admin.get("/auth?scope=api", headers=bearer(each["token"]))).status_code
            for each in (first, second, third)
        ]

    assert await statuses() == [200, 200, 200]
    assert (await admin.patch(f"/v1/tokens/{first['id']}", json={"description": "x"})).status_code == 409
    assert (await admin.patch(f"/v1/tokens/{first['id']}", json={"disabled": True})).status_code == 200
    assert await statuses() == [401, 401, 401]
    assert (await admin.patch(f"/v1/tokens/{third['id']}", json={"disabled": False})).status_code == 200
    assert await statuses() == [200, 200, 200]
    assert (await admin.delete(f"/v1/tokens/{third['id']}")).status_code == 200
    assert await statuses() == [401, 401, 401]


async def test_ids_that_are_none_are_404(admin):
    for token_id in ("x", "tok_", "tok_" + "0" * 26, "..", "%00", "'", "%2e%2e%2fx"):
        answer = await admin.get(f"/v1/tokens/{token_id}/log")
        assert answer.status_code == 404, token_id
    for query in ("page=-1", "pageSize=1000000", "pageSize=x", "query=%00"):
        assert (await admin.get(f"/v1/tokens?{query}")).status_code == 400, query


async def test_introspection_and_revocation_follow_their_standards(admin):
    made = await create_token(admin, scopes=["orders:read"], expires=in_future(hours=1))
    asked = await admin.post("/oauth2/introspect", data={"token": made["token"]})
    assert asked.json()["active"] is True
    assert asked.json()["scope"] == "orders:read"
    assert asked.json()["token_type"] == "Bearer"
    lesser = bearer(made["token"])
    assert (await admin.post("/oauth2/introspect", data={"token": "x"}, headers=lesser)).status_code == 403
    other = await create_token(admin)
    assert (
        await admin.post("/oauth2/revoke", data={"token": other["token"]}, headers=lesser)
    ).status_code == 403
    assert (
        await admin.post("/oauth2/revoke", data={"token": made["token"]}, headers=lesser)
    ).status_code == 200
    assert (await admin.post("/oauth2/introspect", data={"token": made["token"]})).json() == {"active": False}
    assert (await admin.post("/oauth2/revoke", data={"token": "unknown"})).status_code == 200


async def test_forward_auth_says_who_it_is_or_why_not(admin):
    await admin.post("/v1/account", json={"account": "alice"})
    made = await create_token(admin, scopes=["orders"], account="alice")
    headers = bearer(made["token"])
    allowed = await admin.get("/auth?scope=orders:read&account=alice", headers=headers)
    assert allowed.status_code == 200
    assert allowed.headers["x-token-id"] == made["id"]
    assert allowed.headers["x-token-account"] == "alice"
    assert allowed.headers["x-token-scopes"] == "orders"
    for query, status in (
        ("scope=invoices&account=alice", 403),
        ("scope=orders", 403),
        ("", 400),
        ("scope=orders&scope=invoices&account=alice", 400),
    ):
        assert (await admin.get(f"/auth?{query}", headers=headers)).status_code == status, query
    for method in ("OPTIONS", "HEAD", "POST", "DELETE"):
        refused = await admin.request(method, "/auth?scope=orders", headers=bearer("f" * 64))
        assert refused.status_code == 401, method


async def test_options_and_405_name_every_method_a_path_offers(admin):
    authorization = admin.headers.pop("authorization")
    for path, methods in (
        ("/v1/tokens", "GET, HEAD, OPTIONS, POST"),
        ("/v1/tokens/x", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("/v1/self/rotate", "OPTIONS, POST"),
    ):
        answer = await admin.options(path)
        assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", methods)
        assert (await admin.put(path)).status_code == 401
        refused = await admin.put(path, headers={"authorization": authorization})
        assert (refused.status_code, refused.headers["allow"]) == (405, methods)


async def test_the_list_shows_one_state_at_a_time(admin, operator, database):
    await admin.post("/v1/account", json={"account": "carol"})
    made = {
        name: await create_token(admin, description=name, account="carol") for name in ("active", "disabled")
    }
    made["expiring"] = await create_token(admin, account="carol", expires=in_future(days=1))
    made["expired"] = await create_token(admin, account="carol", expires=in_future(hours=1))
    made["not_yet_valid"] = await create_token(admin, account="carol", notBefore=in_future(hours=1))
    made["rotated"] = await create_token(admin, account="carol")
    made["revoked"] = await create_token(admin, account="carol")
    await admin.patch(f"/v1/tokens/{made['disabled']['id']}", json={"disabled": True})
    renewed = await admin.post(f"/v1/tokens/{made['rotated']['id']}/rotate", json={"grace": 60})
    await admin.delete(f"/v1/tokens/{made['revoked']['id']}")
    connection = await asyncpg.connect(database.owner)
    await connection.execute(
        "update tokens.token set expires = now() - interval '1 s' where id = $1", made["expired"]["id"]
    )
    await connection.close()

    async def listed(query: str) -> set[str]:
        answer = await admin.get(f"/v1/tokens?account=carol{query}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] == len(answer.json()["tokens"])
        return {token["id"] for token in answer.json()["tokens"]}

    ids = {name: token["id"] for name, token in made.items()}
    new = renewed.json()["id"]
    for state in ("disabled", "expired", "not_yet_valid", "revoked"):
        assert await listed(f"&state={state}") == {ids[state]}, state
    assert await listed("&state=rotated") == {ids["rotated"]}
    # What was rotated ends with its grace, which nobody has to do anything about.
    assert await listed("&state=expiring") == {ids["expiring"]}
    assert await listed("&state=active") == {ids["active"], ids["expiring"], ids["rotated"], new}
    assert await listed("") == {*ids.values(), new} - {ids["revoked"]}
    for wrong in ("lost", "null", "ACTIVE"):
        refused = await admin.get(f"/v1/tokens?state={wrong}")
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_request"), wrong


async def test_all_tokens_of_an_account_are_revoked_at_once(admin):
    for account in ("alice", "bob"):
        await admin.post("/v1/account", json={"account": account})
    alices = [await create_token(admin, account="alice") for _ in range(3)]
    bobs = await create_token(admin, account="bob")
    outsider = await admin.delete("/v1/tokens/account/alice", headers=bearer(bobs["token"]))
    assert (outsider.status_code, outsider.json()["code"]) == (403, "account_mismatch")
    revoked = (await admin.delete("/v1/tokens/account/alice")).json()
    assert (revoked["account"], revoked["tokens"]) == ("alice", 3)
    for made in alices:
        assert (await admin.get("/v1/self", headers=bearer(made["token"]))).status_code == 401
    assert (await admin.get("/v1/self", headers=bearer(bobs["token"]))).status_code == 200
    assert (await admin.delete("/v1/tokens/account/alice")).json()["tokens"] == 0
    assert (await admin.get("/v1/account/alice")).status_code == 200
    assert (await admin.delete("/v1/tokens/account/nobody")).status_code == 404


async def test_a_hint_at_the_token_s_type_is_taken(admin):
    made = await create_token(admin)
    for hint in ("access_token", "refresh_token", "other", ""):
        form = {"token": made["token"], "token_type_hint": hint}
        assert (await admin.post("/oauth2/introspect", data=form)).json()["active"] is True
    twice = {"token": made["token"], "token_type_hint": ["access_token", "access_token"]}
    assert (await admin.post("/oauth2/introspect", data=twice)).status_code == 400
    form = {"token": made["token"], "token_type_hint": "refresh_token"}
    assert (await admin.post("/oauth2/revoke", data=form)).status_code == 200
    assert (await admin.post("/oauth2/introspect", data=form)).json() == {"active": False}


async def test_a_proxy_s_client_may_bring_its_token_in_the_query(admin):
    made, other = await create_token(admin, scopes=["orders"]), await create_token(admin, scopes=["invoices"])
    del admin.headers["authorization"]
    uri = f"/page?access_token={made['token']}"
    expected = [
        ({"x-forwarded-uri": uri}, 200),
        ({"x-original-uri": uri}, 200),
        ({"x-original-uri": uri, "x-forwarded-uri": uri}, 200),
        ({"x-original-uri": uri, "x-forwarded-uri": f"/?access_token={other['token']}"}, 400),
        ({"x-original-uri": f"{uri}&access_token={made['token']}"}, 400),
        ({"x-original-uri": "/page?access_token=" + "f" * 64}, 401),
        ({"x-original-uri": "/page"}, 401),
        ({"x-original-url": uri}, 401),
        ({"referer": f"https://example.org{uri}"}, 401),
        # Whatever else came counts alone: what is forwarded neither helps nor harms it.
        ({**bearer(made["token"]), "x-original-uri": f"/?access_token={other['token']}"}, 200),
        ({**bearer("f" * 64), "x-original-uri": uri}, 401),
        ({"authorization": "Bearer", "x-original-uri": uri}, 400),
    ]
    for headers, status in expected:
        answer = await admin.get("/auth?scope=orders", headers=headers)
        assert answer.status_code == status, headers
        assert made["token"] not in answer.text + repr(answer.headers)
        if status == 200:
            assert answer.headers["x-token-id"] == made["id"]
    # Nowhere else.
    for path in ("/v1/self", "/v1/stats", "/metrics", "/oauth2/introspect"):
        assert (await admin.get(path, headers={"x-original-uri": uri})).status_code in {401, 405}


async def test_an_account_s_name_is_a_name_whatever_it_spells(admin, subtests: pytest.Subtests):
    for name in ("null", "true", "0"):
        with subtests.test(name=name):
            for account in ("alice", name):
                await admin.post("/v1/account", json={"account": account})
            await create_token(admin, account="alice")
            made = await create_token(admin, account=name)
            for query in (f"account={name}", f"account={name}&query={name}", f"account={name}&state=active"):
                listed = await admin.get(f"/v1/tokens?{query}", headers=bearer(made["token"]))
                assert {token["account"] for token in listed.json()["tokens"]} <= {name}, query
            listed = await admin.get(f"/v1/tokens?query={name}-nobody")
            assert listed.json()["total"] == 0
            made = await create_token(admin, scopes=["orders"], account=name)
            allowed = await admin.get(f"/auth?scope=orders&account={name}", headers=bearer(made["token"]))
            assert (allowed.status_code, allowed.headers["x-token-account"]) == (200, name)

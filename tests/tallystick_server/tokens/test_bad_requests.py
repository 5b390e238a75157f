"""Each invalid request over NATS gets the failure that says what is wrong."""

import json
import logging
import time
from typing import Any

import pytest

from tallystick.contracts.accounts import ADD_ACCOUNT, DELETE_ACCOUNT, GET_ACCOUNT, LIST_ACCOUNTS
from tallystick.contracts.imports import EXPORT_TOKEN, IMPORT_TOKENS
from tallystick.contracts.metrics import METRICS_STATS
from tallystick.contracts.operation import Operation
from tallystick.contracts.propagation import RENEW_LEASE
from tallystick.contracts.quotas import TAKE_QUOTA
from tallystick.contracts.registry import ADMINISTRATIVE
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    GET_LOG,
    GET_TOKEN,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
)
from tallystick.contracts.verification import REPORT_USE, VERIFY, VERIFY_MANY
from tallystick.rpc.call import DEADLINE_HEADER
from tallystick.tokens import format as token_format
from tests.support.services import issue

ACTOR = {"name": "test"}
DIGEST = "ab" * 32
ID = "tok_" + "0" * 26
NEW = {"scopes": ["api"]}
CREATE = {"token": NEW, "digest": DIGEST, "hint": "", "actor": ACTOR}
ROTATE = {"id": ID, "grace": 0, "digest": DIGEST, "hint": "", "actor": ACTOR}
RECORD = {"id": ID, "digest": DIGEST, "token": NEW}
USE = {"id": ID, "count": 1, "time": "2026-01-01T00:00:00Z", "ip": None}
HUGE = 2**70


def token(**fields: Any) -> dict[str, Any]:
    return {**CREATE, "token": {**NEW, **fields}}


def records(*items: Any) -> dict[str, Any]:
    return {"records": items, "actor": ACTOR}


CASES: list[tuple[Operation, Any, str]] = [
    *(
        (VERIFY, raw, "bad_request")
        for raw in (b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff", b"\xef\xbb\xbf{}", b"{}{}", b"NaN")
    ),
    (VERIFY, b"[" * 60_000, "bad_request"),
    (VERIFY, b'{"digest":' + b'"' + b"a" * 70_000 + b'"}', "bad_request"),
    (VERIFY, {"digest": DIGEST, "scope": 5}, "bad_request"),
    (VERIFY, {"digest": DIGEST, "account": ["a"]}, "bad_request"),
    (VERIFY, {"digest": DIGEST[:-1]}, "bad_request"),
    (VERIFY, {"digest": DIGEST.upper()}, "bad_request"),
    (VERIFY_MANY, {"requests": [{"digest": DIGEST}] * 257}, "bad_request"),
    (VERIFY_MANY, {"requests": [{"digest": DIGEST}, {"digest": "x"}]}, "bad_request"),
    (VERIFY_MANY, {"requests": {"digest": DIGEST}}, "bad_request"),
    (VERIFY_MANY, {}, "bad_request"),
    (TAKE_QUOTA, {"id": "\0"}, "bad_request"),
    (TAKE_QUOTA, {"id": None}, "bad_request"),
    (TAKE_QUOTA, {"id": "nobody"}, "not_found"),
    (REPORT_USE, {"uses": [{**USE, "count": HUGE}], "refusals": []}, "bad_request"),
    (REPORT_USE, {"uses": [{**USE, "time": "0001-01-01T00:00:00+23:59"}], "refusals": []}, "bad_request"),
    (REPORT_USE, {"uses": [{**USE, "time": "yesterday"}], "refusals": []}, "bad_request"),
    (REPORT_USE, {"uses": None, "refusals": []}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": None}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": {"name": "\0"}}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": {"name": "x", "token": ID}}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": {"name": "x", "token": DIGEST}}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": {"token": DIGEST}}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": {"name": ""}}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "actor": {}}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "colour": "red"}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "digest": "tly_" + "0" * 49}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "hint": "\0"}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "idempotencyKey": ""}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "idempotencyKey": "k" * 256}, "bad_request"),
    (CREATE_TOKEN, {**CREATE, "idempotencyKey": "a\0"}, "bad_request"),
    (CREATE_TOKEN, token(scopes=[]), "bad_request"),
    (CREATE_TOKEN, token(scopes=["a"] * 65), "bad_request"),
    (CREATE_TOKEN, token(scopes=["a" * 129]), "bad_request"),
    (CREATE_TOKEN, token(description="a\0"), "bad_request"),
    (CREATE_TOKEN, token(account="nobody"), "bad_request"),
    (CREATE_TOKEN, token(colour="red"), "bad_request"),
    (CREATE_TOKEN, token(expires="2030-01-01T00:00:00"), "bad_request"),
    (CREATE_TOKEN, token(notBefore="0001-01-01T00:00:00+23:59"), "bad_request"),
    (CREATE_TOKEN, token(metadata={"a": HUGE, "b": "\0"}), "bad_request"),
    (EDIT_TOKEN, {"id": ID, "changes": {}, "actor": ACTOR}, "not_found"),
    (EDIT_TOKEN, {"id": "../x", "changes": {}, "actor": ACTOR}, "not_found"),
    (EDIT_TOKEN, {"id": ID, "changes": {"id": "x"}, "actor": ACTOR}, "bad_request"),
    (ROTATE_TOKEN, ROTATE, "not_found"),
    (ROTATE_TOKEN, {**ROTATE, "grace": -1}, "bad_request"),
    (ROTATE_TOKEN, {**ROTATE, "grace": HUGE}, "bad_request"),
    (ROTATE_TOKEN, {**ROTATE, "grace": 1.5}, "bad_request"),
    (EDIT_TOKEN, {"id": ID, "changes": {"account": "x"}, "actor": ACTOR}, "bad_request"),
    (EDIT_TOKEN, {"id": ID, "changes": {"restrictions": {"x": 1}}, "actor": ACTOR}, "bad_request"),
    (EDIT_TOKEN, {"id": ID, "changes": {}, "revisions": [1] * 17, "actor": ACTOR}, "bad_request"),
    (REVOKE_TOKEN, {"actor": ACTOR}, "bad_request"),
    (REVOKE_TOKEN, {"actor": ACTOR, "id": ID, "digest": DIGEST}, "bad_request"),
    (REVOKE_TOKEN, {"actor": ACTOR, "id": ID, "only": "successors"}, "bad_request"),
    (REVOKE_TOKEN, {"actor": ACTOR, "id": "' or true --"}, "not_found"),
    (REVOKE_TOKEN, {"actor": ACTOR, "digest": "x"}, "bad_request"),
    (REVOKE_ALL, {"actor": ACTOR, "account": "nobody"}, "not_found"),
    (REVOKE_ALL, {"actor": ACTOR, "account": ".."}, "not_found"),
    (GET_TOKEN, {"id": "%", "actor": ACTOR}, "not_found"),
    (GET_LOG, {"id": "\0", "actor": ACTOR}, "not_found"),
    (EXPORT_TOKEN, {"id": ID, "actor": ACTOR}, "not_found"),
    (LIST_TOKENS, {"page": -1, "actor": ACTOR}, "bad_request"),
    (LIST_TOKENS, {"page": HUGE, "actor": ACTOR}, "bad_request"),
    (LIST_TOKENS, {"pageSize": 0, "actor": ACTOR}, "bad_request"),
    (LIST_TOKENS, {"pageSize": 1001, "actor": ACTOR}, "bad_request"),
    (LIST_TOKENS, {"query": "\0", "actor": ACTOR}, "bad_request"),
    (LIST_TOKENS, {"state": "lost", "actor": ACTOR}, "bad_request"),
    (IMPORT_TOKENS, records("x"), "bad_request"),
    (IMPORT_TOKENS, records({}), "bad_request"),
    (IMPORT_TOKENS, records({**RECORD, "id": "x"}), "bad_request"),
    (IMPORT_TOKENS, records({**RECORD, "token": {}}), "bad_request"),
    (IMPORT_TOKENS, records({**RECORD, "created": "0001-01-01T00:00:00+23:59"}), "bad_request"),
    (IMPORT_TOKENS, records({**RECORD, "created": "2999-01-01T00:00:00Z"}), "bad_request"),
    (IMPORT_TOKENS, records(RECORD, RECORD), "bad_request"),
    (IMPORT_TOKENS, records(*[None] * 1001), "bad_request"),
    (ADD_ACCOUNT, {"account": "", "actor": ACTOR}, "bad_request"),
    (ADD_ACCOUNT, {"account": "..", "actor": ACTOR}, "bad_request"),
    (ADD_ACCOUNT, {"account": "a/b", "actor": ACTOR}, "bad_request"),
    (ADD_ACCOUNT, {"account": "a" * 129, "actor": ACTOR}, "bad_request"),
    (ADD_ACCOUNT, {"account": "a", "name": "\0", "actor": ACTOR}, "bad_request"),
    (GET_ACCOUNT, {"account": "\0", "actor": ACTOR}, "not_found"),
    (DELETE_ACCOUNT, {"account": "nobody", "actor": ACTOR}, "not_found"),
    (LIST_ACCOUNTS, {"page": "0", "actor": ACTOR}, "bad_request"),
    (RENEW_LEASE, {"edge": "x"}, "bad_request"),
    (METRICS_STATS, {"seconds": -1}, "bad_request"),
    (METRICS_STATS, {"seconds": HUGE}, "bad_request"),
    (METRICS_STATS, {}, "bad_request"),
]


async def test_an_invalid_request_gets_the_code_of_its_failure(
    tokens_service, metrics_service, operator, edge_client, caplog
):
    for base, payload, code in CASES:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        operation = base.by_operator if base in ADMINISTRATIVE else base
        client = edge_client if ".edge." in operation.subject else operator
        reply = await client.request(operation.subject, raw, timeout=10)
        failure = json.loads(reply.data)
        assert failure.get("code") == code, (operation.subject, payload, failure)
        assert reply.headers["Nats-Service-Error"] == code
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_request_with_a_plain_token_is_counted_and_not_logged(tokens_service, operator, caplog):
    secret = token_format.mint()
    for body in ({"digest": secret}, {"digest": secret.encode().hex()}, secret):
        reply = await operator.request(VERIFY.subject, json.dumps(body).encode(), timeout=10)
        assert json.loads(reply.data)["code"] == "bad_request"
        assert secret not in reply.data.decode()
    assert secret not in caplog.text
    stats = json.loads((await operator.request("$SRV.STATS.tallystick-tokens", timeout=10)).data)
    verify = next(endpoint for endpoint in stats["endpoints"] if endpoint["name"] == "tokens-verify")
    assert verify["data"]["bad_request"] >= 3


INVALID_DEADLINES = ("", "soon", "-1", "1e99", "9" * 400, "9" * 5000, "١٢")


async def test_an_invalid_deadline_is_ignored(tokens_service, operator, subtests: pytest.Subtests):
    for deadline in INVALID_DEADLINES:
        with subtests.test(deadline=deadline):
            _, token = await issue(operator)
            payload = json.dumps({"id": token.id, "actor": ACTOR}).encode()
            headers = {DEADLINE_HEADER: deadline}
            reply = await operator.request(
                REVOKE_TOKEN.by_operator.subject, payload, timeout=2, headers=headers
            )
            assert json.loads(reply.data)["deleted"] is True


async def test_the_edge_responds_503_at_once_if_no_service_runs(edge):
    headers = {"authorization": f"Bearer {'f' * 64}"}
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        assert (await edge.get("/v1/stats", headers=headers)).status_code == 503
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.05

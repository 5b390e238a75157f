"""Requests with a revoked, replaced or disabled token: counted exactly, logged with the reason, and rejected like those
with an unknown token.
"""

import asyncio
import re
from datetime import datetime
from typing import Any, Literal

import httpx
import msgspec
import pytest

from tallystick.contracts.messages import Message
from tallystick.contracts.metrics import EXPOSITION, AskExposition, Exposition, Sample
from tallystick.contracts.verification import VERIFY, RejectedToken, Verdict
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings
from tallystick_server.metrics.exposition import text
from tests.support.api import bearer, create_token, in_future
from tests.support.services import issue, lifespan

TIMES = {"revoked": 7, "replaced": 5, "disabled": 3}


@pytest.fixture(autouse=True)
def report_often(monkeypatch) -> None:
    """An edge sends its metrics with its heartbeat."""
    monkeypatch.setattr("tallystick.producer.HEARTBEAT_S", 0.2)


@pytest.fixture
async def admin(edge, operator, tokens_service):
    value, _ = await issue(operator)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


async def create_withdrawn_tokens(admin) -> dict[str, dict[str, Any]]:
    """One token for each reason, by reason."""
    tokens = {reason: await create_token(admin) for reason in TIMES}
    assert (await admin.delete(f"/v1/tokens/{tokens['revoked']['id']}")).status_code == 200
    rotated = await admin.post(f"/v1/tokens/{tokens['replaced']['id']}/rotate", json={"grace": 0})
    assert rotated.status_code == 201
    disabled = await admin.patch(f"/v1/tokens/{tokens['disabled']['id']}", json={"disabled": True})
    assert disabled.status_code == 200
    return tokens


def uses_by_reason(page: str) -> dict[str, int]:
    return {
        reason: int(count)
        for reason, count in re.findall(
            r'^tallystick_revoked_token_uses_total{reason="(\w+)"} (\d+)$', page, re.MULTILINE
        )
    }


async def exposition(operator) -> str:
    reply = await call(operator, EXPOSITION, AskExposition())
    return reply.text if isinstance(reply, Exposition) else ""


async def test_each_use_of_a_withdrawn_token_is_counted_and_logged_and_looks_unknown_to_the_client(
    admin, operator, metrics_service
):
    tokens = await create_withdrawn_tokens(admin)
    unknown_token = token_format.mint()
    senders = (
        lambda value: admin.get("/v1/self", headers=bearer(value)),
        lambda value: admin.get("/auth?scope=api", headers=bearer(value)),
        # With a body: the edge checks the token before and after it reads the body.
        lambda value: admin.post("/v1/tokens", json={"scopes": ["api"]}, headers=bearer(value)),
    )
    unknown_responses = [await send(unknown_token) for send in senders]
    assert uses_by_reason(await exposition(operator)) == dict.fromkeys(TIMES, 0), (
        "each reason has a series from the start"
    )
    for reason, times in TIMES.items():
        for number in range(times):
            response = await senders[number % len(senders)](tokens[reason]["token"])
            assert response.status_code == 401
            expected = unknown_responses[number % len(senders)]
            assert response.content == expected.content
            varying_headers = ("x-request-id", "date")
            assert [
                pair for pair in response.headers.raw if pair[0].decode().lower() not in varying_headers
            ] == [pair for pair in expected.headers.raw if pair[0].decode().lower() not in varying_headers]
    async with asyncio.timeout(20):
        while uses_by_reason(await exposition(operator)) != TIMES:
            await asyncio.sleep(0.1)
        for reason, times in TIMES.items():
            log: dict[str, Any] = {"refusals": ()}
            while len(log["refusals"]) < times:
                await asyncio.sleep(0.1)
                log = (await admin.get(f"/v1/tokens/{tokens[reason]['id']}/log")).json()
            assert {refusal["reason"] for refusal in log["refusals"]} == {reason}
            assert len(log["refusals"]) == times
    page = await exposition(operator)
    assert re.findall(r'^tallystick_token_checks_total{result="(\w+)"}', page, re.MULTILINE) == [
        "invalid_token",
        "ok",
    ]


async def test_a_replaced_secret_counts_only_after_its_grace_period(admin):
    verifier = verifier_of(admin)
    token = await create_token(admin)
    await admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 1})
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 200
    expires = datetime.fromisoformat((await admin.get(f"/v1/tokens/{token['id']}")).json()["expires"])
    await asyncio.sleep(max(0.0, (expires - datetime.now(expires.tzinfo)).total_seconds()) + 0.05)
    assert verifier.usage.ended == {}
    for _ in range(3):
        assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 401
    assert verifier.usage.take_ended() == {"replaced": 3}


async def test_an_expired_token_is_not_counted_as_withdrawn(admin):
    verifier = verifier_of(admin)
    token = await create_token(admin, expires=in_future(seconds=0.5))
    await asyncio.sleep(0.6)
    assert (await admin.get("/v1/self", headers=bearer(token["token"]))).status_code == 401
    assert verifier.usage.take_results()["invalid_token"] == 1
    assert verifier.usage.take_ended() == {}


async def test_a_dashboard_sign_in_with_a_withdrawn_token_is_counted(admin):
    tokens = await create_withdrawn_tokens(admin)
    verifier = verifier_of(admin)
    verifier.usage.take_ended()
    response = await admin.post(
        "/admin/sign-in",
        data={"token": tokens["replaced"]["token"]},
        headers={"origin": "http://edge", "sec-fetch-site": "same-origin"},
    )
    assert response.status_code == 401
    assert verifier.usage.take_ended() == {"replaced": 1}


async def status(client, token: dict[str, Any]) -> int:
    code: int = (await client.get("/v1/self", headers=bearer(token["token"]))).status_code
    return code


def verifier_of(client) -> Any:
    return client._transport.app._verifier


async def test_an_edge_that_stops_reports_its_counts(admin, operator, metrics_service, nats_server):
    tokens = await create_withdrawn_tokens(admin)
    app: Any = create_app(Settings(nats_url=nats_server.edge))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as another,
    ):
        async with asyncio.timeout(30):
            while await status(another, tokens["revoked"]) != 401:
                await asyncio.sleep(0.02)  # this edge has no lease yet
    async with asyncio.timeout(30):
        while uses_by_reason(await exposition(operator))["revoked"] != 1:
            await asyncio.sleep(0.05)


class PreviousRejectedToken(Message, frozen=True):
    """`RejectedToken` of the previous version."""

    id: str
    reason: Literal["revoked", "disabled", "expired", "not_yet_valid"]


async def test_an_edge_of_the_previous_version_reads_a_verdict_on_a_replaced_token(admin, operator):
    tokens = await create_withdrawn_tokens(admin)
    for reason, previous_reason in (
        ("revoked", "revoked"),
        ("replaced", "expired"),
        ("disabled", "disabled"),
    ):
        digest = token_format.digest(tokens[reason]["token"]) or ""
        reply = await operator.request(VERIFY.subject, msgspec.json.encode({"digest": digest}), timeout=10)
        raw = msgspec.json.decode(reply.data)
        old = msgspec.convert(raw["refused"], PreviousRejectedToken)
        assert (old.id, old.reason) == (tokens[reason]["id"], previous_reason)
        rejected = msgspec.json.decode(reply.data, type=Verdict).refused
        assert rejected is not None
        assert rejected.log_reason == reason


def test_a_verdict_of_the_previous_version_is_read():
    old = msgspec.json.decode(b'{"id": "tok_a", "reason": "expired"}', type=RejectedToken)
    assert old.log_reason == "expired"
    both = RejectedToken(id="tok_a", reason="revoked", replaced=True)
    assert both.log_reason == "revoked"


def test_only_the_declared_reasons_become_series():
    name = catalogue.REVOKED_TOKEN_USES.name
    assert catalogue.series(name, {"reason": "replaced"}) is catalogue.REVOKED_TOKEN_USES
    assert catalogue.series(name, {"reason": "tok_a"}) is None
    page = text([Sample(name=name, labels={"reason": "revoked"}, value=4)])
    assert uses_by_reason(page) == {"revoked": 4, "disabled": 0, "replaced": 0}

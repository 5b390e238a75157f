"""Tokens over HTTP: who asks, and what most tests ask for."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tallystick.coherence.transport import NatsTransport
from tests.support.services import issue


@pytest.fixture
async def admin(edge, operator, tokens_service):
    """An HTTP client that sends an all-powerful token."""
    value, _ = await issue(operator)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


def in_future(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def make(client, **wanted) -> dict:
    answer = await client.post("/v1/tokens", json={"scopes": ["api"], **wanted})
    assert answer.status_code == 201, answer.text
    made: dict = answer.json()
    return made


async def flush(edge) -> None:
    """Has an edge report at once what it would in a second."""
    front = edge._transport.app
    usage = front._verifier.usage
    async with asyncio.timeout(30):
        await usage.flush(NatsTransport(front._app.state.client))
        while (
            usage._uses or usage._rejected_requests
        ):  # the services of a busy machine do not answer in time at first
            await asyncio.sleep(0.02)
            await usage.flush(NatsTransport(front._app.state.client))

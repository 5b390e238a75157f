"""HTTP clients and requests that most tests of the API need."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tallystick.coherence.transport import NatsTransport
from tests.support.services import issue


@pytest.fixture
async def admin(edge, operator, tokens_service):
    """An HTTP client that sends a token of scope ``*``."""
    value, _ = await issue(operator)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


def in_future(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def create_token(client, **fields) -> dict:
    response = await client.post("/v1/tokens", json={"scopes": ["api"], **fields})
    assert response.status_code == 201, response.text
    token: dict = response.json()
    return token


async def flush(edge) -> None:
    """Makes an edge report usage at once, instead of within a second."""
    middleware = edge._transport.app
    usage = middleware._verifier.usage
    async with asyncio.timeout(30):
        await usage.flush(NatsTransport(middleware._app.state.client))
        while (
            usage._uses or usage._rejected_requests
        ):  # the services of a busy machine do not answer in time at first
            await asyncio.sleep(0.02)
            await usage.flush(NatsTransport(middleware._app.state.client))

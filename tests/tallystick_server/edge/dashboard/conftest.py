"""Fixtures for the dashboard over HTTP, as a browser without JavaScript uses it."""

import httpx
import pytest

from tests.support.dashboard import ready, sign_in_at_last
from tests.support.services import issue


@pytest.fixture
async def services(edge: httpx.AsyncClient, tokens_service, metrics_service) -> None:
    """Run the tokens and the metrics service in this event loop, and wait until the edge is ready."""
    await ready(edge)


@pytest.fixture
async def admin(edge: httpx.AsyncClient, operator, services) -> httpx.AsyncClient:
    """A client signed in with a token of scope ``*``."""
    value, _ = await issue(operator, "*", description="the admin's")
    await sign_in_at_last(edge, value)
    return edge

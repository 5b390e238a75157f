"""The dashboard over HTTP, as a browser without script uses it."""

import httpx
import pytest

from tests.support.dashboard import ready, sign_in_at_last
from tests.support.services import issue


@pytest.fixture
async def services(edge: httpx.AsyncClient, tokens_service, metrics_service) -> None:
    """Both, in this loop, and the edge has found them."""
    await ready(edge)


@pytest.fixture
async def admin(edge: httpx.AsyncClient, operator, services) -> httpx.AsyncClient:
    """Signed in with a token that may do everything."""
    value, _ = await issue(operator, "*", description="the admin's")
    await sign_in_at_last(edge, value)
    return edge

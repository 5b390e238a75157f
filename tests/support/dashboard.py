"""Requests to the dashboard, as a browser without script makes them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from nats.aio.client import Client

from tallystick_server.edge.app import create_app
from tallystick_server.edge.settings import Settings
from tests.support.servers import Nats
from tests.support.services import issue, lifespan


async def sign_in(edge: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    return await edge.post("/admin/sign-in", data={"token": token}, headers=headers)


async def sign_in_at_last(edge: httpx.AsyncClient, token: str) -> None:
    """Signs in, where the services of a busy machine do not answer in time at first."""
    async with asyncio.timeout(30):
        while (await sign_in(edge, token)).status_code != 303:
            await asyncio.sleep(0.05)


async def send(edge: httpx.AsyncClient, path: str, page: str | None = None, **fields: Any) -> httpx.Response:
    """Sends the form of a page: with the hidden fields that it has, and these."""
    async with asyncio.timeout(30):
        while (form := await edge.get(page or path)).status_code == 503:
            await asyncio.sleep(0.05)  # on a busy machine a service does not answer in time
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form.text))
    return await edge.post(path, data={**hidden, **fields})


@asynccontextmanager
async def another_edge(nats_server: Nats, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a further edge."""
    app: Any = create_app(Settings(nats_url=nats_server.edge, **settings))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        await ready(client)
        yield client


def browser(edge: httpx.AsyncClient, address: str = "127.0.0.1") -> httpx.AsyncClient:
    """A further client of the same edge, with separate cookies.

    Args:
        address: where it connects from; failed sign-ins are counted for each address.
    """
    app = edge._transport.app  # type: ignore[attr-defined]
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 12345)), base_url=edge.base_url
    )


async def ready(edge: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await edge.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.02)


async def sign_in_and_send_token(edge: httpx.AsyncClient, operator: Client) -> None:
    """Signs in to the dashboard with an all-powerful token, which is sent with every further request too."""
    await ready(edge)
    value, _ = await issue(operator)
    await sign_in_at_last(edge, value)
    edge.headers["authorization"] = f"Bearer {value}"

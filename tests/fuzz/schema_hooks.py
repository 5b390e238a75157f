"""Loaded by schemathesis: a token of its own for every request, since some requests end the token they bring."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import schemathesis
from nats.aio.client import Client

from shared import bus
from shared.lifecycle import Stop
from tests.services.conftest import issue

T = TypeVar("T")


@schemathesis.auth(refresh_interval=None)
class FreshToken:
    """Made over NATS, so that nothing done over HTTP can end the authority it is made with."""

    def __init__(self) -> None:
        # In a thread of its own, so that the connection is alive between two requests.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        # Open until this process ends.
        self._connection = bus.connect(os.environ["FUZZED_NATS"], "operator", Stop(), wait_s=5)
        self._client = self._run(self._connect())

    async def _connect(self) -> Client:
        return await self._connection.__aenter__()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def get(self, case: Any, context: Any) -> str:
        del case, context
        value, _ = self._run(issue(self._client))
        return value

    def set(self, case: Any, data: str, context: Any) -> None:
        del context
        case.headers["Authorization"] = f"Bearer {data}"

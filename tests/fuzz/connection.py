"""A NATS connection for tests that are not asynchronous, such as those of hypothesis."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client

T = TypeVar("T")


class Connection:
    """Runs in its own thread, so that it stays alive between two requests, and ends with the process."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        prefix = f"_INBOX.{urlsplit(url).username}"
        self.client: Client = self.run(nats.connect(url, inbox_prefix=prefix))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        self.run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

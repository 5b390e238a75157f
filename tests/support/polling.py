"""Waiting until something is so."""

import asyncio
from collections.abc import Callable


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Polls a condition from outside an event loop."""
    asyncio.run(_poll(condition, timeout_s, longest_s=0.2))


async def until_async(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Polls a condition from inside an event loop."""
    await _poll(condition, timeout_s, longest_s=0.02)


async def _poll(condition: Callable[[], object], timeout_s: float, *, longest_s: float) -> None:
    """Asks less and less often: many conditions are questions that the awaited process has to answer."""
    pause = 0.01
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, longest_s)

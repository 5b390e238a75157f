"""Ending background tasks."""

import asyncio


async def cancel_and_wait(task: "asyncio.Task[None]") -> None:
    """Cancel a task repeatedly until it has ended.

    One cancellation is not enough: `asyncio.wait_for` of Python 3.11, which nats-py uses, loses a cancellation that
    coincides with the result, and an endless task would then continue.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)

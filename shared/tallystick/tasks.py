"""Ending background tasks."""

import asyncio


async def cancel_and_wait(task: "asyncio.Task[None]") -> None:
    """Cancels a task until it has ended.

    Once is not enough: nats-py's waits lose a cancellation now and then (Python 3.11's `asyncio.wait_for` does,
    when it comes together with the result), and endless work then goes on.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)

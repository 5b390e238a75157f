"""A service that reports its threads, accounts and events with the producer library.

NATS_URL=$(tallystick services add mailer) python examples/mailer.py alice bob
"""

import asyncio
import os
import sys

import nats

from tallystick import producer as events
from tallystick.contracts.events import AccountState


async def main(accounts: list[str]) -> None:
    # Endless, and with nothing kept in the connection: the library keeps what NATS has not taken, and sends it again.
    client = await nats.connect(
        os.environ["NATS_URL"], inbox_prefix="_INBOX.mailer", max_reconnect_attempts=-1, pending_size=0
    )
    # Heartbeats are sent by themselves. The source is the NATS user's name.
    async with events.producer(client, "mailer") as producer, producer.thread("sender"):
        for account in accounts:
            producer.send("account.state", AccountState(account=account, state="connected"))
            await producer.put("mail.sent", {"size": 1234})  # waits, where `send` would drop
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

"""One NATS connection, set so that a lost server is noticed within seconds and never ends the process."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nats.aio.client import Client

from shared.lifecycle import EX_UNAVAILABLE, Stop, Unavailable

log = logging.getLogger(__name__)


@asynccontextmanager
async def connect(
    url: str, name: str, stop: Stop, *, wait_s: float = 0, authority: str | None = None
) -> AsyncIterator[Client]:
    """A connection that closes with the block.

    Args:
        url: ``nats://user:password@host:port``, several separated by commas; ``tls://`` insists on encryption.
        name: shown in the server's monitoring, and this client's own inbox prefix (``_INBOX_<name>``), which
            lets NATS permissions keep one service's replies from another's eyes.
        stop: called when the connection closes for good (the server refused the credentials repeatedly).
        wait_s: how long to wait for a server at the start; 0 goes on connecting in the background, and what is
            sent before it is connected fails at once.
        authority: certificates (PEM) of those who may vouch for the servers; None for the system's.

    Raises:
        Unavailable: no server accepted the connection within ``wait_s``.
    """
    client = Client()
    closing = False

    async def disconnected() -> None:
        if not closing:
            log.warning("lost NATS; looking for it")

    async def reconnected() -> None:
        log.info("connected to NATS again")

    async def closed() -> None:
        if not closing:
            log.error("NATS closed the connection for good")
            stop(exit_code=EX_UNAVAILABLE)

    connecting = asyncio.ensure_future(
        client.connect(
            url.split(","),
            tls=_encryption(url, authority),
            name=name,
            inbox_prefix=f"_INBOX_{name}",
            connect_timeout=2,
            # A stopped server is noticed in 2 to 3 s instead of 4 minutes, and looked for endlessly.
            ping_interval=1,
            max_outstanding_pings=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # slept as float seconds
            # A request made while disconnected fails at once, instead of being carried out much later.
            pending_size=0,
            error_cb=_ignore,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            closed_cb=closed,
        )
    )
    try:
        if wait_s:
            await _wait(connecting, wait_s)
        else:
            asyncio.get_running_loop().call_later(1, _say_if_waiting, connecting)
        yield client
    finally:
        closing = True
        connecting.cancel()
        # Closing while disconnected may raise what the dead socket raised.
        with suppress(Exception):
            await asyncio.wait_for(client.close(), 2)


def _say_if_waiting(connecting: "asyncio.Future[None]") -> None:
    if not connecting.done():
        log.warning("waiting for NATS")


def _encryption(url: str, authority: str | None) -> ssl.SSLContext | None:
    if not (authority or url.startswith("tls://")):
        return None
    # nats-py reads encrypted what asyncio takes for plain, and asyncio says so at each end of a connection.
    logging.getLogger("asyncio").addFilter(_unencrypted_end)
    return ssl.create_default_context(cadata=authority)


def _unencrypted_end(record: logging.LogRecord) -> bool:
    return "eof_received" not in record.getMessage()


async def subscribed(client: Client) -> None:
    """Returns when the server has processed every subscription made so far.

    One flush is no barrier: nats-py's PING overtakes a SUB that waits in its buffer.
    """
    await client.flush(2)
    await client.flush(2)


async def _wait(connecting: "asyncio.Future[None]", wait_s: float) -> None:
    done, _ = await asyncio.wait({connecting}, timeout=1)
    if not done:
        log.warning("waiting for NATS")
        done, _ = await asyncio.wait({connecting}, timeout=wait_s)
    if not done:
        raise Unavailable(f"NATS did not accept a connection within {wait_s:g} s")
    await connecting


async def _ignore(_: Exception) -> None:
    """Errors are seen where they matter: by the caller, or as a lost connection."""

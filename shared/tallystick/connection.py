"""A NATS connection that detects a lost server within seconds and never ends the process."""

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from tallystick.errors import Unavailable

T = TypeVar("T")
log = logging.getLogger(__name__)

_DENIED = re.compile(r'permissions violation for publish to "([^"]*)"', re.IGNORECASE)
_DENIED_INBOX = re.compile(r'permissions violation for subscription to "_inbox\.', re.IGNORECASE)


class PublishDenied(Exception):
    """NATS does not permit the user of this connection to publish to the subject. A retry would not help."""


class Denials:
    """Detects which messages of a connection the server denied.

    The server answers a denied message with an error that names the subject but no request. nats-py passes it only to
    the error callback of the connection, while the sender waits for a reply until its timeout.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hooked: object = None
        self._inbox_logged = False
        self._subject = ""
        self._denied: asyncio.Future[None] | None = None

    async def publish(self, subject: str, sending: Coroutine[Any, Any, T]) -> T:
        """Awaits ``sending``, which publishes to the subject. One call at a time.

        Raises:
            PublishDenied: the server denied it.
        """
        self._hook()
        self._subject = subject.lower()
        self._denied = asyncio.get_running_loop().create_future()
        publishing = asyncio.ensure_future(sending)
        try:
            waiting: set[asyncio.Future[Any]] = {publishing, self._denied}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._denied.done():
                raise PublishDenied(subject)
            return await publishing
        finally:
            self._denied = None
            if not publishing.done():
                publishing.cancel()

    def _hook(self) -> None:
        # Not at construction: connecting sets the callback, and may come later.
        if self._client._error_cb is self._hooked:  # noqa: SLF001  # nats-py has no other way to listen for errors
            return
        previous_callback = self._client._error_cb  # noqa: SLF001

        async def on_error(error: Exception) -> None:
            denial = _DENIED.search(str(error))
            if _DENIED_INBOX.search(str(error)) and not self._inbox_logged:
                self._inbox_logged = True
                log.error(
                    "NATS does not permit this inbox: connect with inbox_prefix='_INBOX.' and the NATS user's name"
                )
            if denial and denial[1].lower() == self._subject and self._denied and not self._denied.done():
                self._denied.set_result(None)
            await previous_callback(error)

        self._hooked = self._client._error_cb = on_error  # noqa: SLF001


class _TolerantClient(Client):
    """Accepts messages whose subjects, reply subjects and headers are not valid UTF-8.

    nats-py ends its read loop at the first byte that it cannot decode, and receives nothing from then on: one message
    would silence a service.
    """

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            parsed: dict[str, str] | None = await super()._process_headers(headers)
        except Exception:  # noqa: BLE001  # the message then has no readable headers
            return None
        return parsed

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            subject=subject.decode(errors="replace"),
            reply=reply.decode(errors="replace"),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )


@asynccontextmanager
async def connect(
    url: str,
    name: str,
    on_closed: Callable[[], None] | None = None,
    *,
    wait_s: float = 0,
    authority: str | None = None,
) -> AsyncIterator[Client]:
    """Connects for as long as the block runs.

    Args:
        url: ``nats://user:password@host:port``, several separated by commas; ``tls://`` requires TLS.
        name: the NATS user's name, shown in the server's monitoring. It is part of the inbox prefix
            (``_INBOX.<name>``), so that NATS permissions can keep one user from reading another's replies.
        on_closed: called when the connection closes permanently, since the server rejected the credentials repeatedly.
        wait_s: how long to wait for a server, in seconds. With 0 it connects in the background, and sending fails until
            it is connected.
        authority: CA certificates (PEM) for verifying the servers; None for those of the system.

    Raises:
        Unavailable: no server accepted the connection within ``wait_s``.
    """
    client = _TolerantClient()
    closing = False

    async def disconnected() -> None:
        if not closing:
            log.warning("lost the connection to NATS; reconnecting")

    async def reconnected() -> None:
        log.info("reconnected to NATS")

    async def closed() -> None:
        if not closing:
            log.error("NATS closed the connection permanently")
            if on_closed is not None:
                on_closed()

    connecting = asyncio.ensure_future(
        client.connect(
            url.split(","),
            tls=_encryption(url, authority),
            name=name,
            inbox_prefix=f"_INBOX.{name}",
            connect_timeout=2,
            # A stopped server is detected within 3 s instead of 4 minutes, and reconnection never gives up.
            ping_interval=1,
            max_outstanding_pings=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # slept as float seconds
            # A request fails at once while disconnected, instead of being sent much later.
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
        # Closing while disconnected may raise the error of the lost socket.
        with suppress(Exception):
            await asyncio.wait_for(client.close(), 2)


def _say_if_waiting(connecting: "asyncio.Future[None]") -> None:
    if not connecting.done():
        log.warning("waiting for NATS")


def _encryption(url: str, authority: str | None) -> ssl.SSLContext | None:
    if not (authority or url.startswith("tls://")):
        return None
    # asyncio logs a warning at the end of each TLS connection of nats-py, which upgrades a plain one.
    logging.getLogger("asyncio").addFilter(_unencrypted_end)
    return ssl.create_default_context(cadata=authority)


def _unencrypted_end(record: logging.LogRecord) -> bool:
    return "eof_received" not in record.getMessage()


async def subscribed(client: Client) -> None:
    """Waits until the server has processed all subscriptions made so far.

    One flush is not enough: the PING of nats-py overtakes a SUB in its buffer.
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
    """Ignores errors: the caller sees them, or they are a lost connection."""

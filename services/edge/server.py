"""The HTTP server around the edge: granian, in as many worker processes as asked for."""

import multiprocessing
import os
import resource
import socket
import threading
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server import MPServer
from litestar.types import ASGIApp

from services.edge.app import create_app
from services.edge.settings import Settings
from shared import logs
from shared.lifecycle import die_with_parent
from shared.listening import resolve
from shared.settings import load

HEADER_TIMEOUT_MS = 8_000
BACKLOG = 4096
"""How many connections wait to be accepted, as far as the system allows."""
UNREAD_MS = 15_000
"""How long a client may let what it asked for lie: with requests sent ahead, it would occupy its connection for ever."""
OTHER_FILES = 200
"""What a process has open besides its connections, at most."""


class _Server(MPServer):
    """granian with one listening socket for all workers.

    By itself it opens one for each, and the connections that wait in it are reset when that worker is replaced.
    """

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        super().__init__("services.edge.server:worker", **options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._sso = None
        self._shd = SocketHolder(self._listener.fileno(), False, BACKLOG)  # type: ignore[assignment, call-arg]


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        SettingsError: the trusted proxies are no networks, or the certificate cannot be used.
        Unavailable: the address is taken, or not this machine's.
    """
    settings.trusted_networks()  # refused here, not in each worker
    certificate = settings.certificate_files()
    listener = resolve(settings.host, settings.port).open()
    # The connections inherit it: the kernel ends one whose client takes nothing any more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    listener.listen(BACKLOG)
    server = _Server(
        listener,
        workers=settings.workers,
        # What granian calls so bounds the connections, idle ones too: its default of 1024 among all workers would let
        # that many strangers keep everyone else out.
        backpressure=_connections(settings.connections),
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.uvloop,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        workers_kill_timeout=3,
        ssl_cert=certificate and certificate.chain,
        ssl_key=certificate and certificate.key,
        ssl_protocol_min=SSLProtocols.tls12 if settings.tls_min_version == "1.2" else SSLProtocols.tls13,
        log_level="warning",
    )
    if certificate:
        # On this signal granian replaces its workers one after the other, and each reads the certificate.
        renewed = server.signal_handler_reload
        threading.Thread(target=certificate.watch, args=(renewed,), daemon=True).start()
    # Its own loader imports from the current folder.
    server.serve(target_loader=worker, wrap_loader=False)


def _connections(wanted: int) -> int:
    """As many as wanted, or as the system lets a process have. The workers inherit the limit that is raised here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    return max(1, files - OTHER_FILES)


def worker() -> ASGIApp:
    """The entry point of one worker process."""
    if parent := multiprocessing.parent_process():
        die_with_parent(parent.pid or 0)
    logs.set_up("edge", load(logs.Settings, os.environ))
    return create_app(load(Settings, os.environ))

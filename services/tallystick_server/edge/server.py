"""The HTTP server around the edge: granian, in as many worker processes as asked for."""

import asyncio
import multiprocessing
import os
import resource
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server import MPServer
from litestar.types import ASGIApp

from tallystick.tokens.ids import worker_thread
from tallystick_server.edge.app import create_app
from tallystick_server.edge.certificate import Pair
from tallystick_server.edge.settings import Settings
from tallystick_server.runtime import logging as logs
from tallystick_server.runtime.lifecycle import die_with_parent
from tallystick_server.runtime.listening import resolve
from tallystick_server.runtime.settings import load

HEADER_TIMEOUT_MS = 8_000
BACKLOG = 4096
"""How many connections wait to be accepted, as far as the system allows."""
UNREAD_MS = 15_000
"""How long a client may let what it asked for lie: with requests sent ahead, it would occupy its connection for ever."""
DRAIN_S = 0.5
"""How long a worker that ends waits for requests on the connections it has just accepted."""
KEPT_PAIRS = 2
"""How many certificates stay open: a worker that is being started may still read the one before."""
OTHER_FILES = 200
"""What a process has open besides its connections, at most."""


class _Server(MPServer):
    """granian with one listening socket for all workers, and a certificate that can be replaced.

    By itself it opens a socket for each, and the connections that wait in it are reset when that worker is replaced.
    """

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        super().__init__("tallystick_server.edge.server:worker", **options)
        self._listener = listener
        self._pairs: list[Pair] = []

    def _init_shared_socket(self) -> None:
        self._sso = self._listener
        self._shd = SocketHolder(self._listener.fileno(), False, BACKLOG)  # type: ignore[assignment, call-arg]

    def use(self, pair: Pair, oldest: SSLProtocols) -> None:
        """The certificate of the workers that are started from now on."""
        self.ssl_ctx = (True, *pair.paths, None, str(oldest), None, [], False)  # type: ignore[assignment]
        self._pairs.append(pair)
        if len(self._pairs) > KEPT_PAIRS:
            self._pairs.pop(0).close()

    def replace_workers(self) -> None:
        """One after the other, each when its successor has had time to start."""
        self.signal_handler_reload()  # type: ignore[no-untyped-call]


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        SettingsError: the trusted proxies are no networks, the CORS origins are no origins, the access log cannot be
            written, or the certificate cannot be used.
        Unavailable: the address is taken, or not this machine's.
    """
    settings.trusted_networks()  # rejected here, not in each worker
    settings.allowed_origins()
    settings.access_log_file()
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
        backpressure=_connections(settings.max_connections),
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.uvloop,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        workers_kill_timeout=3,
        log_level="warning",
    )
    if certificate:
        oldest = SSLProtocols.tls12 if settings.tls_min_version == "1.2" else SSLProtocols.tls13

        def renewed(pair: Pair) -> None:
            server.use(pair, oldest)
            server.replace_workers()

        # Before it is read, so that no change is missed.
        threading.Thread(target=certificate.watch, args=(renewed,), daemon=True).start()
        server.use(certificate.load(), oldest)
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
    settings = load(Settings, os.environ)
    if settings.thread:
        number = _worker_number(settings.workers)
        settings = msgspec.structs.replace(settings, thread=worker_thread(settings.thread, number))
    loop = asyncio.get_event_loop()
    # Runs with the loop, when granian has set its own handlers.
    loop.call_soon(loop.add_signal_handler, signal.SIGTERM, _retire, loop, settings.port)
    return create_app(settings)


def _worker_number(workers: int) -> int:
    """Which of the workers this process is, from 1; one that takes another's place has its number. granian itself tells
    no application.
    """
    started: int = multiprocessing.current_process()._identity[-1]  # noqa: SLF001
    return 1 + (started - 1) % workers


def _retire(loop: asyncio.AbstractEventLoop, port: int) -> None:
    """Stop accepting, and only then have granian end this worker: it closes connections whose request has not come
    yet. The other workers, and the one that replaces this one, accept what waits in the common socket.
    """
    nothing = socket.create_server(("127.0.0.1", 0))
    nothing.setblocking(False)
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if file.is_socket() and _listens(int(file.name), port):
                # granian keeps it and waits for what comes in: from now on, nothing does.
                os.dup2(nothing.fileno(), int(file.name))
    loop.call_later(DRAIN_S, os.kill, os.getpid(), signal.SIGINT)


def _listens(descriptor: int, port: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        return (
            bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and found.getsockname()[1] == port
        )

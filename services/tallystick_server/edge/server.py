"""The edge's HTTP server: granian with the configured number of worker processes."""

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
"""Maximum number of connections that wait to be accepted; the system may allow less."""
UNREAD_MS = 15_000
"""Maximum time a response may stay unread before the connection is closed. Otherwise a client that pipelines requests and
reads nothing would occupy a connection for ever.
"""
DRAIN_S = 0.5
"""How long a stopping worker waits for requests on the connections it has just accepted."""
MAX_OPEN_PAIRS = 2
"""How many certificates stay open: a worker that is starting may still read the previous one."""
OTHER_FILES = 200
"""Maximum number of files that a process opens besides its connections."""


class _Server(MPServer):
    """granian with one listening socket for all workers, and with a replaceable certificate.

    By default granian opens a socket for each worker, and replacing a worker resets the connections waiting in its socket.
    """

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        super().__init__("tallystick_server.edge.server:worker", **options)
        self._listener = listener
        self._pairs: list[Pair] = []

    def _init_shared_socket(self) -> None:
        self._sso = self._listener
        self._shd = SocketHolder(self._listener.fileno(), False, BACKLOG)  # type: ignore[assignment, call-arg]

    def use(self, pair: Pair, oldest: SSLProtocols) -> None:
        """Sets the certificate of the workers that start from now on."""
        self.ssl_ctx = (True, *pair.paths, None, str(oldest), None, [], False)  # type: ignore[assignment]
        self._pairs.append(pair)
        if len(self._pairs) > MAX_OPEN_PAIRS:
            self._pairs.pop(0).close()

    def replace_workers(self) -> None:
        """Replaces the workers one by one, each after its successor has had time to start."""
        self.signal_handler_reload()  # type: ignore[no-untyped-call]


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        SettingsError: the trusted proxies or the CORS origins are invalid, the access log cannot be written, or the
            certificate cannot be used.
        Unavailable: the address is in use or does not belong to this machine.
    """
    settings.trusted_networks()  # validated here once, not in each worker
    settings.allowed_origins()
    settings.access_log_file()
    certificate = settings.certificate_files()
    listener = resolve(settings.host, settings.port).open()
    # Connections inherit this: the kernel closes one whose client reads nothing.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    listener.listen(BACKLOG)
    server = _Server(
        listener,
        workers=settings.workers,
        # granian's backpressure limits the connections, including idle ones. With its default of 1024 for all workers,
        # as many idle connections would block all other clients.
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

        # Watched before it is read, so that no change is missed.
        threading.Thread(target=certificate.watch, args=(renewed,), daemon=True).start()
        server.use(certificate.load(), oldest)
    # granian's own loader would import from the current folder.
    server.serve(target_loader=worker, wrap_loader=False)


def _connections(max_connections: int) -> int:
    """The number of connections that the system allows, at most the given one. Raises the limit of open files, which
    the workers inherit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max_connections + OTHER_FILES
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
    # Runs once the loop runs, after granian has set its own handlers.
    loop.call_soon(loop.add_signal_handler, signal.SIGTERM, _retire, loop, settings.port)
    return create_app(settings)


def _worker_number(workers: int) -> int:
    """The number of this worker, from 1; a replacement has the number of the worker it replaces. granian does not pass
    it to applications.
    """
    started: int = multiprocessing.current_process()._identity[-1]  # noqa: SLF001
    return 1 + (started - 1) % workers


def _retire(loop: asyncio.AbstractEventLoop, port: int) -> None:
    """Stops accepting connections, and then has granian stop this worker: granian closes connections without a request.
    The other workers, and the replacement of this one, accept the connections that wait in the shared socket.
    """
    idle = socket.create_server(("127.0.0.1", 0))
    idle.setblocking(False)
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if file.is_socket() and _listens(int(file.name), port):
                # granian continues to accept from this descriptor, which is now a socket without connections.
                os.dup2(idle.fileno(), int(file.name))
    loop.call_later(DRAIN_S, os.kill, os.getpid(), signal.SIGINT)


def _listens(descriptor: int, port: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        is_listening = bool(copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        return is_listening and copy.getsockname()[1] == port

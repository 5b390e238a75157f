"""The HTTP server around the edge: granian, in as many worker processes as asked for."""

import os
import resource
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from litestar.types import ASGIApp

from services.edge.app import create_app
from services.edge.settings import Settings
from shared import logs
from shared.lifecycle import die_with_parent
from shared.settings import load

HEADER_TIMEOUT_MS = 8_000
BACKLOG = 4096
"""How many connections wait to be accepted, as far as the system allows."""
UNREAD_MS = 15_000
"""How long a client may let what it asked for lie: with requests sent ahead, it would occupy its connection for ever."""
OTHER_FILES = 200
"""What a process has open besides its connections, at most."""


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        SettingsError: the trusted proxies are no networks, the CORS origins are no origins, the access log cannot be written, or there is a certificate without its key.
    """
    settings.trusted_networks()  # refused here, not in each worker
    settings.allowed_origins()
    settings.access_log_file()
    certificate, key = settings.certificate_files()
    Granian(
        "services.edge.server:worker",
        factory=True,
        address=settings.host,
        port=settings.port,
        workers=settings.workers,
        backlog=BACKLOG,
        # What granian calls so bounds the connections, idle ones too: its default of 1024 among all workers would let
        # that many strangers keep everyone else out.
        backpressure=_connections(settings.connections),
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.uvloop,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        workers_kill_timeout=3,
        ssl_cert=certificate,
        ssl_key=key,
        log_level="warning",  # type: ignore[arg-type]
    ).serve()


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
    die_with_parent()
    logs.set_up("edge", load(logs.Settings, os.environ))
    settings = load(Settings, os.environ)
    threading.Thread(target=_bound_unread, args=(settings.port,), daemon=True).start()
    return create_app(settings)


def _bound_unread(port: int) -> None:
    """Has the kernel end connections whose client takes nothing any more. granian opens the listening socket, from
    which they all inherit this, after the application has started, and offers no other way to it.
    """
    while not any(_bounded(file, port) for file in Path("/proc/self/fd").iterdir()):
        time.sleep(0.05)


def _bounded(file: Path, port: int) -> bool:
    with suppress(OSError):
        if file.is_socket():
            with socket.socket(fileno=os.dup(int(file.name))) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and found.getsockname()[1] == port:
                    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
                    return True
    return False

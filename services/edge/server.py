"""The HTTP server around the edge: granian, in as many worker processes as asked for."""

import os

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


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        SettingsError: the trusted proxies are no networks, or there is a certificate without its key.
    """
    settings.trusted_networks()  # refused here, not in each worker
    certificate, key = settings.certificate_files()
    Granian(
        "services.edge.server:worker",
        factory=True,
        address=settings.host,
        port=settings.port,
        workers=settings.workers,
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


def worker() -> ASGIApp:
    """The entry point of one worker process."""
    die_with_parent()
    logs.set_up("edge", load(logs.Settings, os.environ))
    return create_app(load(Settings, os.environ))

"""An embedded NATS server with JetStream, on loopback, with a user and permissions for each service."""

import asyncio
import json
import shutil
import signal
import socket
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from deploy.embedded.processes import START_S, spawn, stop
from shared.contracts import CHANGED
from shared.lifecycle import Unavailable

# Each user's permissions. Replies go to the asker's own inbox prefix; only who answers may publish there.
_INBOXES = ["_INBOX.>", "_INBOX_edge.>", "_INBOX_operator.>"]
_EVENTS = ["tallystick.events.>"]
PERMISSIONS: Mapping[str, Mapping[str, list[str]]] = {
    "edge": {
        "publish": ["tallystick.v1.>", *_EVENTS],
        "subscribe": ["_INBOX_edge.>", CHANGED],
    },
    "tokens": {
        "publish": [*_EVENTS, *_INBOXES, CHANGED],
        "subscribe": [
            "tallystick.v1.tokens.>",
            "tallystick.v1.edge.>",
            "tallystick.v1.admin.>",
            "$SRV.>",
            "_INBOX_tokens.>",
        ],
    },
    "metrics": {
        "publish": [*_EVENTS, *_INBOXES, "$JS.API.>", "$JS.ACK.>"],
        "subscribe": ["tallystick.v1.metrics.>", "$SRV.>", "_INBOX_metrics.>"],
    },
    "operator": {
        "publish": ["tallystick.v1.>", "$SRV.>"],
        "subscribe": ["_INBOX_operator.>"],
    },
    "service": {
        "publish": ["tallystick.v1.tokens.>", "$SRV.>", *_EVENTS],
        "subscribe": ["_INBOX.>"],
    },
}


def program() -> str:
    """The path of the nats-server that came with our dependencies."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is not installed beside this program")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configure(
    folder: Path,
    port: int,
    passwords: Mapping[str, str],
    permissions: Mapping[str, Mapping[str, list[str]]] = PERMISSIONS,
) -> Path:
    """Writes the server's configuration, readable by this user only, and answers its path."""
    folder.mkdir(mode=0o700, exist_ok=True)
    users = [
        {"user": user, "password": passwords[user], "permissions": allowed}
        for user, allowed in permissions.items()
    ]
    settings = {
        "server_name": "tallystick",
        "listen": f"127.0.0.1:{port}",
        "max_payload": 1 << 20,
        "ping_interval": "2s",
        "ping_max": 2,
        "jetstream": {
            "store_dir": str(folder),
            "max_mem": 64 << 20,
            "max_file": 4 << 30,
            # What was acknowledged survives a loss of power.
            "sync_interval": "always",
        },
        "authorization": {"users": users},
    }
    path = folder / "server.conf"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=1))  # NATS' format is a superset of JSON
    return path


async def start(
    configuration: Path, port: int, log: Path, *, keep_open: tuple[int, ...] = ()
) -> asyncio.subprocess.Process:
    """Starts the server and returns when it listens.

    Raises:
        Unavailable: it ended at once, or did not listen within START_S; its log says why.
    """
    deadline = asyncio.get_running_loop().time() + START_S
    with log.open("ab") as output:
        process = await spawn([program(), "-c", str(configuration)], output=output, keep_open=keep_open)
    while process.returncode is None and asyncio.get_running_loop().time() < deadline:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return process
        await asyncio.sleep(0.02)
    await stop(process, signal.SIGTERM, timeout_s=2)
    raise Unavailable(f"NATS did not start; see {log}")

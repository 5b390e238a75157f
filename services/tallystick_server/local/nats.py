"""An embedded NATS server with JetStream, on loopback, with the users of `tallystick_server.runtime.nats_permissions`."""

import asyncio
import json
import random
import shutil
import signal
import socket
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tallystick.contracts.events import EVENTS_STREAM
from tallystick.errors import Unavailable
from tallystick_server.local.processes import START_S, spawn, stopped_on_failure
from tallystick_server.runtime.nats_permissions import EVENTS, Cluster, Tls, User, settings


def program() -> str:
    """The path of nats-server, as installed with our dependencies, or else on the PATH."""
    installed = Path(sysconfig.get_path("scripts")) / "nats-server"
    path = str(installed) if installed.exists() else shutil.which("nats-server")
    if path is None:
        raise FileNotFoundError("nats-server is not installed beside this program")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lasting_port() -> int:
    """A free port that no outgoing connection of another program will take while the server is stopped.

    Raises:
        Unavailable: none was found.
    """
    try:
        first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first_outgoing = 32768
    ports = range(10_000, first_outgoing) if first_outgoing > 20_000 else range(10_000, 65_536)
    for port in random.sample(ports, 100):
        if is_free(port):
            return port
    raise Unavailable("no free port for NATS; choose one with --nats-port")


def is_free(port: int) -> bool:
    """Whether a server could listen there on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def url(user: str, password: str, *ports: int, tls: bool = False) -> str:
    """The URL of the servers that listen on these ports of loopback."""
    scheme = "tls" if tls else "nats"
    return ",".join(f"{scheme}://{user}:{password}@127.0.0.1:{port}" for port in ports)


def configure(
    folder: Path,
    port: int,
    passwords: Mapping[str, str],
    *,
    extra: Mapping[str, User] | None = None,
    name: str = "tallystick",
    tls: Tls | None = None,
    cluster: Cluster | None = None,
) -> Path:
    """Writes the server's configuration, readable by this user only, and returns its path.

    Args:
        folder: of the configuration and of JetStream's files.
        port: where it listens on loopback.
        passwords: by user.
        extra: see `tallystick_server.runtime.nats_permissions.settings`, as for the rest.
        name: the server's name.
        tls: for the clients and between the nodes.
        cluster: the other nodes.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    path, new = folder / "server.conf", folder / "server.conf.new"
    new.touch(mode=0o600)
    configuration = settings(
        passwords,
        name=name,
        listen=f"127.0.0.1:{port}",
        store=str(folder),
        extra=extra,
        tls=tls,
        cluster=cluster,
    )
    # NATS does not decode JSON escapes, so other letters must not be escaped.
    new.write_text(json.dumps(configuration, indent=1, ensure_ascii=False), encoding="utf-8")
    # A server may read it at any moment, to reload it.
    new.replace(path)
    return path


def move_stream(store: Path) -> bool:
    """Moves the event stream of an earlier version from the default account to its present one, with its messages,
    sequences and creation time. Returns whether there was one. The server must not run.

    Raises:
        Unavailable: both accounts hold a stream, since an earlier version ran after the move.
    """
    before = store / "jetstream" / "$G" / "streams" / EVENTS_STREAM
    if not before.exists():
        return False
    now = store / "jetstream" / EVENTS / "streams" / EVENTS_STREAM
    if now.exists():
        raise Unavailable(
            f"two event streams: an earlier version ran after this folder was upgraded. Move {before} away to go on "
            "without the events that it stored"
        )
    now.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    before.rename(now)
    return True


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
    async with stopped_on_failure(process, signal.SIGTERM):
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return process
            await asyncio.sleep(0.02)
        raise Unavailable(f"NATS did not start; see {log}")

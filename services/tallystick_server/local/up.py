"""`tallystick up`: PostgreSQL, NATS and every service on one machine, each in a process of its own."""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client

from tallystick import VERSION, connection as bus
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken
from tallystick.contracts.sessions import MAKE_SIGN_IN_LINK
from tallystick.errors import Unavailable
from tallystick.rpc.call import call
from tallystick_server.edge.dashboard import login_link
from tallystick_server.local import nats, postgres, stream_watch
from tallystick_server.local.data_dir import RELOAD, AlreadyRunning, DataFolder, NotOurs, Running
from tallystick_server.local.stack import RETRY_S, START_S, Servers, Start, create_token, until_ready
from tallystick_server.local.supervisor import Supervisor
from tallystick_server.local.threads import Threads
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.runtime.listening import Place, resolve

log = logging.getLogger(__name__)

LINK_S = 3600
"""How long the first start's link to the dashboard can be used."""
FIRST_START = "first start"
"""The actor in the audit who creates the admin token."""


class Options(NamedTuple):
    data_dir: Path
    host: str
    port: int
    workers: int
    nats_port: int | None = None
    """None to keep the folder's."""
    https: bool = False


async def up(options: Options, stop: Shutdown) -> None:
    """Starts all servers and services, prints their addresses, and runs until ``stop`` is requested.

    Raises:
        AlreadyRunning: another `up` uses the data folder.
        NotOurs: the data folder holds something else.
        Unavailable: the port is taken, or a server or service did not start.
    """
    folder = DataFolder(options.data_dir)
    is_new = folder.is_new()
    folder.check_not_running()
    place = _check_place(options)
    children = folder.open()
    nats_port = folder.nats_port(options.nats_port)
    if is_new:
        print(f"New data folder: {folder.path}", flush=True)
    credentials = folder.credentials()
    async with AsyncExitStack() as stack:
        configuration = nats.configure(folder.nats, nats_port, credentials.nats)
        if nats.move_stream(folder.nats):
            log.info("moved the event stream to its account")
        await postgres.initialize(
            folder.postgres,
            credentials.postgres["postgres"],
            folder.log / "postgres.log",
            keep_open=(children,),
        )
        postgres_socket = stack.enter_context(postgres.socket_folder(folder.postgres))

        servers = Servers(
            nats_url=lambda user: nats.url(user, credentials.nats[user], nats_port),
            database_url=lambda role: postgres.url(role, credentials.postgres[role], postgres_socket),
        )
        threads = Threads(folder.threads)

        def start_service(name: str, *, workers: int | None = None, **settings: str) -> Start:
            if workers is not None:
                settings["workers"] = str(workers)

            async def start() -> asyncio.subprocess.Process:
                thread = threads.started(name, workers)
                spawn = servers.service(
                    name, {**settings, "thread": thread}, inherited=_inherited(name), keep_open=(children,)
                )
                return await threads.watch(thread, spawn())

            return start

        supervisor = Supervisor(stop)
        await stack.enter_async_context(
            supervisor.child(
                "postgres",
                lambda: postgres.start(
                    folder.postgres,
                    postgres_socket,
                    credentials.postgres["postgres"],
                    folder.log / "postgres.log",
                    keep_open=(children,),
                ),
            )
        )
        nats_part = await stack.enter_async_context(
            supervisor.child(
                "nats",
                lambda: nats.start(configuration, nats_port, folder.log / "nats.log", keep_open=(children,)),
            )
        )

        def reload() -> None:
            nats.configure(folder.nats, nats_port, folder.credentials().nats)
            with suppress(ProcessLookupError):
                nats_part.process.send_signal(signal.SIGHUP)

        asyncio.get_running_loop().add_signal_handler(RELOAD, reload)
        reporting = await stack.enter_async_context(
            bus.connect(servers.nats_url("up"), "up", stop.unavailable, wait_s=START_S)
        )
        await stack.enter_async_context(threads.published(reporting))
        await postgres.provision(postgres_socket, credentials.postgres["postgres"], credentials.postgres)
        for name, start in (
            ("metrics", start_service("metrics")),
            ("tokens", start_service("tokens")),
            (
                "edge",
                start_service("edge", workers=options.workers, host=place.address, port=str(options.port)),
            ),
        ):
            await stack.enter_async_context(supervisor.child(name, start))

        async with bus.connect(
            servers.nats_url("operator"), "operator", stop.unavailable, wait_s=START_S
        ) as client:
            await _ready(client, place, https=options.https)
            token, link = await _first_token(client)
        http = place.url("https" if options.https else "http")
        await stack.enter_async_context(
            stream_watch.watching(servers.nats_url("operator"), folder.nats, nats_part, stop)
        )
        folder.announce(
            Running(
                pid=os.getpid(),
                http=http,
                nats=f"127.0.0.1:{nats_port}",
                operator_url=servers.nats_url("operator"),
                service_url=servers.nats_url("service"),
            )
        )
        stack.callback(folder.withdraw)
        _greet(http, folder.path, token, link)
        await stop.wait()


async def _ready(client: Client, place: Place, *, https: bool) -> None:
    """Waits until all services answer.

    Raises:
        Unavailable: not within START_S.
    """
    async with _in_time():
        await until_ready(client)
        while not await _answers(place, https=https):
            await asyncio.sleep(RETRY_S)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Raises:
    Unavailable: the block has not ended within START_S.
    """
    try:
        async with asyncio.timeout(START_S):
            yield
    except TimeoutError:
        raise Unavailable(f"not every service answered within {START_S:g} s") from None


async def _answers(place: Place, *, https: bool) -> bool:
    """Whether the edge reports that it is ready."""
    tls = None
    if https:
        # No secret is sent, and the certificate may be for other names or be replaced at this moment.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(place.reachable, place.port, ssl=tls)
            writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    return False


async def _first_token(client: Client) -> tuple[str, str] | tuple[None, None]:
    """Creates the admin token if there is no token yet, and returns it with the secret of a one-time login link."""
    admin = NewToken(description="admin, made at the first start", scopes=("*",))
    async with _in_time():
        created = await create_token(client, admin, by=FIRST_START, first_only=True)
    if isinstance(created, Failure):
        if created.code != "conflict":
            raise Unavailable(f"the first token could not be created: {created.message}")
        return None, None
    secret, token = created
    link = login_link.new(token.id, Actor(name=FIRST_START), seconds=LINK_S)
    await call(client, MAKE_SIGN_IN_LINK, link.request)
    return secret.value, link.secret


def _greet(http: str, data: Path, token: str | None, link: str | None) -> None:
    lines = [f"Tallystick {VERSION} is up at {http} (data in {data}). Ctrl-C stops it."]
    if token and link:
        lines += [
            "",
            f"  Your admin token, shown this once:  {token}",
            "",
            f"  The dashboard, signed in once within the hour:  {http}{login_link.path(link)}",
            f'  The API:  curl -H "Authorization: Bearer {token}" {http}/v1/stats',
        ]
    else:
        lines += [
            f"The dashboard is at {http}/admin; 'tallystick tokens login-link ID' prints a link that signs in a token with",
            "the scope admin or *. If you have none, 'tallystick tokens create --scope \"*\"' creates it.",
        ]
    print("\n".join(lines), flush=True)


def _inherited(service: str) -> dict[str, str]:
    """The environment of this process. Only the tokens service gets the prepared token."""
    environment = dict(os.environ)
    if service != "tokens":
        environment.pop("TALLYSTICK_PREPARED_TOKEN", None)
        environment.pop("TALLYSTICK_PREPARED_TOKEN_FILE", None)
    return environment


def _check_place(options: Options) -> Place:
    """Raises:
    Unavailable: nothing can listen there.
    """
    place = resolve(options.host, options.port)
    try:
        place.open().close()
    except Unavailable as error:
        raise Unavailable(f"{error}; choose another port with --port, or address with --host") from None
    return place


__all__ = ["AlreadyRunning", "NotOurs", "Options", "up"]

"""`tallystick up`: PostgreSQL, NATS and every service on one machine, each in a process of its own."""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client

from tallystick import VERSION, connection as bus
from tallystick.contracts.metrics import EXPOSITION, TOKENS_STATS, AskExposition, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken
from tallystick.contracts.sessions import MAKE_SIGN_IN_LINK
from tallystick.contracts.tokens import CREATE_TOKEN, CreateToken
from tallystick.errors import Unavailable
from tallystick.rpc.call import call
from tallystick.tasks import ended_by_cancelling
from tallystick.tokens import format as token_format
from tallystick_server.edge.dashboard import login_link
from tallystick_server.local import nats, postgres, processes, stream_watch
from tallystick_server.local.data_dir import RELOAD, AlreadyRunning, DataFolder, NotOurs, Running
from tallystick_server.local.threads import Threads
from tallystick_server.runtime.lifecycle import EX_CONFIG, EX_DATAERR, EX_SOFTWARE, Stop
from tallystick_server.runtime.listening import Place, resolve

log = logging.getLogger(__name__)

START_S = 60.0
BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LINK_S = 3600
"""How long the first start's link to the dashboard can be used."""
STEADY_S = 10.0
"""A child that ran this long is started again at once when it dies."""

Start = Callable[[], Awaitable[asyncio.subprocess.Process]]


class Options(NamedTuple):
    data_dir: Path
    host: str
    port: int
    workers: int
    nats_port: int | None = None
    """None to keep the folder's."""
    https: bool = False


async def up(options: Options, stop: Stop) -> None:
    """Starts everything, says where it is, and runs until ``stop``.

    Raises:
        AlreadyRunning: on the same data folder.
        NotOurs: the data folder is another program's.
        Unavailable: the port is taken, or something did not start.
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

        nats_address = f"127.0.0.1:{nats_port}"

        def nats_url(user: str) -> str:
            return f"nats://{user}:{credentials.nats[user]}@{nats_address}"

        threads = Threads(folder.threads)

        def start_service(service: str, *, workers: int | None = None, **settings: str) -> Start:
            if workers is not None:
                settings["workers"] = str(workers)

            async def start() -> asyncio.subprocess.Process:
                thread = threads.started(service, workers)
                spawning = processes.spawn(
                    processes.service_command(service),
                    environment=_environment(service, nats_url(service), {**settings, "thread": thread}),
                    keep_open=(children,),
                )
                return await threads.watch(thread, spawning)

            return start

        def database_url(role: str) -> str:
            return postgres.url(role, credentials.postgres[role], postgres_socket)

        supervised = _Supervisor(stop)
        await stack.enter_async_context(
            supervised.child(
                "postgres",
                lambda: postgres.start(
                    folder.postgres,
                    postgres_socket,
                    credentials.postgres["postgres"],
                    folder.log / "postgres.log",
                    keep_open=(children,),
                ),
                signal.SIGINT,
            )
        )
        nats_process = await stack.enter_async_context(
            supervised.child(
                "nats",
                lambda: nats.start(configuration, nats_port, folder.log / "nats.log", keep_open=(children,)),
                signal.SIGTERM,
            )
        )

        def reload() -> None:
            nats.configure(folder.nats, nats_port, folder.credentials().nats)
            with suppress(ProcessLookupError):
                nats_process[0].send_signal(signal.SIGHUP)

        asyncio.get_running_loop().add_signal_handler(RELOAD, reload)
        reporting = await stack.enter_async_context(
            bus.connect(nats_url("up"), "up", stop.unavailable, wait_s=START_S)
        )
        await stack.enter_async_context(threads.published(reporting))
        await postgres.provision(postgres_socket, credentials.postgres["postgres"], credentials.postgres)
        for service, start in (
            (
                "metrics",
                start_service(
                    "metrics", database_url=database_url("metrics"), events_nats_url=nats_url("events")
                ),
            ),
            ("tokens", start_service("tokens", database_url=database_url("tokens"))),
            (
                "edge",
                start_service("edge", workers=options.workers, host=place.address, port=str(options.port)),
            ),
        ):
            await stack.enter_async_context(supervised.child(service, start, signal.SIGTERM))

        async with bus.connect(nats_url("operator"), "operator", stop.unavailable, wait_s=START_S) as client:
            await _ready(client, place, https=options.https)
            token, link = await _first_token(client)
        http = place.url("https" if options.https else "http")
        await stack.enter_async_context(
            stream_watch.watching(nats_url("operator"), folder.nats, nats_process, stop)
        )
        folder.announce(
            Running(
                pid=os.getpid(),
                http=http,
                nats=nats_address,
                operator_url=nats_url("operator"),
                service_url=nats_url("service"),
            )
        )
        stack.callback(folder.withdraw)
        _greet(http, folder.path, token, link)
        await stop.wait()


class _Supervisor:
    """Starts children again when they die, ever more slowly if they keep dying."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    @asynccontextmanager
    async def child(
        self, name: str, start: Start, stop_signal: signal.Signals
    ) -> AsyncIterator[Sequence[asyncio.subprocess.Process]]:
        """Keeps a child running for as long as the block does; answers a list of one, the process that runs now."""
        current = [await start()]
        watching = asyncio.create_task(self._watch(name, start, current))
        try:
            yield current
        finally:
            await ended_by_cancelling(watching)
            await processes.stop(current[0], stop_signal, timeout_s=3)

    async def _watch(self, name: str, start: Start, current: list[asyncio.subprocess.Process]) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            started = loop.time()
            code = await current[0].wait()
            if code in {EX_CONFIG, EX_DATAERR}:
                # It said what is wrong with its settings; another try would say the same.
                self._stop(exit_code=code)
                return
            if loop.time() - started > STEADY_S:
                deaths = 0
            log.warning("%s ended (%s); starting it again", name, code)
            await asyncio.sleep(BACK_OFF_S[min(deaths, len(BACK_OFF_S) - 1)])
            deaths += 1
            try:
                current[0] = await start()
            except (OSError, Unavailable) as error:
                log.error("%s: %s", name, error)  # noqa: TRY400  # the next round tries again
                self._stop(exit_code=EX_SOFTWARE) if deaths > len(BACK_OFF_S) else None


async def _ready(client: Client, place: Place, *, https: bool) -> None:
    """Returns when all services answer.

    Raises:
        Unavailable: not within START_S.
    """
    try:
        async with asyncio.timeout(START_S):
            await _all_answer(client, place, https=https)
    except TimeoutError:
        raise Unavailable(f"not every service answered within {START_S:g} s") from None


async def _all_answer(client: Client, place: Place, *, https: bool) -> None:
    while isinstance(await call(client, TOKENS_STATS, AskTokensStats()), Failure):
        await asyncio.sleep(0.02)
    while isinstance(await call(client, EXPOSITION, AskExposition()), Failure):
        await asyncio.sleep(0.02)
    while not await _answers(place, https=https):
        await asyncio.sleep(0.02)


async def _answers(place: Place, *, https: bool) -> bool:
    """Whether the edge says that it is ready."""
    tls = None
    if https:
        # Nothing secret is asked, of a server of our own: its certificate may be for other names, or be renewed now.
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
    """Makes the admin token if there never was a token; answers it and the secret of a link that signs in once."""
    secret = token_format.new_secret()
    made = await call(
        client,
        CREATE_TOKEN.by_operator,
        CreateToken(
            token=NewToken(description="admin, made at the first start", scopes=("*",)),
            digest=secret.digest,
            hint=secret.hint,
            actor=Actor(name="first start"),
            first_only=True,
        ),
    )
    if isinstance(made, Failure):
        if made.code != "conflict":
            raise Unavailable(f"the first token could not be made: {made.message}")
        return None, None
    link = login_link.new(made.token.id, Actor(name="first start"), seconds=LINK_S)
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
            f"The dashboard is at {http}/admin; 'tallystick tokens sign-in ID' prints a link that signs in a token with",
            "the scope admin or *. If you have none, 'tallystick tokens issue --scope \"*\"' creates it.",
        ]
    print("\n".join(lines), flush=True)


def _environment(service: str, nats_url: str, settings: dict[str, str]) -> dict[str, str]:
    """This process's own environment with what `up` decides put over it."""
    decided = {"nats_url": nats_url, **settings}
    environment = dict(os.environ)
    for name, value in decided.items():
        environment[f"TALLYSTICK_{name.upper()}"] = value
        environment.pop(f"TALLYSTICK_{name.upper()}_FILE", None)
    environment["PYTHONPATH"] = processes.python_path(environment.get("PYTHONPATH", ""))
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

"""A cluster on this machine, as processes on loopback, to try what several machines would do.

    python -m tallystick_server.local.cluster [--tls] [--edges 3] [--tokens 2] [--metrics 2]       until Ctrl-C

Three NATS nodes replicate the event stream; PostgreSQL has a synchronous standby, so that no committed change, such as a
revocation, is lost when the standby takes over.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg

from tallystick import connection as bus
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import NewToken
from tallystick.errors import Unavailable
from tallystick_server.local import nats, postgres, processes
from tallystick_server.local.stack import START_S, Servers, Stack, Start, create_token, until_ready
from tallystick_server.runtime import AUTHORITY_SCRIPT
from tallystick_server.runtime.lifecycle import Shutdown, run
from tallystick_server.runtime.nats_permissions import USERS, Cluster, Tls

NODES = 3


class Options(NamedTuple):
    edges: int = 3
    tokens: int = 2
    metrics: int = 2
    tls: bool = False
    """Of NATS and the edges. The PostgreSQL that comes along was built without it."""
    lease_s: float = 5


class Running(Stack):
    """A running cluster.

    Args:
        folder: its data and logs.
        options: the options of the command.
        ports: where the edges listen.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        super().__init__()
        self.folder = folder
        self.options = options
        self.ports = [nats.free_port() for _ in range(options.edges)]
        self.nats_ports = [nats.free_port() for _ in range(NODES)]
        self.postgres_ports = [nats.free_port() for _ in range(2)]
        self.passwords = {user: f"{user}{os.urandom(8).hex()}" for user in USERS}
        self.roles = {user: os.urandom(8).hex() for user in ("postgres", *postgres.ROLES)}

    @property
    def authority(self) -> str | None:
        return (self.folder / "tls/authority.pem").read_text() if self.options.tls else None

    def nats_url(self, user: str) -> str:
        return nats.url(user, self.passwords[user], *self.nats_ports, tls=self.options.tls)

    def database_url(self, role: str) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.postgres_ports)
        return (
            f"postgresql://{role}:{self.roles[role]}@{hosts}/{postgres.DATABASE}"
            "?target_session_attrs=read-write"
        )

    def socket(self, number: int) -> Path:
        return self.folder / f"pg{number}"

    async def sql(self, number: int, statement: str) -> object:
        """Runs a statement on one of the PostgreSQL servers as the superuser, and returns its value."""
        connection = await asyncpg.connect(
            postgres.url(
                "postgres",
                self.roles["postgres"],
                self.socket(number),
                "postgres",
                self.postgres_ports[number],
            ),
            timeout=5,
        )
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def fail_over(self) -> None:
        """Promotes the standby. On real machines, what decides this has to ensure first that the primary is gone, as
        Patroni, CloudNativePG and managed PostgreSQL do.
        """
        await self.sql(1, "select pg_promote()")


@asynccontextmanager
async def cluster(options: Options, folder: Path) -> AsyncIterator[Running]:
    """Runs a cluster for as long as the block does."""
    running = Running(folder, options)
    async with AsyncExitStack() as stack:
        # A primary waits for a running standby, so the standby stops first.
        stack.push_async_callback(running.stop)
        if options.tls:
            await _make_certificates(folder / "tls")
        await _start_postgres(running)
        await _start_nats(running)
        await _start_services(running)
        yield running


async def _make_certificates(folder: Path) -> None:
    command = ["sh", str(AUTHORITY_SCRIPT), str(folder)]
    names = (f"{name}=localhost,127.0.0.1" for name in ("nats", "edge"))
    process = await processes.spawn([*command, *names])
    if await process.wait() != 0:
        raise Unavailable("the certificates could not be created")


async def _start_postgres(running: Running) -> None:
    """Starts a primary and a synchronous standby."""
    password, log = running.roles["postgres"], running.folder / "postgres.log"
    options = {"listen_addresses": "127.0.0.1", "max_connections": "100"}

    def server(number: int) -> Start:
        data, port = running.socket(number), running.postgres_ports[number]
        return lambda: postgres.start(data, data, password, log, port=port, options=options)

    await postgres.initialize(running.socket(0), password, log)
    await running.start("postgres 0", server(0))
    port = running.postgres_ports[0]
    await postgres.provision(running.socket(0), password, running.roles, port=port)
    primary = f"host={running.socket(0)} port={port} user=postgres password={password}"
    with log.open("ab") as output:
        copying = await processes.spawn(
            processes.unprivileged(
                [
                    postgres.program("pg_basebackup"),
                    f"--pgdata={running.socket(1)}",
                    f"--dbname={primary}",
                    "--write-recovery-conf",
                    "--checkpoint=fast",
                ]
            ),
            output=output,
        )
    if await copying.wait() != 0:
        raise Unavailable(f"the standby could not be created; see {log}")
    await running.start("postgres 1", server(1))
    await running.sql(0, "alter system set synchronous_standby_names = 'ANY 1 (*)'")
    await running.sql(0, "select pg_reload_conf()")


async def _start_nats(running: Running) -> None:
    among = [nats.free_port() for _ in range(NODES)]
    password = os.urandom(8).hex()
    tls = running.folder / "tls"
    for number, port in enumerate(running.nats_ports):
        configuration = nats.configure(
            running.folder / f"nats{number}",
            port,
            running.passwords,
            name=f"nats-{number}",
            tls=Tls(tls / "nats.pem", tls / "nats.key", tls / "authority.pem")
            if running.options.tls
            else None,
            cluster=Cluster(
                listen=f"127.0.0.1:{among[number]}",
                routes=[f"nats://route:{password}@127.0.0.1:{other}" for other in among],
                password=password,
            ),
        )
        await running.start(f"nats {number}", _nats(configuration, port, running.folder / "nats.log"))


def _nats(configuration: Path, port: int, log: Path) -> Start:
    return lambda: nats.start(configuration, port, log)


async def _start_services(running: Running) -> None:
    options, tls = running.options, running.folder / "tls"
    common = {"nats_ca_file": f"{tls}/authority.pem"} if options.tls else {}
    https = (
        {"tls_cert_file": f"{tls}/edge.pem", "tls_key_file": f"{tls}/edge.key"}
        if options.tls
        else {}
    )  # fmt: skip

    servers = Servers(running.nats_url, running.database_url)

    def start(name: str, **settings: str) -> Start:
        return servers.service(name, common | settings, output=running.folder / "services.log")

    for number in range(options.metrics):
        await running.start(f"metrics {number}", start("metrics", stream_replicas=str(NODES)))
    for number in range(options.tokens):
        await running.start(f"tokens {number}", start("tokens", cache_lease_s=str(options.lease_s)))
    for number, port in enumerate(running.ports):
        await running.start(f"edge {number}", start("edge", port=str(port), **https))


async def first_token(running: Running) -> str:
    """Creates an admin token as soon as the services answer.

    Raises:
        Unavailable: they do not answer within START_S.
    """
    url = running.nats_url("operator")
    try:
        async with (
            asyncio.timeout(START_S),
            bus.connect(url, "operator", wait_s=20, authority=running.authority) as client,
        ):
            await until_ready(client)
            created = await create_token(
                client, NewToken(description="admin", scopes=("*",)), by="first start"
            )
    except TimeoutError:
        raise Unavailable("not every service answered") from None
    if isinstance(created, Failure):
        raise Unavailable(f"the first token could not be created: {created.message}")
    secret, _ = created
    return secret.value


async def serve(options: Options, stop: Shutdown) -> None:
    with tempfile.TemporaryDirectory(prefix="tally-") as folder:
        async with cluster(options, Path(folder)) as running:
            token = await first_token(running)
            scheme = "https" if options.tls else "http"
            for port in running.ports:
                print(f"edge    {scheme}://127.0.0.1:{port}")
            print(f"NATS    {running.nats_url('service')}\ndata    {folder}\ntoken   {token}", flush=True)
            await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("edges", "tokens", "metrics"):
        parser.add_argument(f"--{name}", type=int, default=Options._field_defaults[name])
    parser.add_argument(
        "--tls", action="store_true", help="encrypt what goes to and between NATS nodes and to the edges"
    )
    options = Options(**vars(parser.parse_args()))
    raise SystemExit(asyncio.run(run(lambda stop: serve(options, stop), grace_s=30)))


if __name__ == "__main__":
    main()

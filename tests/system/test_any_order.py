"""The services start in any order and wait for what they need."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import httpx

from tallystick_server.local import postgres, processes
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.servers import Database, start_nats
from tests.support.up import environment, run


@contextmanager
def serve(service: str, folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{service}.output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tallystick_server", "serve", service],
            cwd=ROOT,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(10) == 0, (folder / f"{service}.output").read_text()


async def fetch_status(client: httpx.AsyncClient, path: str) -> int | None:
    """The status of the response to a well-formed, unknown token; None without a response."""
    try:
        response = await client.get(path, headers={"authorization": f"Bearer {'f' * 64}"})
    except httpx.TransportError:
        return None
    return response.status_code


@asynccontextmanager
async def start_postgres(data: Path, passwords: Mapping[str, str]) -> AsyncIterator[None]:
    log = data.with_suffix(".log")
    await postgres.initialize(data, passwords["postgres"], log)
    process = await postgres.start(data, data, passwords["postgres"], log)
    try:
        await postgres.provision(data, passwords["postgres"], passwords)
        yield
    finally:
        await processes.stop(process, signal.SIGINT, timeout_s=5)


async def test_services_wait_for_servers_that_start_later(folder: Path):
    nats_port, port, data = free_port(), free_port(), folder / "postgres"
    passwords = {user: f"{user}-password" for user in ("postgres", *postgres.ROLES)}

    def settings(service: str) -> dict[str, str]:
        nats_url = f"nats://{service}:{service}-password@127.0.0.1:{nats_port}"
        if service == "edge":
            return {"nats_url": nats_url, "port": str(port)}
        database_url = postgres.url(service, passwords[service], data)
        stream = {"events_nats_url": nats_url.replace("metrics", "events")} if service == "metrics" else {}
        return {"nats_url": nats_url, "database_url": database_url, **stream}

    with ExitStack() as services:
        for service in ("edge", "tokens", "metrics"):
            services.enter_context(serve(service, folder, **settings(service)))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def until_status(path: str, status: int) -> None:
                async with asyncio.timeout(20):
                    while await fetch_status(client, path) != status:
                        await asyncio.sleep(0.05)

            async def until_503() -> None:
                await until_status("/health/live", 200)
                await until_status("/health/ready", 503)
                await until_status("/v1/stats", 503)

            await until_503()
            async with start_nats(folder / "nats", port=nats_port):
                await until_503()
                async with start_postgres(data, passwords):
                    await until_status("/health/ready", 200)
                    await until_status("/v1/stats", 401)


def test_a_service_exits_with_an_error_after_its_startup_timeout(database: Database):
    nats_url = f"nats://tokens:x@127.0.0.1:{free_port()}"
    result = run("serve", "tokens", nats_url=nats_url, database_url=database.tokens, startup_timeout_s="0.5")
    assert result.returncode == 69
    assert "NATS did not accept a connection" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_migrates_the_schema(database: Database):
    for service in ("tokens", "metrics"):
        migrated = run("migrate", service, database_url=database.tokens)
        assert (migrated.returncode, migrated.stdout) == (0, f"{service}: up to date\n")


async def test_a_schema_newer_than_the_program_is_reported_in_one_line(database: Database):
    connection = await asyncpg.connect(database.owner)
    for service in ("tokens", "metrics"):
        await connection.execute(
            f"insert into {service}.migration values (9999, 'newer', '')"  # noqa: S608  # one of two
        )
    await connection.close()
    for service in ("tokens", "metrics"):
        for command in ("serve", "migrate"):
            settings = {"nats_url": "nats://127.0.0.1:1"} if command == "serve" else {}
            result = await asyncio.to_thread(run, command, service, database_url=database.tokens, **settings)
            assert result.returncode == 70
            assert "newer" in result.stderr
            assert "Traceback" not in result.stderr


def test_an_unavailable_postgres_is_reported(folder: Path):
    url = postgres.url("tokens", "x", folder, "tokens")
    result = run("serve", "tokens", nats_url="nats://127.0.0.1:1", database_url=url, startup_timeout_s="0.5")
    assert result.returncode == 69
    assert "PostgreSQL was not ready" in result.stderr
    assert "Traceback" not in result.stderr

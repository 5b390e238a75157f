"""The services start in any order and wait for what they need."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from deploy.embedded import postgres, processes
from deploy.embedded.nats import free_port
from tests.conftest import Database, start_nats
from tests.system.conftest import ROOT, environment, run


@contextmanager
def serving(service: str, folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{service}.output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services", "serve", service],
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


async def asked(client: httpx.AsyncClient, path: str) -> int | None:
    """The status of an answer to a well-formed, unknown token; None where there is no answer."""
    try:
        answer = await client.get(path, headers={"authorization": f"Bearer {'f' * 64}"})
    except httpx.TransportError:
        return None
    return answer.status_code


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


async def test_services_wait_for_servers_that_come_later(folder: Path):
    nats_port, port, data = free_port(), free_port(), folder / "postgres"
    passwords = {user: f"{user}-password" for user in ("postgres", *postgres.ROLES)}

    def settings(service: str) -> dict[str, str]:
        nats_url = f"nats://{service}:{service}-password@127.0.0.1:{nats_port}"
        if service == "edge":
            return {"nats_url": nats_url, "port": str(port)}
        return {"nats_url": nats_url, "database_url": postgres.url(service, passwords[service], data)}

    with ExitStack() as services:
        for service in ("edge", "tokens", "metrics"):
            services.enter_context(serving(service, folder, **settings(service)))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def answers(path: str, status: int) -> None:
                async with asyncio.timeout(20):
                    while await asked(client, path) != status:
                        await asyncio.sleep(0.05)

            async def answers_503() -> None:
                await answers("/health/live", 200)
                await answers("/health/ready", 503)
                await answers("/v1/stats", 503)

            await answers_503()
            async with start_nats(folder / "nats", port=nats_port):
                await answers_503()
                async with start_postgres(data, passwords):
                    await answers("/health/ready", 200)
                    await answers("/v1/stats", 401)
                    services.close()


def test_a_service_that_waits_too_long_says_so_and_exits(database: Database):
    nats_url = f"nats://tokens:x@127.0.0.1:{free_port()}"
    ended = run("serve", "tokens", nats_url=nats_url, database_url=database.tokens, wait_s="0.5")
    assert ended.returncode == 69
    assert "NATS did not accept a connection" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_migrating_is_also_a_command(database: Database):
    for service in ("tokens", "metrics"):
        migrated = run("migrate", service, database_url=database.tokens)
        assert (migrated.returncode, migrated.stdout) == (0, f"{service}: up to date\n")

"""Encrypted between the parts, with certificates from `deploy/authority`."""

import asyncio
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from deploy.embedded import nats as embedded_nats
from deploy.embedded.processes import spawn
from deploy.nats_server import USERS, Tls
from shared import bus
from shared.lifecycle import Stop, Unavailable
from tests.ports import free_port
from tests.system.conftest import ROOT, environment, run


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    names = ["nats=localhost,127.0.0.1", "edge=localhost,127.0.0.1", "elsewhere=elsewhere.example"]
    subprocess.run(["sh", str(ROOT / "deploy/authority"), str(folder), *names], check=True)
    return folder


def server_certificate(folder: Path, name: str) -> Tls:
    return Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "authority.pem")


@pytest.fixture(params=["nats"])
async def address(tmp_path: Path, certificates: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where a NATS listens that shows the certificate of this name."""
    port = free_port()
    configuration = embedded_nats.configure(
        tmp_path / "nats",
        port,
        {user: f"{user}-password" for user in USERS},
        tls=server_certificate(certificates, request.param),
    )
    process = await embedded_nats.start(configuration, port, tmp_path / "log")
    yield f"127.0.0.1:{port}"
    process.kill()
    await process.wait()


async def reached(url: str, authority: str | None) -> bool:
    try:
        async with bus.connect(url, "operator", Stop(), wait_s=1, authority=authority) as client:
            return bool(client.is_connected)
    except Unavailable:
        return False


async def test_nats_takes_a_new_certificate_without_a_restart(tmp_path: Path, certificates: Path):
    port = free_port()
    shown = Tls(tmp_path / "shown.pem", tmp_path / "shown.key", certificates / "authority.pem")

    def show(name: str) -> None:
        for kind in ("pem", "key"):
            shutil.copy(certificates / f"{name}.{kind}", tmp_path / f"shown.{kind}")

    show("elsewhere")
    passwords = {user: f"{user}-password" for user in USERS}
    configuration = embedded_nats.configure(tmp_path / "nats", port, passwords, tls=shown)
    process = await embedded_nats.start(configuration, port, tmp_path / "log")
    url = f"tls://operator:operator-password@127.0.0.1:{port}"
    authority = (certificates / "authority.pem").read_text()
    assert not await reached(url, authority)
    show("nats")
    process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(10):
        while not await reached(url, authority):
            await asyncio.sleep(0.05)
    process.kill()
    await process.wait()


async def test_with_the_authority_nats_is_reached_and_without_it_is_not(address: str, certificates: Path):
    authority = (certificates / "authority.pem").read_text()
    url = f"tls://operator:operator-password@{address}"
    assert await reached(url, authority)
    assert not await reached(url, None)
    assert not await reached(url.replace("tls://", "nats://"), None)


@pytest.mark.parametrize("address", ["elsewhere"], indirect=True)
async def test_a_certificate_for_another_host_will_not_do(address: str, certificates: Path):
    authority = (certificates / "authority.pem").read_text()
    assert not await reached(f"tls://operator:operator-password@{address}", authority)


async def test_the_edge_speaks_https(certificates: Path):
    port = free_port()
    settings = {"certificate": f"{certificates}/edge.pem", "certificate_key": f"{certificates}/edge.key"}
    process = await spawn(
        [sys.executable, "-m", "services", "serve", "edge"],
        environment={
            **environment(nats_url="nats://127.0.0.1:1", port=str(port), **settings),
            "PYTHONPATH": str(ROOT),
        },
    )
    context = ssl.create_default_context(cafile=certificates / "authority.pem")
    try:
        async with httpx.AsyncClient(verify=context, trust_env=False) as client, asyncio.timeout(20):
            while not await alive(client, f"https://localhost:{port}"):
                await asyncio.sleep(0.05)
            assert not await alive(client, f"http://localhost:{port}")
    finally:
        process.terminate()
        await process.wait()


async def alive(client: httpx.AsyncClient, base: str) -> bool:
    try:
        return (await client.get(f"{base}/health/live")).status_code == 200
    except httpx.TransportError:
        return False


def test_a_certificate_needs_its_key(certificates: Path):
    ended = run("serve", "edge", nats_url="nats://127.0.0.1:1", certificate=f"{certificates}/edge.pem")
    assert ended.returncode == 78
    assert "belong together" in ended.stderr


@pytest.mark.parametrize("logs", ["text", "json"])
def test_no_password_is_in_the_log_of_who_cannot_connect(logs: str):
    ended = run(
        "serve",
        "tokens",
        nats_url="nats://tokens:bus-secret@127.0.0.1:1",
        database_url="postgresql://tokens:base-secret@127.0.0.1:1/tallystick",
        wait_s="0.5",
        logs=logs,
    )
    assert ended.returncode == 69
    assert "PostgreSQL" in ended.stderr
    assert "secret" not in ended.stderr + ended.stdout

"""The containers of deploy/kubernetes, run with the manifest's command, user, files and probes."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tallystick_server.local import nats, postgres, processes
from tallystick_server.runtime.nats_permissions import USERS
from tests.deploy.containers import IS_ROOT, Container, container, pod
from tests.support.ports import free_port

PARTS = ("tokens", "metrics", "edge")


@pytest.fixture
async def secret_settings(tmp_path: Path) -> AsyncIterator[dict[str, dict[str, str]]]:
    """The secrets of each part, for a running NATS and PostgreSQL."""
    log, data, password = tmp_path / "log", tmp_path / "pg", secrets.token_hex(8)
    users = {user: secrets.token_hex(8) for user in USERS}
    roles = {role: secrets.token_hex(8) for role in postgres.ROLES}
    port, database_port = free_port(), free_port()
    nats_server = await nats.start(nats.configure(tmp_path / "nats", port, users), port, log)
    try:
        await postgres.initialize(data, password, log)
        # Over TCP, as the manifests say.
        options = {"listen_addresses": "127.0.0.1"}
        with postgres.socket_folder(data) as socket:
            database = await postgres.start(data, socket, password, log, port=database_port, options=options)
            try:
                await postgres.provision(socket, password, roles, port=database_port)
                nats_urls = {user: f"nats://{user}:{users[user]}@127.0.0.1:{port}" for user in users}
                yield {
                    "edge": {"nats_url": nats_urls["edge"]},
                    **{
                        role: {
                            "nats_url": nats_urls[role],
                            "database_url": f"postgresql://{role}:{roles[role]}@127.0.0.1:{database_port}/tallystick",
                        }
                        for role in roles
                    },
                    "events": {"events_nats_url": nats_urls["events"]},
                }
            finally:
                await processes.stop(database, signal.SIGINT, 5)
    finally:
        await processes.stop(nats_server, signal.SIGTERM, 5)


async def test_each_container_runs_passes_its_probes_and_stops(
    secret_settings: dict[str, dict[str, str]], tmp_path: Path
):
    secret_settings["metrics"] |= secret_settings.pop("events")
    with ExitStack() as stack:
        containers = {}
        for part in PARTS:
            folder = tmp_path / part
            folder.mkdir()
            # Three replicas of the stream would require three nodes of NATS.
            settings = {"stream_replicas": "1"} if part == "metrics" else {}
            context = container(part, folder, secret_settings[part], free_port(), **settings)
            containers[part] = stack.enter_context(context)
        for instance in containers.values():
            await wait_for_startup(instance)
        for part, instance in containers.items():
            assert instance.passes("livenessProbe"), part
            assert "readinessProbe" not in instance.spec or instance.passes("readinessProbe"), part
            assert instance.run("touch", "/new") != 0
            assert instance.run("touch", "/code/new") != 0
            assert instance.run("touch", "/secrets/new") != 0
            status = instance.status()
            assert status["NSpid"].split()[-1] == "1"
            assert status["NoNewPrivs"] == "1"
            assert int(status["CapBnd"], 16) == 0
            assert not IS_ROOT or (int(status["CapEff"], 16), status["Uid"].split()) == (0, ["10001"] * 4)
        for part in reversed(PARTS):
            assert (
                await asyncio.to_thread(containers[part].stop, pod(part)["terminationGracePeriodSeconds"])
                == 0
            )


async def wait_for_startup(instance: Container) -> None:
    """Waits until the startup probe passes, at most as long as a kubelet would."""
    probe = instance.spec["startupProbe"]
    async with asyncio.timeout(probe["periodSeconds"] * probe["failureThreshold"]):
        while not await asyncio.to_thread(instance.passes, "startupProbe"):
            assert instance.process.poll() is None
            await asyncio.sleep(0.1)

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
async def given(tmp_path: Path) -> AsyncIterator[dict[str, dict[str, str]]]:
    """The secrets of each part, for a NATS and a PostgreSQL that run."""
    log, data, password = tmp_path / "log", tmp_path / "pg", secrets.token_hex(8)
    users = {user: secrets.token_hex(8) for user in USERS}
    roles = {role: secrets.token_hex(8) for role in postgres.ROLES}
    port, database_port = free_port(), free_port()
    bus = await nats.start(nats.configure(tmp_path / "nats", port, users), port, log)
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
        await processes.stop(bus, signal.SIGTERM, 5)


async def test_each_container_runs_passes_its_probes_and_ends(
    given: dict[str, dict[str, str]], tmp_path: Path
):
    given["metrics"] |= given.pop("events")
    with ExitStack() as stack:
        running = {}
        for part in PARTS:
            folder = tmp_path / part
            folder.mkdir()
            # Three copies of the stream want three nodes of NATS.
            settings = {"stream_replicas": "1"} if part == "metrics" else {}
            made = container(part, folder, given[part], free_port(), **settings)
            running[part] = stack.enter_context(made)
        for one in running.values():
            await started(one)
        for part, one in running.items():
            assert one.passes("livenessProbe"), part
            assert "readinessProbe" not in one.spec or one.passes("readinessProbe"), part
            assert one.run("touch", "/new") != 0
            assert one.run("touch", "/code/new") != 0
            assert one.run("touch", "/secrets/new") != 0
            status = one.status()
            assert status["NSpid"].split()[-1] == "1"
            assert status["NoNewPrivs"] == "1"
            assert int(status["CapBnd"], 16) == 0
            assert not IS_ROOT or (int(status["CapEff"], 16), status["Uid"].split()) == (0, ["10001"] * 4)
        for part in reversed(PARTS):
            assert (
                await asyncio.to_thread(running[part].stop, pod(part)["terminationGracePeriodSeconds"]) == 0
            )


async def started(one: Container) -> None:
    """Returns when its startup probe passes, as soon as a kubelet demands it."""
    probe = one.spec["startupProbe"]
    async with asyncio.timeout(probe["periodSeconds"] * probe["failureThreshold"]):
        while not await asyncio.to_thread(one.passes, "startupProbe"):
            assert one.process.poll() is None
            await asyncio.sleep(0.1)

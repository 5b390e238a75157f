"""The processes that `up` starts are counted as their parent observes them, whatever is killed."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import pytest

from tallystick import connection as bus
from tallystick.contracts.metrics import EXPOSITION, AskExposition, Exposition
from tallystick.metrics import catalogue
from tallystick.rpc.call import call
from tallystick_server.local import processes, supervisor, threads as module
from tallystick_server.local.supervisor import Supervisor
from tallystick_server.local.threads import Journal, Threads
from tallystick_server.runtime.lifecycle import Shutdown
from tests.support.ports import free_port
from tests.support.up import environment

STARTS, STOPS, LOST = catalogue.THREAD_STARTS.name, catalogue.THREAD_STOPS.name, catalogue.THREADS_LOST.name
OWN = 1
"""The metrics service counts itself."""
AT_ONCE_S = 2
KILLS = 20


async def metric_values(operator) -> dict[str, float]:
    reply = await call(operator, EXPOSITION, AskExposition())
    assert isinstance(reply, Exposition)
    lines = (line.rpartition(" ") for line in reply.text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def until_counted(operator, timeout_s: float = 10, **expected: float) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not expected.items() <= (values := await metric_values(operator)).items():
        assert asyncio.get_running_loop().time() < deadline, {name: values.get(name) for name in expected}
        await asyncio.sleep(0.02)


@asynccontextmanager
async def publishing(threads: Threads, nats_server):
    async with bus.connect(nats_server.up, "up", wait_s=10) as client, threads.published(client):
        yield


async def test_a_process_that_is_killed_at_once_counts_as_started_and_stopped(
    metrics_service, nats_server, operator, tmp_path: Path, monkeypatch
):
    """A service is killed twenty times before it can report anything."""
    monkeypatch.setattr(supervisor, "BACK_OFF_S", (0.0,))
    threads = Threads(tmp_path / "threads.json")
    spawned: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        thread = threads.started("tokens")
        spawning = processes.spawn([sys.executable, "-m", "tallystick_server", "serve", "tokens"])
        spawned.append(await threads.watch(thread, spawning))
        return spawned[-1]

    async with publishing(threads, nats_server):
        async with Supervisor(Shutdown()).child("tokens", start):
            for number in range(KILLS):
                while len(spawned) <= number:
                    await asyncio.sleep(0.001)
                spawned[number].kill()
                await until_counted(operator, AT_ONCE_S, **{STOPS: number + 1})
            await until_counted(operator, **{STARTS: OWN + KILLS + 1, STOPS: KILLS, LOST: KILLS})
            assert len(spawned) == KILLS + 1
        await until_counted(operator, AT_ONCE_S, **{STARTS: OWN + KILLS + 1, STOPS: KILLS + 1})


async def test_workers_are_threads_that_stop_with_their_process(
    metrics_service, nats_server, operator, tmp_path: Path
):
    threads = Threads(tmp_path / "threads.json")
    async with publishing(threads, nats_server):
        thread = threads.started("edge", workers=3)
        child = await threads.watch(thread, processes.spawn(["sleep", "60"]))
        await until_counted(operator, **{STARTS: OWN + 3, STOPS: 0, 'threads{type="edge",recent="yes"}': 3})
        child.terminate()
        await until_counted(operator, AT_ONCE_S, **{STARTS: OWN + 3, STOPS: 3, LOST: 0})


async def test_an_edge_s_workers_use_the_thread_ids_of_up(
    metrics_service, nats_server, operator, database, tmp_path: Path
):
    """The workers send heartbeats with the ids that `up` reports; the edge stops if one is killed."""
    threads = Threads(tmp_path / "threads.json")
    async with publishing(threads, nats_server):
        thread = threads.started("edge", workers=2)
        settings = {"thread": thread, "nats_url": nats_server.edge, "port": str(free_port()), "workers": "2"}
        child = await threads.watch(
            thread,
            processes.spawn(
                [sys.executable, "-m", "tallystick_server", "serve", "edge"],
                environment=environment(**settings),
            ),
        )
        async with asyncio.timeout(30), asyncpg.create_pool(database.metrics, min_size=1) as pool:
            while await alive(pool) != {f"{thread}.1", f"{thread}.2"}:
                await asyncio.sleep(0.05)
        await until_counted(operator, **{STARTS: OWN + 2, STOPS: 0})
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()
        os.kill(int(children.split()[-1]), signal.SIGKILL)
        await until_counted(operator, **{STARTS: OWN + 2, STOPS: 2, LOST: 2})


async def alive(pool: asyncpg.Pool) -> set[str]:
    """The edge's threads that have sent a heartbeat."""
    rows = await pool.fetch("select thread from metrics.thread where type = 'edge' and seen > started")
    return {row["thread"] for row in rows}


async def test_a_process_that_cannot_be_started_counts_as_stopped(
    metrics_service, nats_server, operator, tmp_path: Path
):
    threads = Threads(tmp_path / "threads.json")
    async with publishing(threads, nats_server):
        thread = threads.started("edge")
        with pytest.raises(FileNotFoundError):
            await threads.watch(thread, processes.spawn(["no-such-program"]))
        await until_counted(operator, **{STARTS: OWN + 1, STOPS: 1, LOST: 1})


@pytest.mark.parametrize("acknowledged", [False, True], ids=["before NATS had it", "after NATS had it"])
async def test_threads_of_a_killed_up_count_as_stopped_once(
    metrics_service, nats_server, operator, tmp_path: Path, *, acknowledged: bool
):
    file = tmp_path / "threads.json"
    threads = Threads(file)
    threads.started("tokens")
    content = file.read_bytes()
    if acknowledged:  # and killed before the file was updated
        async with publishing(threads, nats_server):
            await until_counted(operator, **{STARTS: OWN + 1})
    for _ in range(2):  # the next start is killed too
        file.write_bytes(content)
        async with publishing(Threads(file), nats_server):
            await until_counted(operator, **{STARTS: OWN + 1, STOPS: 1, LOST: 1})
    async with publishing(Threads(file), nats_server):
        await until_counted(operator, **{STARTS: OWN + 1, STOPS: 1, LOST: 1, catalogue.GAPS.name: 0})
    journal = msgspec.json.decode(file.read_bytes(), type=Journal)
    assert (journal.running, journal.unsent) == ({}, [])


async def test_reports_wait_for_nats_in_a_bounded_buffer(
    metrics_service, nats_server, operator, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(module, "MAX_UNSENT", 20)
    threads = Threads(tmp_path / "threads.json")
    for _ in range(15):
        threads.ended(threads.started("tokens"), unexpected=False)
    late = threads.started("tokens")
    async with publishing(threads, nats_server):
        await until_counted(operator, **{STARTS: OWN + 10, STOPS: 10})
        threads.ended(late, unexpected=False)
        # The first number after the dropped reports shows how many were dropped.
        await until_counted(operator, **{catalogue.GAPS.name: 11, STOPS: 11})


async def test_a_file_that_cannot_be_read_is_replaced(tmp_path: Path, caplog):
    file = tmp_path / "threads.json"
    file.write_text('{"running":')
    thread = Threads(file).started("tokens")
    assert "count as stopped when their heartbeats are missed" in caplog.text
    assert msgspec.json.decode(file.read_bytes(), type=Journal).running == {thread: [thread]}

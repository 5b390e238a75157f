"""A data folder that the version before made works on: its tokens, its counters, and the events not counted yet.

`data/version_0_1.sql` is what pg_dump said of one, `data/version_0_1.json` has the tokens that it gave out. The stream is
made here as that version had it, in NATS' default account, since its messages expire.
"""

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path

import asyncpg
import nats
from nats.js.api import DiscardPolicy, StreamConfig

from deploy.data_folder import DataFolder
from deploy.embedded import nats as embedded_nats
from deploy.embedded import postgres
from deploy.embedded.processes import spawn
from shared.contracts import EVENTS_STREAM
from tests.conftest import until
from tests.ports import free_port
from tests.system.conftest import Up

DATA = Path(__file__).parent / "data"
OUTBOX = "outbox_844aa977722848e9be8656efc2b7d005"
"""The boot of its announcements, of which nine were counted."""


async def make_folder(path: Path) -> None:
    folder = DataFolder(path)
    folder.log.mkdir(parents=True)
    passwords = folder.credentials().postgres
    log = folder.log / "postgres.log"
    await postgres.initialize(folder.postgres, passwords["postgres"], log)
    server = await postgres.start(folder.postgres, folder.postgres, passwords["postgres"], log)
    try:
        await postgres.provision(folder.postgres, passwords["postgres"], passwords)
        owner = postgres.url("postgres", passwords["postgres"], folder.postgres)
        psql = [postgres.program("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", owner]
        restored = await spawn([*psql, "-f", str(DATA / "version_0_1.sql")])
        assert await restored.wait() == 0
        created = await make_stream(folder)
        connection = await asyncpg.connect(owner)
        await connection.execute("update metrics.stream_position set created = $1, seq = 1", created)
        await connection.execute("delete from metrics.recount")
        await connection.close()
    finally:
        server.send_signal(2)
        await server.wait()


async def make_stream(folder: DataFolder) -> datetime:
    """The stream in the default account: one event that was counted, and three that were not. Its time of creation."""
    folder.nats.mkdir()
    port = free_port()
    configuration = folder.nats / "server.conf"
    users = [{"user": "metrics", "password": "x"}]
    configuration.write_text(
        json.dumps(
            {
                "listen": f"127.0.0.1:{port}",
                "jetstream": {"store_dir": str(folder.nats), "sync_interval": "always"},
                "authorization": {"users": users},
            }
        )
    )
    server = await embedded_nats.start(configuration, port, folder.log / "nats.log")
    client = await nats.connect(f"nats://metrics:x@127.0.0.1:{port}")
    stream = client.jetstream()
    made = await stream.add_stream(
        StreamConfig(name=EVENTS_STREAM, subjects=["tallystick.events.>"], discard=DiscardPolicy.NEW)
    )
    for n in (9, 10, 11, 12):
        event: dict[str, object] = {"source": "tokens", "boot": OUTBOX, "n": n, "type": "account.added"}
        event["data"] = {"account": f"late{n}"}
        await stream.publish("tallystick.events.account.added", json.dumps(event).encode())
    await client.close()
    server.kill()
    await server.wait()
    assert isinstance(made.created, datetime)
    return made.created


def test_a_data_folder_of_the_version_before_works_on(folder: Path):
    asyncio.run(make_folder(folder / "data"))
    tokens = json.loads((DATA / "version_0_1.json").read_text())
    up = Up(folder / "data").start().ready()
    try:
        assert "moved the event stream" in up.printed

        def status(token: str, target: str, **headers: str) -> int:
            with up.client(tokens[token]) as client:
                code: int = client.get(target, headers=headers).status_code
            return code

        assert status("admin", "/v1/tokens") == 200
        assert status("alice", "/auth?scope=orders&account=alice") == 200
        assert status("alice", "/auth?scope=orders&account=bob") == 403
        assert status("stars", "/auth?scope=web", referer="https://bababababababababab.example/x") == 200
        assert status("stars", "/auth?scope=web", referer="https://elsewhere.example/x") == 403
        assert status("successor", "/v1/stats") == 200
        assert status("revoked", "/v1/stats") == 401

        def counted() -> dict[str, int]:
            with up.client(tokens["admin"]) as client:
                page = client.get("/metrics").text
            return {
                name: int(re.findall(rf"^{name} (\d+)$", page, re.MULTILINE)[0])
                for name in (
                    "tallystick_accounts_added_total",
                    "tallystick_event_gaps_total",
                    "thread_starts",
                )
            }

        # One was counted before; the three in the stream are counted now, and what is announced from now on.
        expected = {
            "tallystick_accounts_added_total": 4,
            "tallystick_event_gaps_total": 0,
            "thread_starts": 6,
        }
        until(lambda: counted() == expected, 15)
        with up.client(tokens["admin"]) as client:
            assert client.post("/v1/account", json={"account": "new"}).status_code == 200
        expected["tallystick_accounts_added_total"] = 5
        until(lambda: counted() == expected, 15)
    finally:
        up.stop()

"""A data folder of an earlier version still works: its tokens, its counters, and the events that are not yet counted.

`data/*.sql` is the output of pg_dump, `data/*.json` has the tokens that the version issued. The stream is created here as
in that version, since its messages expire.
"""

import asyncio
import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import nats
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from tallystick.contracts.events import EVENTS_STREAM
from tallystick_server.local import nats as embedded_nats, postgres
from tallystick_server.local.data_dir import DataFolder
from tallystick_server.local.processes import spawn
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.up import Up

DATA = Path(__file__).parent / "data"


class Version(NamedTuple):
    """Args:
    name: the name of its files.
    outbox: the boot of its outbox events, of which nine were counted and three not yet.
    account: the NATS account of its JetStream; None for the default one.
    subject: where its tokens service published that an account was added.
    invalid: its tokens that were revoked or disabled.
    has_digest: whether it stored the digest of the message that was counted last.
    """

    name: str
    outbox: str
    account: str | None
    subject: str
    invalid: tuple[str, ...]
    has_digest: bool


VERSIONS = (
    Version(
        "version_0_1",
        "outbox_844aa977722848e9be8656efc2b7d005",
        None,
        "tallystick.events.account.added",
        ("revoked",),
        has_digest=False,
    ),
    Version(
        "version_0_1_accounts",
        "outbox_b01c91c13f4c44e79348ad41b5156772",
        "EVENTS",
        "tallystick.events.tokens.account.added",
        ("revoked", "disabled"),
        has_digest=True,
    ),
)


class LastCounted(NamedTuple):
    """The message of a stream that was counted last."""

    stream_created: datetime
    stored: datetime
    digest: bytes


async def make_folder(path: Path, version: Version) -> None:
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
        restored = await spawn([*psql, "-f", str(DATA / f"{version.name}.sql")])
        assert await restored.wait() == 0
        last_counted = await make_stream(folder, version)
        connection = await asyncpg.connect(owner)
        await connection.execute(
            "update metrics.stream_position set created = $1, seq = 1", last_counted.stream_created
        )
        if version.has_digest:
            await connection.execute(
                "update metrics.stream_position set digest = $1, digest_seq = 1, stored = $2",
                last_counted.digest,
                last_counted.stored,
            )
        await connection.execute("delete from metrics.recount")
        await connection.close()
    finally:
        server.send_signal(2)
        await server.wait()


async def make_stream(folder: DataFolder, version: Version) -> LastCounted:
    """The stream: one event that was counted, and three that were not."""
    folder.nats.mkdir()
    port = free_port()
    configuration = folder.nats / "server.conf"
    users: dict[str, Any] = {"users": [{"user": "metrics", "password": "x"}]}
    accounts = {version.account: {**users, "jetstream": "enabled"}} if version.account else {}
    configuration.write_text(
        json.dumps(
            {
                "listen": f"127.0.0.1:{port}",
                "jetstream": {"store_dir": str(folder.nats), "sync_interval": "always"},
                **({"accounts": accounts} if accounts else {"authorization": users}),
            }
        )
    )
    server = await embedded_nats.start(configuration, port, folder.log / "nats.log")
    client = await nats.connect(f"nats://metrics:x@127.0.0.1:{port}")
    stream = client.jetstream()
    info = await stream.add_stream(
        StreamConfig(name=EVENTS_STREAM, subjects=["tallystick.events.>"], discard=DiscardPolicy.NEW)
    )
    assert isinstance(info.created, datetime)
    for n in (9, 10, 11, 12):
        event: dict[str, object] = {
            "source": "tokens",
            "boot": version.outbox,
            "n": n,
            "type": "account.added",
        }
        event["data"] = {"account": f"late{n}"}
        await stream.publish(version.subject, json.dumps(event).encode())
    # As it was delivered to the consumer: a message that is read by its number has its time rounded differently.
    delivered = await stream.subscribe("tallystick.events.>", ordered_consumer=True)
    first = await delivered.next_msg(10)
    stored = first.metadata.timestamp
    digest = hashlib.sha256(f"1 {stored.isoformat()} {version.subject}\n".encode() + first.data).digest()
    await client.close()
    server.kill()
    await server.wait()
    return LastCounted(info.created, stored, digest)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_data_folder_of_an_earlier_version_still_works(folder: Path, version: Version):
    asyncio.run(make_folder(folder / "data", version))
    tokens = json.loads((DATA / f"{version.name}.json").read_text())
    up = Up(folder / "data").start().ready()
    try:
        assert ("moved the event stream" in up.printed) == (version.account is None)

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
        for token in version.invalid:
            assert status(token, "/v1/stats") == 401

        def counters() -> dict[str, int]:
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

        # One was counted before; the three in the stream and all later ones are counted now.
        expected = {
            "tallystick_accounts_added_total": 4,
            "tallystick_event_gaps_total": 0,
            "thread_starts": 6,
        }
        until(lambda: counters() == expected, 15)
        with up.client(tokens["admin"]) as client:
            assert client.post("/v1/account", json={"account": "new"}).status_code == 200
        expected["tallystick_accounts_added_total"] = 5
        until(lambda: counters() == expected, 15)
    finally:
        up.stop()

"""NATS permissions: the table in the docs, and every user's attempts, tested on a server."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError, TimeoutError as NatsTimeoutError

from tallystick.contracts.events import EVENTS_STREAM, STREAM_CONSUMER
from tallystick_server.local import nats as embedded_nats
from tallystick_server.metrics.consumer import ensure_stream
from tallystick_server.runtime import nats_permissions as nats_server
from tallystick_server.runtime.nats_permissions import CORE, USERS, User
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.servers import Nats, start_nats

SUBJECTS = nats_server.subjects()


def test_the_docs_contain_the_table():
    page = (ROOT / "docs/permissions.md").read_text()
    assert nats_server.table() in page, (
        "run: python -m tallystick_server.runtime.nats_permissions, and put it into docs/permissions.md"
    )


@pytest.mark.parametrize("user", USERS)
async def test_every_user_has_the_permissions_of_the_table(user: str, tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        for direction in ("publish", "subscribe"):
            allowed = await allowed_subjects(urls, user, direction)
            assert allowed == [
                subject for subject in SUBJECTS if nats_server.allows(USERS[user], direction, subject)
            ], direction


@pytest.mark.parametrize("user", USERS)
async def test_no_user_may_subscribe_to_everything_or_to_other_inboxes(user: str, tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        patterns = [">", "*.>", "tallystick.>", "_INBOX.>", "_INBOX.*.>", "$JS.>", "_R_.>"]
        others = [f"_INBOX.{other}.>" for other in USERS if other != user]
        assert await allowed_subjects(urls, user, "subscribe", patterns + others) == []


async def allowed_subjects(
    urls: Nats, user: str, direction: str, subjects: list[str] | None = None
) -> list[str]:
    denied: list[str] = []

    async def deny(error: Exception) -> None:
        text = str(error).lower()
        assert "permissions violation" in text
        denied.append(text)

    client = await nats.connect(urls.url(user), error_cb=deny)
    act: dict[str, Callable[[str], Awaitable[object]]] = {
        "publish": lambda subject: client.publish(subject, b"{}"),
        "subscribe": client.subscribe,
    }
    subjects = subjects or SUBJECTS
    for subject in subjects:
        await act[direction](subject)
    # The server processes messages in order: after two replies it has authorized everything before.
    await client.flush()
    await client.flush()
    await client.close()
    return [subject for subject in subjects if not any(f'"{subject.lower()}"' in text for text in denied)]


def requester(client: Client) -> Callable[..., Awaitable[Any]]:
    async def request(subject: str, body: object = None) -> Any:
        payload = b"" if body is None else msgspec.json.encode(body)
        return msgspec.json.decode((await client.request(subject, payload, timeout=5)).data)

    return request


async def test_an_operator_may_send_the_read_requests_of_the_nats_command(
    nats_server: Nats, operator: Client, tokens_service, event_stream
):
    """The requests of `nats server ping|info|report`, `nats stream|consumer ls|info|report` and `nats micro ls|info|stats`."""
    request = requester(operator)
    ping = await request("$SYS.REQ.SERVER.PING")
    assert ping["server"]["name"] == "tallystick"
    assert ping["statsz"]["connections"] > 0
    info = await request("$SYS.REQ.SERVER.PING.VARZ", {"server_name": "tallystick"})
    assert info["data"]["server_name"] == "tallystick"
    streams = await request("$SYS.REQ.SERVER.PING.JSZ", {"accounts": True, "streams": True, "config": True})
    assert streams["data"]["streams"] == 1
    routes = await request("$SYS.REQ.SERVER.PING.ROUTEZ")
    connections = await request("$SYS.REQ.SERVER.PING.CONNZ", {"auth": True, "subscriptions": True})
    connected = {connection["authorized_user"] for connection in connections["data"]["connections"]}
    assert (
        {"operator", "tokens"} <= connected <= {name for name, user in USERS.items() if user.account == CORE}
    )
    assert "password" not in str((ping, info, streams, routes, connections))

    stream = {"offset": 0}
    assert (await request("$JS.API.INFO"))["streams"] == 1
    assert (await request("$JS.API.STREAM.NAMES", stream))["streams"] == [EVENTS_STREAM]
    (listed,) = (await request("$JS.API.STREAM.LIST", stream))["streams"]
    info = await request(f"$JS.API.STREAM.INFO.{EVENTS_STREAM}")
    assert listed["config"]["name"] == info["config"]["name"] == EVENTS_STREAM
    jetstream = await nats.connect(nats_server.jetstream)
    await jetstream.jetstream().add_consumer(EVENTS_STREAM, durable_name=STREAM_CONSUMER)
    await jetstream.close()
    assert (await request(f"$JS.API.CONSUMER.NAMES.{EVENTS_STREAM}", stream))["consumers"] == [
        STREAM_CONSUMER
    ]
    (consumer,) = (await request(f"$JS.API.CONSUMER.LIST.{EVENTS_STREAM}", stream))["consumers"]
    assert consumer["name"] == STREAM_CONSUMER
    info = await request(f"$JS.API.CONSUMER.INFO.{EVENTS_STREAM}.{STREAM_CONSUMER}")
    assert info["name"] == STREAM_CONSUMER

    info = await request("$SRV.INFO")
    assert info["name"] == "tallystick-tokens"
    for verb in ("PING", "INFO", "STATS"):
        reply = await request(f"$SRV.{verb}.{info['name']}.{info['id']}")
        assert (reply["name"], reply["id"]) == (info["name"], info["id"])


CHANGES = {
    f"$JS.API.STREAM.UPDATE.{EVENTS_STREAM}": {"name": EVENTS_STREAM, "subjects": ["other"]},
    f"$JS.API.STREAM.PURGE.{EVENTS_STREAM}": {},
    f"$JS.API.STREAM.DELETE.{EVENTS_STREAM}": {},
    f"$JS.API.STREAM.MSG.DELETE.{EVENTS_STREAM}": {"seq": 1},
    f"$JS.API.STREAM.MSG.GET.{EVENTS_STREAM}": {"seq": 1},
    f"$JS.API.STREAM.SNAPSHOT.{EVENTS_STREAM}": {"deliver_subject": "_INBOX.edge.x"},
    f"$JS.API.STREAM.LEADER.STEPDOWN.{EVENTS_STREAM}": {},
    "$JS.API.STREAM.CREATE.other": {"name": "other", "subjects": ["other"]},
    f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}.other": {
        "stream_name": EVENTS_STREAM,
        "config": {"name": "other", "deliver_subject": "_INBOX.edge.x"},
    },
    f"$JS.API.CONSUMER.DELETE.{EVENTS_STREAM}.{STREAM_CONSUMER}": {},
    "$JS.API.META.LEADER.STEPDOWN": {},
    "$SYS.REQ.SERVER.PING.HEALTHZ": {},
    "$SYS.REQ.SERVER.PING.SUBSZ": {},
    "$SYS.REQ.SERVER.{id}.KICK": {"cid": 1},
    "$SYS.REQ.SERVER.{id}.LDM": {"cid": 1},
    "$SYS.REQ.SERVER.{id}.RELOAD": {},
    "$SYS.REQ.SERVER.{id}.VARZ": {},
    "$SYS.REQ.CLAIMS.UPDATE": {},
}


async def test_the_operator_s_account_can_change_neither_the_stream_nor_a_server(tmp_path: Path):
    """Whatever its users may publish: the account imports nothing else."""
    everything = {"operator": User(CORE, [">"], [">"])}
    async with start_nats(tmp_path / "nats", extra=everything) as urls:
        events = await nats.connect(urls.jetstream)
        await ensure_stream(events, max_bytes=1 << 20)
        await events.jetstream().add_consumer(EVENTS_STREAM, durable_name=STREAM_CONSUMER)
        await events.jetstream().publish("tallystick.events.x.mail.sent", b"{}")
        before = await events.jetstream().stream_info(EVENTS_STREAM)
        client = await nats.connect(urls.operator)
        server = (await requester(client)("$SYS.REQ.SERVER.PING"))["server"]["id"]
        for subject, body in CHANGES.items():
            with pytest.raises(NoRespondersError):
                await client.request(subject.replace("{id}", server), msgspec.json.encode(body), timeout=5)
        assert await events.jetstream().stream_info(EVENTS_STREAM) == before
        assert [info.config.name for info in await events.jetstream().streams_info()] == [EVENTS_STREAM]
        await client.close()
        await events.close()


async def responding_servers(client: Client, subject: str) -> set[str]:
    """The servers that reply to one request."""
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish(subject, b"", reply=inbox)
    servers = set()
    with suppress(NatsTimeoutError):
        while True:
            servers.add(msgspec.json.decode((await replies.next_msg(0.2)).data)["server"]["name"])
    await replies.unsubscribe()
    return servers


async def test_every_server_of_a_cluster_replies_to_the_operator(tmp_path: Path):
    ports = [free_port() for _ in range(2)]
    routes = [f"127.0.0.1:{free_port()}" for _ in ports]
    processes = []
    try:
        for port, listen in zip(ports, routes, strict=True):
            others = [f"nats://route:x@{route}" for route in routes if route != listen]
            path = embedded_nats.configure(
                tmp_path / listen,
                port,
                dict.fromkeys(USERS, "x"),
                name=f"nats-{port}",
                cluster=nats_server.Cluster(listen, others, "x"),
            )
            processes.append(await embedded_nats.start(path, port, tmp_path / "log"))
        client = await nats.connect(f"nats://operator:x@127.0.0.1:{ports[0]}", inbox_prefix="_INBOX.operator")
        async with asyncio.timeout(20):
            while await responding_servers(client, "$SYS.REQ.SERVER.PING") != {
                f"nats-{port}" for port in ports
            }:
                pass
        await client.close()
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def test_a_reload_adds_the_operator_s_read_permissions(tmp_path: Path):
    """An upgrade of an installation reloads NATS, whose former configuration lacks them."""
    port = free_port()
    passwords = dict.fromkeys(USERS, "x")
    path = embedded_nats.configure(tmp_path / "nats", port, passwords)
    after = path.read_text()
    before = json.loads(after)
    del before["accounts"][nats_server.SYSTEM]
    for account in before["accounts"].values():
        for key in ("imports", "exports"):
            account[key] = [entry for entry in account.get(key, ()) if "$" not in str(entry)]
    path.write_text(json.dumps(before))
    process = await embedded_nats.start(path, port, tmp_path / "log")
    try:
        client = await nats.connect(f"nats://operator:x@127.0.0.1:{port}", inbox_prefix="_INBOX.operator")
        with pytest.raises(NoRespondersError):
            await client.request("$SYS.REQ.SERVER.PING", timeout=5)
        path.write_text(after)
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            for subject in ("$SYS.REQ.SERVER.PING", "$JS.API.INFO"):
                while True:
                    with suppress(NoRespondersError):
                        await client.request(subject, timeout=5)
                        break
        assert (await requester(client)("$JS.API.INFO"))["streams"] == 0
        await client.close()
    finally:
        process.kill()
        await process.wait()


async def test_an_events_operator_may_read_and_delete_the_stream(nats_server: Nats, event_stream):
    """The requests of `nats stream info`, `view` and `rm`."""
    client = await nats.connect(nats_server.events_operator, inbox_prefix="_INBOX.events-operator")
    stream = client.jetstream()
    service = await nats.connect(nats_server.service, inbox_prefix="_INBOX.service")
    await service.jetstream().publish("tallystick.events.service.mail.sent", b"{}")
    await service.close()
    assert (await stream.stream_info(EVENTS_STREAM)).state.messages == 1
    view = await stream.subscribe("tallystick.events.service.>", ordered_consumer=True)
    assert (await view.next_msg(2)).data == b"{}"
    assert await stream.delete_stream(EVENTS_STREAM)
    await client.close()

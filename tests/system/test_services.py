"""NATS users for third-party services: added, used and removed without a restart."""

import asyncio
import hashlib
import json
from urllib.parse import urlsplit

import nats
import pytest

from tallystick import producer as events
from tallystick.contracts.events import AccountState
from tests.support.polling import until
from tests.support.up import Up, run


async def report(url: str, user: str, *, source: str) -> int:
    """Sends an event from this source and returns how many were dropped."""
    client = await nats.connect(url, inbox_prefix=f"_INBOX.{user}")
    async with events.producer(client, source) as producer:
        producer.send("account.state", AccountState(account="alice", state="connected"))
        await producer.drain()
    await client.close()
    return producer.dropped


async def verify(url: str, user: str, token: str) -> str:
    client = await nats.connect(url, inbox_prefix=f"_INBOX.{user}")
    payload = json.dumps({"digest": hashlib.sha256(token.encode()).hexdigest()}).encode()
    reply = await client.request("tallystick.v1.tokens.verify", payload, timeout=10)
    await client.close()
    return str(json.loads(reply.data)["code"])


def test_an_added_service_verifies_tokens_and_sends_events_under_its_name(up: Up):
    result = up.command("services", "add", "mailer")
    url = result.stdout.strip()
    assert (result.returncode, url.partition(":")[0]) == (0, "nats"), result.stderr
    assert up.command("services", "add", "mailer").stdout.strip() == url
    assert up.command("nats-url", "--role", "mailer").stdout.strip() == url
    assert up.command("services", "list").stdout == "mailer\n"
    assert asyncio.run(verify(url, "mailer", up.admin_token)) == "active"
    assert asyncio.run(report(url, "mailer", source="mailer.sender")) == 0
    assert asyncio.run(report(url, "mailer", source="another")) == 1
    with up.client(up.admin_token) as admin:
        until(lambda: 'events{event="account.state"} 1\n' in admin.get("/metrics").text)


@pytest.mark.parametrize("role", ["operator", "events-operator", "service", "parts"])
def test_credentials_are_printed_separately_for_clients_without_url_credentials(up: Up, role: str):
    assert up.running
    up.command("services", "add", "parts")
    printed = up.command("nats-url", "--role", role, "--json").stdout
    login = json.loads(printed)
    assert login == {
        "servers": [f"nats://{up.running.nats}"],
        "user": role,
        "password": login["password"],
        "inboxPrefix": f"_INBOX.{role}",
    }

    async def subscribe() -> None:
        client = await nats.connect(
            login["servers"],
            user=login["user"],
            password=login["password"],
            inbox_prefix=login["inboxPrefix"],
        )
        # The server processes messages in order: after two replies it has authorized the subscription.
        await client.subscribe(client.new_inbox())
        await client.flush()
        await client.flush()
        assert client.last_error is None
        await client.close()

    asyncio.run(subscribe())
    url = up.command("nats-url", "--role", role).stdout.strip()
    assert url == login["servers"][0].replace("//", f"//{role}:{login['password']}@")


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A connection with the plain NATS protocol, and the server's reply to the user and password."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await reader.readline()
    login = {"user": parts.username, "pass": parts.password, "verbose": False, "pedantic": False}
    writer.write(b"CONNECT %s\r\nPING\r\n" % json.dumps(login).encode())
    return reader, writer, await reader.readline()


def test_a_removed_service_is_disconnected_and_cannot_connect(up: Up):
    url = up.command("services", "add", "shop").stdout.strip()

    async def check_disconnection() -> None:
        reader, writer, reply = await connect(url)
        assert reply == b"PONG\r\n"
        result = await asyncio.to_thread(up.command, "services", "remove", "shop")
        assert result.stdout == "shop: removed\n"
        async with asyncio.timeout(30):
            while line := await reader.readline():
                assert line.startswith((b"-ERR", b"PING", b"INFO"))
        writer.close()
        _, writer, reply = await connect(url)
        assert reply.startswith(b"-ERR 'Authorization Violation'")
        writer.close()

    asyncio.run(check_disconnection())
    assert "shop" not in up.command("services", "list").stdout
    assert up.command("nats-url", "--role", "shop").returncode == 65
    assert up.command("services", "remove", "shop").returncode == 65


def test_credentials_of_internal_services_are_not_printed(up: Up):
    for user in ("edge", "tokens", "metrics", "events"):
        assert up.command("nats-url", "--role", user).returncode == 65
        assert up.command("services", "remove", user).returncode == 65
    for name in ("edge", "operator", "Mailer", "a.b", "a*", ">", "", "x" * 33):
        result = up.command("services", "add", name)
        assert (result.returncode, result.stdout) == (65, "")
    assert up.command("nats-url").stdout.strip() == (up.running.service_url if up.running else "")


def test_a_service_added_while_stopped_can_connect_after_the_start(fresh: Up):
    assert fresh.command("services", "add", "mailer").returncode == 69
    fresh.start().ready()
    fresh.stop()
    result = fresh.command("services", "add", "mailer")
    assert (result.returncode, result.stdout[:7]) == (0, "mailer:")
    fresh.start().ready()
    url = run("nats-url", "--role", "mailer", data_dir=str(fresh.data)).stdout.strip()
    assert asyncio.run(verify(url, "mailer", "f" * 64)) == "invalid_token"

"""NATS users for other people's services: added, used, removed while everything runs."""

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
    """Sends an event from this source and answers how many were dropped."""
    client = await nats.connect(url, inbox_prefix=f"_INBOX.{user}")
    async with events.producer(client, source) as producer:
        producer.send("account.state", AccountState(account="alice", state="connected"))
        await producer.drain()
    await client.close()
    return producer.dropped


async def verified(url: str, user: str, token: str) -> str:
    client = await nats.connect(url, inbox_prefix=f"_INBOX.{user}")
    question = json.dumps({"digest": hashlib.sha256(token.encode()).hexdigest()}).encode()
    answer = await client.request("tallystick.v1.tokens.verify", question, timeout=10)
    await client.close()
    return str(json.loads(answer.data)["code"])


def test_a_service_that_was_added_verifies_tokens_and_reports_events_as_itself(up: Up):
    added = up.command("services", "add", "mailer")
    url = added.stdout.strip()
    assert (added.returncode, url.partition(":")[0]) == (0, "nats"), added.stderr
    assert up.command("services", "add", "mailer").stdout.strip() == url
    assert up.command("nats-url", "--role", "mailer").stdout.strip() == url
    assert up.command("services", "list").stdout == "mailer\n"
    assert asyncio.run(verified(url, "mailer", up.admin_token)) == "active"
    assert asyncio.run(report(url, "mailer", source="mailer.sender")) == 0
    assert asyncio.run(report(url, "mailer", source="another")) == 1
    with up.client(up.admin_token) as admin:
        until(lambda: 'events{event="account.state"} 1\n' in admin.get("/metrics").text)


@pytest.mark.parametrize("role", ["operator", "events-operator", "service", "parts"])
def test_a_client_that_reads_no_credentials_from_a_url_gets_them_one_by_one(up: Up, role: str):
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

    async def listens() -> None:
        client = await nats.connect(
            login["servers"],
            user=login["user"],
            password=login["password"],
            inbox_prefix=login["inboxPrefix"],
        )
        # The server answers in order: after two answers it has judged the subscription.
        await client.subscribe(client.new_inbox())
        await client.flush()
        await client.flush()
        assert client.last_error is None
        await client.close()

    asyncio.run(listens())
    url = up.command("nats-url", "--role", role).stdout.strip()
    assert url == login["servers"][0].replace("//", f"//{role}:{login['password']}@")


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A connection by NATS' own protocol, and what the server said to the user and password."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await reader.readline()
    login = {"user": parts.username, "pass": parts.password, "verbose": False, "pedantic": False}
    writer.write(b"CONNECT %s\r\nPING\r\n" % json.dumps(login).encode())
    return reader, writer, await reader.readline()


def test_a_service_that_was_removed_is_disconnected_and_no_user_any_more(up: Up):
    url = up.command("services", "add", "shop").stdout.strip()

    async def disconnected() -> None:
        reader, writer, said = await connected(url)
        assert said == b"PONG\r\n"
        removed = await asyncio.to_thread(up.command, "services", "remove", "shop")
        assert removed.stdout == "shop: removed\n"
        async with asyncio.timeout(30):
            while line := await reader.readline():
                assert line.startswith((b"-ERR", b"PING", b"INFO"))
        writer.close()
        _, writer, said = await connected(url)
        assert said.startswith(b"-ERR 'Authorization Violation'")
        writer.close()

    asyncio.run(disconnected())
    assert "shop" not in up.command("services", "list").stdout
    assert up.command("nats-url", "--role", "shop").returncode == 65
    assert up.command("services", "remove", "shop").returncode == 65


def test_our_own_services_credentials_are_not_given_out(up: Up):
    for user in ("edge", "tokens", "metrics", "events"):
        assert up.command("nats-url", "--role", user).returncode == 65
        assert up.command("services", "remove", user).returncode == 65
    for name in ("edge", "operator", "Mailer", "a.b", "a*", ">", "", "x" * 33):
        refused = up.command("services", "add", name)
        assert (refused.returncode, refused.stdout) == (65, "")
    assert up.command("nats-url").stdout.strip() == (up.running.service_url if up.running else "")


def test_one_that_is_added_while_nothing_runs_is_there_at_the_next_start(fresh: Up):
    assert fresh.command("services", "add", "mailer").returncode == 69
    fresh.start().ready()
    fresh.stop()
    added = fresh.command("services", "add", "mailer")
    assert (added.returncode, added.stdout[:7]) == (0, "mailer:")
    fresh.start().ready()
    url = run("nats-url", "--role", "mailer", data_dir=str(fresh.data)).stdout.strip()
    assert asyncio.run(verified(url, "mailer", "f" * 64)) == "invalid_token"

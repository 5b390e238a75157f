"""Confused-deputy attacks: a NATS user has JetStream, or a responding service, act in its place.

JetStream acts with the permissions of its account, and a responder publishes to the reply subject of a request. Each user
of the table tries to have its message delivered to subjects on which it must not publish.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from tallystick import connection as bus
from tallystick.contracts.events import EVENTS_STREAM, RECONCILIATION_CONSUMER, STREAM_CONSUMER
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.propagation import ACKNOWLEDGED, CHANGED, Acknowledged, ChangeNotice
from tallystick.contracts.tokens import CREATE_TOKEN, LIST_TOKENS, ListTokens, TokenPage
from tallystick.contracts.verification import REPORT_USE, VERIFY, Verdict, VerifyToken
from tallystick.rpc.call import call
from tallystick.rpc.server import serve
from tallystick_server.local import nats as embedded_nats
from tallystick_server.metrics.consumer import ensure_stream
from tallystick_server.runtime.nats_permissions import (
    CONNECTIONS_READ,
    SERVER_READS,
    STREAM_READS,
    USERS,
    allows,
    user as user_named,
)
from tests.support.counting import counted
from tests.support.polling import until_async
from tests.support.ports import free_port
from tests.support.servers import Nats

TARGETS = [
    CREATE_TOKEN.subject,
    CREATE_TOKEN.by_operator.subject,
    REPORT_USE.subject,
    CHANGED,
    ACKNOWLEDGED,
    "_INBOX.edge.x",
    "_INBOX.tokens.x",
]
MARKER = "of the attacker"
EVENT = json.dumps({"marker": MARKER, "data": {}}).encode()
HEALTH = "$SYS.REQ.SERVER.PING.HEALTHZ"
TEXTS = [
    "marker",
    "server_name",
    "account",
    "stream",
    "consumer",
    "subject",
    "acc",
    "user",
    "state",
    "offset",
]
"""Fields of a request to a NATS server that contain text, or in which text is an error."""
STORED = "tallystick.events.accomplice.mail.sent"
"""An event of the attacker that another user has published."""
CONSUMERS = [STREAM_CONSUMER, RECONCILIATION_CONSUMER, "evil"]


def attacks(user: str, target: str) -> list[tuple[str, object, str, dict[str, str]]]:
    """Messages that may have a message delivered to the target: subject, content, reply subject, headers."""
    stream = EVENTS_STREAM
    pushed = {"durable_name": "", "deliver_subject": target, "ack_policy": "none", "deliver_policy": "all"}
    consumers: list[tuple[str, object, str, dict[str, str]]] = []
    for name in CONSUMERS:
        config = {**pushed, "name": name, "durable_name": name}
        consumers += [
            (f"$JS.API.CONSUMER.{verb}.{stream}.{name}", {"stream_name": stream, "config": config}, "", {})
            for verb in ("CREATE", "DURABLE.CREATE")
        ]
        # A pull consumer, whose messages are then pulled to the target.
        pulled = {"name": name, "durable_name": name, "ack_policy": "explicit"}
        consumers.append(
            (f"$JS.API.CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": pulled}, "", {})
        )
        consumers.append((f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", {"batch": 5}, target, {}))
        consumers.append((f"$JS.ACK.{stream}.{name}.1.1.1.1.0", b"+NXT", target, {}))
    group = {**pushed, "deliver_group": "tallystick-tokens"}
    del group["durable_name"]
    return [
        (f"tallystick.events.{user}.thread.started", EVENT, target, {}),
        (f"tallystick.events.{user}.thread.started", EVENT, "", {"Nats-Trace-Dest": target}),
        (VERIFY.subject, {"digest": "0" * 64, "marker": MARKER}, target, {}),
        *consumers,
        (f"$JS.API.CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": group}, "", {}),
        (f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": 1}, target, {}),
        (f"$JS.API.STREAM.MSG.GET.{stream}", {"last_by_subj": STORED}, target, {}),
        (f"$JS.API.DIRECT.GET.{stream}", {"seq": 1}, target, {}),
        ("$JS.API.STREAM.CREATE.evil", {"name": "evil", "subjects": [target]}, "", {}),
        ("$JS.API.STREAM.CREATE.evil", {"name": "evil", "subjects": ["_INBOX.>"]}, "", {}),
        (
            "$JS.API.STREAM.CREATE.mirror",
            {"name": "mirror", "mirror": {"name": stream}, "republish": {"src": ">", "dest": target}},
            "",
            {},
        ),
        (
            f"$JS.API.STREAM.UPDATE.{stream}",
            {
                "name": stream,
                "subjects": ["tallystick.events.>"],
                "discard": "new",
                "max_msg_size": 65536,
                "republish": {"src": "tallystick.events.>", "dest": target},
            },
            "",
            {},
        ),
        (f"tallystick.events.{user}.thread.started", EVENT, "", {}),
        # Read requests whose reply goes to the target, and may repeat the attacker's text.
        *(
            (subject.replace("*", "x"), {**dict.fromkeys(TEXTS, MARKER), **filters}, target, {})
            for subject in (*STREAM_READS, *SERVER_READS, CONNECTIONS_READ, HEALTH)
            for filters in ({}, {"server_name": ""}, {"server_name": "", "offset": 0})
        ),
        (f"$JS.API.STREAM.SNAPSHOT.{stream}", {"deliver_subject": target, "no_consumers": True}, "", {}),
    ]


async def attack(client: Client, user: str, targets: list[str]) -> None:
    for target in targets:
        for subject, content, reply, headers in attacks(user, target):
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            await client.publish(subject, payload, reply=reply, headers=headers or None)
            # After this, the server has authorized the message, and its effects have had time to arrive.
            await client.flush()
        await asyncio.sleep(0.05)
    await client.flush()


@asynccontextmanager
async def watch(url: str) -> AsyncIterator[list[tuple[str, Msg]]]:
    """The messages that arrive at each target: JetStream pushes a message to a subscription of the target, but under the
    subject with which it was stored.
    """
    deliveries: list[tuple[str, Msg]] = []

    def append_to(target: str) -> Callable[[Msg], Awaitable[None]]:
        async def append(message: Msg) -> None:
            deliveries.append((target, message))

        return append

    client = await nats.connect(url)
    for target in (*TARGETS, LIST_TOKENS.by_operator.subject):
        await client.subscribe(target, cb=append_to(target))
    await client.flush()
    await client.flush()
    yield deliveries
    await client.flush()
    await client.close()


def attacks_by_target(deliveries: list[tuple[str, Msg]]) -> dict[str, set[str]]:
    """By target, the kinds of messages that the attacker wrote or that request a reply."""
    kinds: dict[str, set[str]] = {}
    for target, message in deliveries:
        if message.reply.startswith("$JS.") or message.subject != target:
            kinds.setdefault(target, set()).add("delivered")
        elif b64encode(EVENT) in message.data:
            kinds.setdefault(target, set()).add("read back")
        elif MARKER.encode() in message.data or message.reply:
            kinds.setdefault(target, set()).add("other")
    return kinds


@pytest.mark.parametrize("user", [*USERS, "another"])
async def test_no_user_delivers_messages_where_it_must_not_publish(
    user: str, nats_server: Nats, event_stream, tokens_service, operator
):
    targets = [target for target in TARGETS if not allows(user_named(user), "publish", target)]
    accomplice = await nats.connect(nats_server.jetstream)
    await accomplice.jetstream().publish(STORED, EVENT)
    await accomplice.close()
    client = await nats.connect(nats_server.url(user), error_cb=ignore)
    async with watch(nats_server.watcher) as deliveries:
        await attack(client, user, targets)
        page = await call(operator, LIST_TOKENS.by_operator, ListTokens(actor=Actor(name="test")))
    await client.close()
    assert LIST_TOKENS.by_operator.subject in [target for target, _ in deliveries], (
        "the watcher sees what is sent"
    )
    assert attacks_by_target(deliveries).keys() & set(targets) == set()
    assert isinstance(page, TokenPage)
    assert page.total == 0


@pytest.fixture
async def one_account(tmp_path: Path) -> AsyncIterator[str]:
    """A NATS whose JetStream is in the account of the requests, a misconfiguration: the URL of a user with every right."""
    port = free_port()
    configuration = tmp_path / "server.conf"
    configuration.write_text(
        json.dumps({"listen": f"127.0.0.1:{port}", "jetstream": {"store_dir": str(tmp_path / "store")}})
    )
    process = await embedded_nats.start(configuration, port, tmp_path / "log")
    async with bus.connect(f"nats://127.0.0.1:{port}", "x", wait_s=10) as client:
        await ensure_stream(client, max_bytes=1 << 20)
    yield f"nats://127.0.0.1:{port}"
    process.kill()
    await process.wait()


async def test_the_same_attacks_succeed_without_a_separate_jetstream_account(one_account: str):
    """Otherwise the test above would prove nothing."""
    client = await nats.connect(one_account, error_cb=ignore)
    async with watch(one_account) as deliveries:
        await attack(client, "edge", TARGETS)
    await client.close()
    kinds = attacks_by_target(deliveries)
    assert kinds.keys() == set(TARGETS)
    assert {"delivered", "read back"} <= set.union(*kinds.values())


@pytest.mark.parametrize("headers", [{}, {"Nats-Sequence": "1"}, {"nats-stream": "x"}], ids=str)
async def test_a_message_from_jetstream_is_not_handled_as_a_request(
    one_account: str, headers: dict[str, str]
):
    """Not even where accounts do not prevent it, as on a NATS with another configuration."""
    handled: list[str] = []

    async def handle(request: VerifyToken) -> Verdict:
        handled.append(request.digest)
        return Verdict(code="invalid_token", token=None)

    async with (
        bus.connect(one_account, "tokens", wait_s=10) as client,
        serve(client, "tallystick-tokens", "", {VERIFY: handle}) as server,
    ):
        event = msgspec.json.encode(VerifyToken(digest="0" * 64))
        if headers:
            reply = await client.request(VERIFY.subject, event, headers=headers, timeout=10)
            assert msgspec.json.decode(reply.data, type=Failure).code == "bad_request"
        else:
            await client.publish("tallystick.events.edge.thread.started", event)
            config = ConsumerConfig(
                name="evil", deliver_subject=VERIFY.subject, deliver_group="tallystick-tokens"
            )
            await client.jetstream().add_consumer(EVENTS_STREAM, config)
            await until_async(lambda: server.statistics[VERIFY.name].counts["from_jetstream"])
        assert await call(client, VERIFY, VerifyToken(digest="1" * 64)) == Verdict(
            code="invalid_token", token=None
        )
        assert server.statistics[VERIFY.name].counts["from_jetstream"] == 1
    assert handled == ["1" * 64]


async def test_a_publish_acknowledgement_is_not_a_notice():
    """A publisher chooses the subject of the acknowledgement, such as that of the change notices."""
    acknowledgement = b'{"stream":"TALLYSTICK_EVENTS","seq":5000000}'
    for kind in (ChangeNotice, Acknowledged):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(acknowledgement, type=kind)


def non_text_messages(user: bytes) -> bytes:
    """Messages that this user may publish, with bytes that are not text wherever NATS accepts them."""
    event, request = b"tallystick.events.%s.thread.x" % user, VERIFY.subject.encode()
    published = [(event[:-1] + b"\xff", b""), (event, b"\xff\xfe "), (request, b"\xff\xfe ")]
    headers = [
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"NATS/1.0 503 \xff\r\n\r\n",
        b"NATS/1.0\r\n\xff: \xff\r\n\r\n",
        b"NATS/1.0\r\nTallystick-Deadline: \xff\r\ntraceparent: \xff\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
    ]
    return b"".join(
        [b"PUB %s %s2\r\n{}\r\n" % message for message in published]
        + [
            b"HPUB %s %s%d %d\r\n%s{}\r\n" % (subject, reply, len(header), len(header) + 2, header)
            for subject, reply in ((event, b""), (request, b"_INBOX.%s.x " % user))
            for header in headers
        ]
    )


@pytest.mark.parametrize("user", ["another", "edge"])
async def test_bytes_that_are_not_text_stop_no_service(
    user: str, nats_server: Nats, tokens_service, metrics_service, operator
):
    """nats-py stops reading at the first subject, reply subject or header that it cannot decode."""
    parts = urlsplit(nats_server.url(user))
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    login = {"user": parts.username, "pass": parts.password, "verbose": False, "headers": True}
    writer.write(b"CONNECT %s\r\n%sPING\r\n" % (json.dumps(login).encode(), non_text_messages(user.encode())))
    output = b""
    while b"PONG" not in output:
        output += await reader.read(1024)
    writer.close()
    assert b"-ERR" not in output
    client = await nats.connect(nats_server.another, inbox_prefix="_INBOX.another")
    reply = await client.request(
        VERIFY.subject, msgspec.json.encode(VerifyToken(digest="0" * 64)), timeout=10
    )
    assert msgspec.json.decode(reply.data, type=Verdict).token is None
    await client.jetstream().publish("tallystick.events.another.mail.sent", b"{}")
    await client.close()
    # The event whose subject is not text becomes a dead letter; the others are counted.
    await counted(operator, {"events_totalmail.sent": 1, "tallystick_dead_letters_total": 1})


async def ignore(_: Exception) -> None:
    """The server denies most of the messages."""

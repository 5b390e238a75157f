"""Any request to a service over NATS gets a typed reply, and neither stops nor blocks the service."""

import time
from collections.abc import Callable, Iterator, Mapping

import msgspec
import pytest
from hypothesis import given, strategies as st

from tallystick.contracts.events import Event
from tallystick.contracts.operation import Failure, Operation
from tallystick.contracts.registry import ADMINISTRATIVE, operations
from tallystick.contracts.tokens import EDIT_TOKEN
from tallystick_server.edge.http.errors import KINDS
from tallystick_server.local.data_dir import DataFolder
from tests.fuzz.connection import Connection
from tests.fuzz.strategies import almost, encoded, json
from tests.support.polling import until
from tests.support.up import Up

# On the edges' subjects, the missing actor hides most other errors of an administrative request.
OPERATIONS = [
    *(operation for operation in operations() if operation not in ADMINISTRATIVE),
    EDIT_TOKEN,
]
EVENTS = [
    *(("service", f"thread.{verb}") for verb in ("started", "stopped", "heartbeat")),
    ("service", "account.state"),
    ("service", "a.b"),
    ("tokens", "account.added"),
    ("tokens", "token.revoked"),
    ("edge", "api.calls"),
    ("edge", "metrics.reported"),
]


@pytest.fixture(scope="module")
def users(up: Up) -> Iterator[Mapping[str, Connection]]:
    """A connection of each user that may send requests or publish."""
    assert up.running
    passwords = DataFolder(up.data).credentials().nats
    connections = {
        user: Connection(f"nats://{user}:{passwords[user]}@{up.running.nats}")
        for user in ("edge", "tokens", "metrics", "operator", "service")
    }
    yield connections
    for connection in connections.values():
        connection.close()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_request_gets_a_typed_reply(
    up: Up,
    users: Mapping[str, Connection],
    fuzz: Callable[..., None],
    operation: Operation,
):
    payloads = st.one_of(st.binary(max_size=50), json.map(encoded), almost(operation.request).map(encoded))
    # The metrics service replies to an edge in a part of its inbox that nats-py does not know of.
    connection = users["operator" if operation.service in {"metrics", "operator"} else "edge"]

    def failure_of(payload: bytes) -> Failure | None:
        reply = connection.run(connection.client.request(operation.subject, payload, timeout=10))
        if reply.headers and "Nats-Service-Error" in reply.headers:
            return msgspec.json.decode(reply.data, type=Failure)
        msgspec.json.decode(reply.data, type=operation.reply)
        return None

    @given(payload=payloads)
    def check(payload: bytes) -> None:
        failure = failure_of(payload)
        # A stalled machine makes any request unavailable once. A payload that causes it makes the request unavailable again.
        deadline = time.monotonic() + 10
        while failure and failure.code == "unavailable" and time.monotonic() < deadline:
            failure = failure_of(payload)
        if failure:
            assert failure.code in KINDS.keys() - {"internal", "unavailable"}, (
                payload,
                failure,
                up.printed[-2000:],
            )

    fuzz(check, examples=40)
    assert "Traceback" not in up.printed


def test_no_event_stops_counting(
    up: Up,
    users: Mapping[str, Connection],
    fuzz: Callable[..., None],
):
    kinds = st.one_of(
        st.sampled_from(EVENTS),
        st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[a-z0-9]{1,3}){0,3}", fullmatch=True).map(
            lambda kind: ("service", kind)
        ),
    )
    payloads = st.one_of(st.binary(max_size=50), json.map(encoded), almost(Event).map(encoded))
    sent = 0

    def publish(user: str, kind: str, payload: bytes) -> None:
        publisher = users[user]
        subject = f"tallystick.events.{user}.{kind}"
        publisher.run(publisher.client.jetstream().publish(subject, payload, timeout=2))

    @given(event=kinds, payload=payloads)
    def check(event: tuple[str, str], payload: bytes) -> None:
        nonlocal sent
        publish(*event, payload)
        sent += 1

    fuzz(check, examples=100)
    publish("service", "fuzz.done", b"{}")
    with up.client(up.admin_token) as admin:
        until(lambda: admin.get("/v1/stats").json()["counters"].get("events:fuzz.done"), 20)
        assert admin.get("/metrics").status_code == 200
    assert sent >= 50
    assert "Traceback" not in up.printed

"""Whatever is sent to a service over NATS gets a typed answer, and never ends or blocks anything."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.data_folder import DataFolder
from services.edge.errors import KINDS
from shared import contracts as c
from shared.contracts import Failure, Operation
from tests.conftest import until
from tests.fuzz.anything import almost, encoded, json
from tests.fuzz.loop import Connection
from tests.system.conftest import Up, up  # noqa: F401

OPERATIONS = [each for each in vars(c).values() if isinstance(each, Operation)]
EVENTS = ["thread.started", "thread.stopped", "thread.heartbeat", "account.added", "account.state", "a.b"]


@pytest.fixture(scope="module")
def edge(up: Up) -> Iterator[Connection]:  # noqa: F811
    """Who may ask for everything."""
    assert up.running
    address = up.running.operator_url.rpartition("@")[2]
    password = DataFolder(up.data).credentials().nats["edge"]
    connection = Connection(f"nats://edge:{password}@{address}")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def service(up: Up) -> Iterator[Connection]:  # noqa: F811
    assert up.running
    connection = Connection(up.running.service_url)
    yield connection
    connection.close()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_request_gets_a_typed_answer(
    up: Up,  # noqa: F811
    edge: Connection,
    fuzz: Callable[..., None],
    operation: Operation,
):
    payloads = st.one_of(st.binary(max_size=50), json.map(encoded), almost(operation.request).map(encoded))

    @given(payload=payloads)
    def check(payload: bytes) -> None:
        answer = edge.run(edge.client.request(operation.subject, payload, timeout=2))
        if answer.headers and "Nats-Service-Error" in answer.headers:
            failure = msgspec.json.decode(answer.data, type=Failure)
            assert failure.code in KINDS.keys() - {"internal", "unavailable"}, (payload, failure)
        else:
            msgspec.json.decode(answer.data, type=operation.reply)

    fuzz(check, examples=40)
    assert "Traceback" not in up.printed


def test_no_event_stops_the_counting(up: Up, service: Connection, fuzz: Callable[..., None]):  # noqa: F811
    stream = service.client.jetstream()
    kinds = st.one_of(
        st.sampled_from(EVENTS), st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[a-z0-9]{1,3}){0,3}", fullmatch=True)
    )
    payloads = st.one_of(st.binary(max_size=50), json.map(encoded), almost(c.Event).map(encoded))
    sent = 0

    @given(kind=kinds, payload=payloads)
    def check(kind: str, payload: bytes) -> None:
        nonlocal sent
        service.run(stream.publish(f"tallystick.events.{kind}", payload, timeout=2))
        sent += 1

    fuzz(check, examples=100)
    service.run(stream.publish("tallystick.events.fuzz.done", b"{}", timeout=2))
    with up.client(up.admin_token) as admin:
        until(lambda: admin.get("/v1/stats").json()["counters"].get("events:fuzz.done"), 20)
        assert admin.get("/metrics").status_code == 200
    assert sent >= 50
    assert "Traceback" not in up.printed

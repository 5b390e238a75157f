"""Every answer is counted once, by method, status and route template."""

import msgspec

from services.edge import calls as module
from services.edge.calls import Calls
from shared import token_value
from shared.events import MAX_DATA_BYTES, Producer
from tests.services.conftest import issue


async def test_each_answer_is_counted_once(edge, operator, tokens_service):
    value, _ = await issue(operator, "api")
    good, bad = {"authorization": f"Bearer {value}"}, {"authorization": f"Bearer {token_value.mint()}"}
    for _ in range(2):
        await edge.get("/v1/tokens?page=0", headers=good)
    await edge.head("/v1/self", headers=good)
    await edge.get("/v1/tokens/tok_x", headers=good)
    await edge.get("/auth?scope=api", headers=good)
    await edge.get("/auth?scope=metrics", headers=good)
    await edge.get("/v1/self")
    await edge.get("/v1/self", headers=bad)
    await edge.get("/v1/tokens/a/b/c", headers=bad)
    await edge.get("/metrics", headers=good)
    assert edge._transport.app._gate.calls._counts == {
        ("GET", 200, "/v1/tokens"): 2,
        ("HEAD", 200, "/v1/self"): 1,
        ("GET", 404, "/v1/tokens/{token_id}"): 1,
        ("GET", 200, "/auth"): 1,
        ("GET", 403, "/auth"): 1,
        ("GET", 401, "unrouted"): 2,
        ("GET", 401, "/v1/self"): 1,
        ("GET", 403, "/metrics"): 1,
    }


async def test_methods_that_clients_make_up_push_no_call_out(edge):
    for number in range(module.MAX_KINDS + 50):
        await edge.request(f"M{number}", "/v1/self")
    await edge.get("/v1/self")
    counts = edge._transport.app._gate.calls._counts
    assert counts["GET", 401, "unrouted"] == 1
    assert sum(count for (method, *_), count in counts.items() if method == "other") == module.MAX_KINDS + 50
    assert {method for method, *_ in counts} == {"GET", "other"}


async def test_beyond_the_table_routes_are_not_told_apart_and_every_call_is_counted(service_client):
    calls, producer = Calls(), Producer(service_client, "edge")
    for number in range(module.MAX_KINDS + 500):
        for method in ("GET", "POST"):
            calls.answered(method, 200, f"/{number:0200}")
    calls.report(producer)
    reported = [call for event in producer._buffer for call in event.data["calls"]]
    assert sum(call["count"] for call in reported) == 2 * (module.MAX_KINDS + 500)
    assert {call["route"] for call in reported} > {"other"}
    sizes = [len(msgspec.json.encode(event.data)) for event in producer._buffer]
    assert max(sizes) <= MAX_DATA_BYTES
    assert all(size > MAX_DATA_BYTES - 400 for size in sizes[:-1])

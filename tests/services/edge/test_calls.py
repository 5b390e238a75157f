"""Every answer is counted once, by method, status and route template."""

from shared import token_value
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

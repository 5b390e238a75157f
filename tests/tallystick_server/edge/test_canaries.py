"""No plain token on NATS: whoever sees every message sees none."""

import nats

from tallystick.tokens import format as token_format
from tests.support.services import issue


async def test_no_plain_token_travels_over_nats(edge, operator, tokens_service, metrics_service, nats_server):
    seen: list[bytes] = []

    async def watch(message) -> None:
        seen.append(f"{message.subject} {message.reply} {message.headers}".encode() + message.data)

    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe(">", cb=watch)
    await watcher.flush()
    value, _ = await issue(operator)
    opaque = "an-opaque-value-of-somebody"
    stranger = token_format.mint()
    edge.headers["authorization"] = f"Bearer {value}"
    made = (await edge.post("/v1/tokens", json={"scopes": ["api"]})).json()
    renewed = (await edge.post(f"/v1/tokens/{made['id']}/rotate", json={})).json()
    for token in (value, opaque, stranger, made["token"], renewed["token"]):
        await edge.get("/v1/stats", headers={"authorization": f"Bearer {token}"})
        await edge.get("/v1/stats", headers={"authorization": "x"}, params={"access_token": token})
        await edge.post("/oauth2/introspect", data={"token": token})
        await edge.delete(f"/v1/token/{token}")
    await watcher.flush()
    await watcher.close()
    everything = b"\n".join(seen)
    assert made["id"].encode() in everything
    for token in (value, opaque, stranger, made["token"], renewed["token"]):
        assert token.encode() not in everything

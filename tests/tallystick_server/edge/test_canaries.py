"""No NATS message contains a plain token."""

import nats

from tallystick.tokens import format as token_format
from tests.support.services import issue


async def test_no_plain_token_travels_over_nats(edge, operator, tokens_service, metrics_service, nats_server):
    messages: list[bytes] = []

    async def watch(message) -> None:
        messages.append(f"{message.subject} {message.reply} {message.headers}".encode() + message.data)

    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe(">", cb=watch)
    await watcher.flush()
    value, _ = await issue(operator)
    opaque = "an-opaque-value-of-somebody"
    stranger = token_format.mint()
    edge.headers["authorization"] = f"Bearer {value}"
    created = (await edge.post("/v1/tokens", json={"scopes": ["api"]})).json()
    rotated = (await edge.post(f"/v1/tokens/{created['id']}/rotate", json={})).json()
    for token in (value, opaque, stranger, created["token"], rotated["token"]):
        await edge.get("/v1/stats", headers={"authorization": f"Bearer {token}"})
        await edge.get("/v1/stats", headers={"authorization": "x"}, params={"access_token": token})
        await edge.post("/oauth2/introspect", data={"token": token})
        await edge.delete(f"/v1/token/{token}")
    await watcher.flush()
    await watcher.close()
    traffic = b"\n".join(messages)
    assert created["id"].encode() in traffic
    for token in (value, opaque, stranger, created["token"], rotated["token"]):
        assert token.encode() not in traffic

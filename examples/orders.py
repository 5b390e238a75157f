"""A service of its own that asks Tallystick whether a request may come in, with nats-py and nothing else.

NATS_URL=$(tallystick services add orders) python examples/orders.py 8000
curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/orders
"""

import asyncio
import hashlib
import json
import os
import sys

import nats
from nats.aio.client import Client

VERIFY = "tallystick.v1.tokens.verify"
LISTED = "tallystick.events.orders.order.listed"
STATUS = {"active": "200 OK", "invalid_token": "401 Unauthorized", "rate_limited": "429 Too Many Requests"}
AWAY = "503 Service Unavailable"


def digest(token: str) -> str:
    """What leaves this service: never the token itself. 64 hexadecimal characters stand for their 32 bytes."""
    try:
        value = bytes.fromhex(token) if len(token) == 64 else token.encode()
    except ValueError:
        value = token.encode()
    return hashlib.sha256(value).hexdigest()


async def status(client: Client, head: dict[str, str], address: str) -> str:
    """The status line for a request with these headers."""
    scheme, _, token = head.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return STATUS["invalid_token"]
    question = {
        "digest": digest(token.strip()),
        "scope": "orders:read",
        "address": address,
        "referrer": head.get("referer"),
    }
    try:
        answer = await client.request(VERIFY, json.dumps(question).encode(), timeout=1)
    except (nats.errors.Error, TimeoutError):
        return AWAY  # it cannot be told now, which is not a no
    code = json.loads(answer.data)["code"]
    if answer.headers and "Nats-Service-Error" in answer.headers:
        return AWAY
    return STATUS.get(code, "403 Forbidden")


async def main(port: int) -> None:
    # Replies come to an inbox that no other NATS user may listen to.
    client = await nats.connect(os.environ["NATS_URL"], inbox_prefix="_INBOX.orders")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(5):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:]
        head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        line = await status(client, head, writer.get_extra_info("peername")[0])
        if line == STATUS["active"]:
            await client.publish(LISTED, b'{"data": {}}')
        writer.write(f"HTTP/1.1 {line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        print(f"listening on http://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

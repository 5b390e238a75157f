"""A request reaches the framework without its credential, whether the token was cached or looked up."""

from base64 import b64encode
from typing import Any

from tests.support.coherence import cache_of, leased, make_cold
from tests.support.dashboard import ready
from tests.support.services import issue


async def test_no_part_of_a_forwarded_request_contains_the_token(edge, operator, tokens_service):
    await ready(edge)
    value, _ = await issue(operator, "*")
    await leased([edge], operator)
    middleware: Any = edge._transport.app
    framework, received = middleware._app, []

    async def recording(scope, receive, send) -> None:
        parts = [*(part for field in scope["headers"] for part in field), scope["query_string"]]
        received.append((*parts, scope["raw_path"], scope["path"].encode()))
        await framework(scope, receive, send)

    middleware._app = recording
    basic = b64encode(f"me:{value}".encode()).decode()
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/v1/self", {"headers": {"authorization": f"Bearer {value}"}}),
        ("GET", "/v1/self", {"headers": {"authorization": f"bearer  {value} "}}),
        ("GET", "/v1/self?a=1", {"headers": {"authorization": f"Bearer {value}"}}),
        ("GET", f"/v1/self?access_token={value}", {}),
        ("GET", f"/v1/nothing?access%5Ftoken={value}", {}),
        ("GET", "/health/live", {"headers": {"authorization": f"Bearer {value}"}}),
        (
            "POST",
            "/oauth2/introspect",
            {"headers": {"authorization": f"Basic {basic}"}, "data": {"token": "x"}},
        ),
    ]
    for method, path, options in requests:
        for is_warm in (False, True):
            if not is_warm:
                make_cold(edge, value)
            received.clear()
            await edge.request(method, path, **options)
            assert len(received) == 1, (path, is_warm)
            content = b"\n".join(received[0])
            assert value.encode() not in content, (path, is_warm)
            assert basic.encode() not in content
            assert b"authorization" not in content
    assert len(cache_of(edge)) == 1

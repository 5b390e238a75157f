"""More bad input over HTTP; `test_gate` has the rest. Each request gets the documented response at once."""

import time

import pytest

from tests.support.raw_http import GET, JSON, NEW, POST, request, send
from tests.support.up import Up

NONE = "Authorization: x\r\n"
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKS = f"12\r\n{NEW}\r\n0\r\n\r\n"
OURS = "tly_" + "0" * 49


def response_status(up: Up, line: str, *headers: str, body: str = "", sized: bool = False) -> int | None:
    """The status of the response, which is quick and contains neither the token nor a traceback."""
    fields = [*headers, *([f"Content-Length: {len(body.encode('latin-1'))}\r\n"] if sized else [])]
    start = time.monotonic()
    status, received, _ = send(up, request(up, line, *fields, body=body))
    assert time.monotonic() - start < 1.2
    assert up.admin_token.encode() not in received
    assert b"Traceback" not in received
    assert b"services/" not in received
    assert status is None or status < 500, received[:400]
    return status


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Bearer "TOKEN"', 401),
        ("Bearer token=TOKEN", 401),
        ("Bearer TOKEN;", 401),
        ("Bearer: TOKEN", 400),
        ("Bearer\xa0TOKEN", 400),
        ("Bearer TOKEN\x0b", 400),
        ("Bearer TOKEN\xc2\xa0", 401),
        ("Negotiate YII=, Bearer TOKEN", 401),
        ("Digest username=TOKEN", 401),
        ("DPoP TOKEN", 401),
        (f"Bearer {OURS}", 401),
        (f"Bearer {OURS.upper()}", 401),
        (f"Bearer {'a' * 15}", 401),
        (f"Bearer {'!' * 16}", 401),
        (f"Bearer {'!' * 257}", 401),
        (f"Bearer {'!' * 513}", 401),
        (f"Bearer 0x{'a' * 62}", 401),
        ("Bearer ' OR 1=1 -- aaaaaaaaaa", 400),
        ("Bearer '||(select(1))||'", 401),
        ("Bearer ../../../../etc/passwd", 401),
        ("Bearer ${jndi:ldap://x.example/a}", 401),
        ("Bearer %s%s%s%s%s%n%n%n%n%n", 401),
        ("Bearer \xef\xbc\x91\xef\xbc\x92\xef\xbc\x93\xef\xbc\x94\xef\xbc\x95\xef\xbc\x96", 401),
    ],
)
def test_a_credential_in_the_header(up: Up, value: str, expected: int):
    assert response_status(up, GET, f"Authorization: {value}\r\n") == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (("Authorization: Basic eA==\r\n", "Authorization: Basic eA==\r\n"), 400),
        (("authorization: Bearer x\r\n", "AUTHORIZATION: Bearer x\r\n"), 400),
        (("Authorization : Bearer TOKEN\r\n",), 400),
        (("Authorization: Bearer\r\n TOKEN\r\n",), 400),
        ((NONE, "Proxy-Authorization: Bearer TOKEN\r\n"), 401),
        ((NONE, "X-Api-Key: TOKEN\r\n"), 401),
        ((NONE, "X-Access-Token: TOKEN\r\n"), 401),
        ((NONE, "X-Forwarded-Uri: /?access_token=TOKEN\r\n"), 401),
        ((NONE, "X-Original-URI: /?access_token=TOKEN\r\n"), 401),
        ((NONE, "Referer: http://x/?access_token=TOKEN\r\n"), 401),
        (("X-HTTP-Method-Override: DELETE\r\n",), 200),
        (("X-Forwarded-For: \xff, 1.1.1.1\r\n", "Forwarded: for=1.1.1.1\r\n"), 200),
        (("Upgrade: h2c\r\n", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), 200),
        (("Upgrade: websocket\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 200),
        ((": empty\r\n",), 400),
        (("novalue\r\n",), 400),
        (("a\x01b: c\r\n",), 400),
        (("a: b\rc\r\n",), 400),
        (("\xe9: b\r\n",), 400),
        (("a: \x7f\r\n",), 400),
        (("Host: x:99999999\r\n",), 400),
    ],
)
def test_headers(up: Up, headers: tuple[str, ...], expected: int):
    assert response_status(up, GET, *headers) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("access_token=TOKEN%00", 401),
        ("access_token=+TOKEN", 401),
        ("access_token=TOKEN;x=1", 401),
        ("x=1;access_token=TOKEN", 401),
        ("access_token%3dTOKEN", 401),
        ("access_token==TOKEN", 401),
        ("access%2dtoken=TOKEN", 401),
        ("access%255ftoken=TOKEN", 401),
        ("access_token%00=TOKEN", 401),
        ("access_tokens=TOKEN", 401),
        ("access+token=TOKEN", 401),
        ("access_token=TOKEN&%61ccess_token=TOKEN", 400),
        ("access_token=TOKEN&access_token", 400),
        ("access_token=&access_token=TOKEN", 400),
        ("&&access_token=TOKEN&&", 200),
        ("access_token=TOKEN#x", 200),
        ("access_token=%54OKEN", 401),
    ],
)
def test_a_credential_in_the_query(up: Up, query: str, expected: int):
    assert response_status(up, f"{GET}?{query}", NONE) == expected


@pytest.mark.parametrize(
    ("target", "unauthenticated", "authenticated"),
    [
        ("/v1/self/", 401, 200),
        ("/V1/self", 401, 404),
        ("/v1/self;x=1", 401, 404),
        ("/v1/./self", 401, 404),
        ("/v1\\self", 401, 404),
        ("/%76%31/self", 401, 200),
        ("/v1/self%00", 401, 404),
        ("/v1/self%0d%0aX-Y:z", 401, 404),
        ("/v1/tokens/../self", 401, 404),
        ("/v1/tokens/%2e%2e/self", 401, 404),
        ("http://evil.example/v1/self", 401, 200),
        ("*", 401, 404),
        ("v1/self", 400, 400),
        ("/v1/self?q=%00", 401, 400),
        ("/v1/self?%ff%fe=1", 401, 400),
        ("/v1/self?&&", 401, 200),
        ("/v1/tokens?sate=disabled", 401, 400),
        ("/v1/tokens?after=x", 401, 400),
        ("/v1/tokens?unusedSince=yesterday", 401, 400),
        ("/auth?scope=*&acount=alice", 401, 400),
        ("/metrics?name[]=up", 401, 200),
        ("/health/live?x=1", 200, 200),
        ("/health/../v1/self", 401, 404),
        ("/health/live/../../v1/self", 401, 404),
        ("/docs/../v1/self", 401, 404),
        ("/docs/%2e%2e/v1/self", 401, 404),
        ("/docs/..%2fv1%2fself", 401, 404),
        ("/docs/openapi.json/..", 401, 404),
        ("/docs/page.js%00", 401, 404),
        ("//docs", 200, 200),
        ("/auth", 401, 400),
        ("/auth?scope=", 401, 400),
        ("/auth?scope=API", 401, 400),
        ("/auth?scope=api%00", 401, 400),
        ("/auth?scope=api&scope=api", 401, 400),
        ("/auth?scope[]=api", 401, 400),
        ("/auth?scope=*", 401, 200),
        ("/v1/tokens?page=1.5", 401, 400),
        ("/v1/tokens?page=99999999999999999999", 401, 400),
        ("/v1/tokens?page=", 401, 400),
        ("/v1/tokens?page=1000001", 401, 400),
        ("/v1/tokens?pageSize=0", 401, 400),
        ("/v1/tokens?state=lost", 401, 400),
        (f"/v1/tokens?query={'a' * 1025}", 401, 400),
        (f"/v1/tokens?account={'a' * 1025}", 401, 400),
        ("/v1/tokens?query=%25%27%5c_", 401, 200),
        ("/v1/stats?seconds=-1", 401, 400),
        ("/v1/stats?seconds=604801", 401, 400),
        ("/v1/stats?seconds=x", 401, 400),
        ("/v1/accounts?page=-1", 401, 400),
        (f"/v1/account/{'a' * 129}", 401, 404),
        ("/v1/account/%F0%9F%92%A9", 401, 404),
        ("/v1/account/%ff", 401, 404),
        ("/v1/tokens/account/..", 401, 200),
        ("/v1/self/x", 401, 404),
        ("/v1/tokens/x/y", 401, 404),
        ("/metrics/x", 401, 404),
        ("/health/x", 401, 404),
    ],
)
def test_a_target(up: Up, target: str, unauthenticated: int, authenticated: int):
    assert response_status(up, f"GET {target}", NONE) == unauthenticated
    assert response_status(up, f"GET {target}", f"Authorization: Bearer {'f' * 64}\r\n") == unauthenticated
    assert response_status(up, f"GET {target}") == authenticated


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "/",
            "//",
            "/a/",
            "/a%2Fb",
            "/%2e%2e/v1/self",
            "/../health/live",
            "/../../docs",
            "/..;/metrics",
        ),
        *(
            "a%00b",
            "%",
            "%ff",
            ";x=1",
            "\\v1\\self",
            "auth",
            "/v1/self",
            "/health/live",
            "/{x}/*",
            "?",
            "??",
            "#",
            "*",
        ),
        *(
            "?scope=x",
            "/a?scope=metrics&scope=api",
            "/a?account=x",
            "?page=0&page=1",
            f"/{'a' * 7000}?{'b' * 1000}",
        ),
    ],
)
def test_an_envoy_check_with_the_target_of_a_client(up: Up, target: str):
    line, scope = f"GET /auth/{target}", "X-Tallystick-Scope: api\r\n"
    assert response_status(up, line, scope) == 200
    assert response_status(up, line) == 400
    for authorization in (NONE, f"Authorization: Bearer {'f' * 64}\r\n"):
        assert response_status(up, line, scope, authorization) == 401


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("get /v1/self", 405),
        ("G@T /v1/self", 400),
        ("GET  /v1/self", 400),
        ("GET /v1/self x", 400),
        ("PROPFIND /v1/self", 405),
        ("PROPFIND /auth/x", 400),
        ("TRACE /auth/x", 405),
        (f"{'A' * 5000} /v1/self", 405),
        ("POST /health/live", 405),
        ("POST /docs", 405),
        ("DELETE /metrics", 405),
        ("OPTIONS *", 204),
        ("OPTIONS /nowhere", 204),
        ("HEAD /nowhere", 404),
        ("HEAD /metrics", 200),
        ("DELETE /v1/token/x", 200),
        ("DELETE /v1/tokens/account/%00", 404),
        (f"DELETE /v1/tokens/tok_{'0' * 26}", 404),
    ],
)
def test_a_method(up: Up, line: str, expected: int):
    assert response_status(up, line) == expected


def with_field(field: str) -> str:
    return NEW[:-1] + f",{field}}}"


@pytest.mark.parametrize(
    "body",
    [
        "\xef\xbb\xbf" + NEW,
        "\xff\xfe" + NEW,
        '{"scopes":["api"],}',
        "{'scopes':['api']}",
        NEW + "//x",
        NEW + NEW,
        "null",
        '"x"',
        "1e999",
        "true",
        '{"scopes":{"0":"api"}}',
        '{"scopes":[null]}',
        '{"scopes":[["api"]]}',
        '{"scopes":["api:"]}',
        '{"scopes":["api:*"]}',
        '{"scopes":["\xe9"]}',
        '{"Scopes":["api"]}',
        with_field('"__proto__":{}'),
        with_field('"id":"tok_x"'),
        with_field('"digest":"x"'),
        with_field('"metadata":{"a":1e999}'),
        with_field('"metadata":{"a":-Infinity}'),
        with_field('"metadata":{"a":18446744073709551616}'),
        with_field('"metadata":{"\\ud800":1}'),
        with_field('"metadata":"' + "x" * 9000 + '"'),
        with_field('"metadata":{"a":"' + "x" * 9000 + '"}'),
        with_field('"description":"\\ud800"'),
        with_field('"description":null'),
        with_field('"expires":"2030-02-30T00:00:00Z"'),
        with_field('"expires":"2030-01-01T24:00:00Z"'),
        with_field('"expires":"99999-01-01T00:00:00Z"'),
        with_field('"expires":"0001-01-01T00:00:00+23:59"'),
        with_field('"expires":"9999-12-31T23:59:59-23:59"'),
        with_field('"expires":""'),
        with_field('"notBefore":"0001-01-01T00:00:00+23:59"'),
        with_field('"notBefore":"9999-12-31T23:59:59-23:59"'),
        with_field('"restrictions":{"addresses":["127.1"]}'),
        with_field('"restrictions":{"addresses":["010.0.0.1"]}'),
        with_field('"restrictions":{"addresses":["*"]}'),
        with_field('"restrictions":{"referrers":["a b"]}'),
        with_field('"restrictions":{"rateLimit":{"maxRequests":1e3,"timeWindow":1.5}}'),
        with_field('"restrictions":{"rateLimit":{"maxRequests":true,"timeWindow":60}}'),
        with_field('"restrictions":[]'),
        with_field('"restrictions":null'),
    ],
)
def test_a_body_of_an_invalid_token(up: Up, body: str):
    assert response_status(up, POST, JSON, body=body, sized=True) == 400


@pytest.mark.parametrize(
    ("line", "body", "expected"),
    [
        ("PATCH /v1/tokens/x", "{}", 404),
        ("PATCH /v1/tokens/x", '{"account":"a"}', 400),
        ("PATCH /v1/tokens/x", '{"disabled":"yes"}', 400),
        ("POST /v1/self/rotate", '{"grace":-1}', 400),
        ("POST /v1/self/rotate", '{"grace":2592001}', 400),
        ("POST /v1/self/rotate", '{"grace":"1"}', 400),
        ("POST /v1/self/rotate", '{"grace":1.5}', 400),
        ("POST /v1/self/rotate", '{"grace":true}', 400),
        ("POST /v1/tokens/x/rotate", "{}", 404),
        ("POST /v1/account", "{}", 400),
        ("POST /v1/account", '{"account":""}', 400),
        ("POST /v1/account", '{"account":".."}', 400),
        ("POST /v1/account", '{"account":"a/b"}', 400),
        ("POST /v1/account", '{"account":"a\\nb"}', 400),
        ("POST /v1/account", '{"account":"x","name":"\\u0000"}', 400),
        ("POST /v1/account", '{"account":"x","name":5}', 400),
    ],
)
def test_other_bodies(up: Up, line: str, body: str, expected: int):
    assert response_status(up, line, JSON, body=body, sized=True) == expected


@pytest.mark.parametrize("path", ["introspect", "revoke"])
@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (FORM, "token=x", 200),
        (FORM, "token=%ff%fe", 200),
        (FORM, "token=%zz", 200),
        (FORM, "token=\xff\xfe", 200),
        (FORM, "token=%00", 200),
        (FORM, "", 400),
        (FORM, "token", 400),
        (FORM, "token=", 400),
        (FORM, "token=a&token=b", 400),
        (FORM, "token=a&token_type_hint=b&token_type_hint=c", 400),
        (FORM, "&".join(["a=b"] * 3000), 400),
        (FORM, '{"token":"x"}', 400),
        (JSON, '{"token":"x"}', 415),
        ("Content-Type: multipart/form-data; boundary=x\r\n", "--x--", 415),
        ("Content-Type: multipart/form-data\r\n", "x", 415),
        (FORM + JSON, "token=x", 415),
        (FORM + "Content-Encoding: gzip\r\n", "token=x", 415),
    ],
)
def test_a_form(up: Up, path: str, kind: str, body: str, expected: int):
    assert response_status(up, f"POST /oauth2/{path}", kind, body=body, sized=True) == expected


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (("Content-Length: 18, 18\r\n",), NEW, 400),
        (("Content-Length: 1e1\r\n",), NEW, 400),
        (("Content-Length: \r\n",), NEW, 400),
        (("Content-Length: 99999999999999999999\r\n",), NEW, 400),
        (("Transfer-Encoding: gzip\r\n",), NEW, 400),
        (("Transfer-Encoding: gzip, chunked\r\n",), CHUNKS, 400),
        (("Transfer-Encoding: chunked, chunked\r\n",), CHUNKS, 400),
        ((CHUNKED, CHUNKED), CHUNKS, 400),
        (("Transfer-Encoding: xchunked\r\n",), CHUNKS, 400),
        (("Transfer-Encoding : chunked\r\n",), CHUNKS, 400),
        (("Transfer-Encoding: \x0bchunked\r\n",), CHUNKS, 400),
        ((CHUNKED,), f"11\r\n{NEW}\r\n0\r\n\r\n", 400),
        ((CHUNKED,), f"12\n{NEW}\n0\n\n", 400),
        ((CHUNKED,), f"0x12\r\n{NEW}\r\n0\r\n\r\n", 400),
        ((CHUNKED,), f" 12\r\n{NEW}\r\n0\r\n\r\n", 400),
        ((CHUNKED,), f"12;ext=1\r\n{NEW}\r\n0\r\n\r\n", 201),
        ((CHUNKED, NONE), f"12\r\n{NEW}\r\n0\r\nAuthorization: Bearer TOKEN\r\n\r\n", 401),
        (("Content-Type: text/plain\r\n", "Content-Length: 18\r\n"), NEW, 415),
        (("Idempotency-Key: a\r\n", "Idempotency-Key: b\r\n", "Content-Length: 18\r\n"), NEW, 400),
        (("Idempotency-Key: \r\n", "Content-Length: 18\r\n"), NEW, 400),
        (("Idempotency-Key: a b\r\n", "Content-Length: 18\r\n"), NEW, 400),
        (("Idempotency-Key: \xff\r\n", "Content-Length: 18\r\n"), NEW, 400),
        ((f"Idempotency-Key: {'k' * 256}\r\n", "Content-Length: 18\r\n"), NEW, 400),
    ],
)
def test_framing(up: Up, headers: tuple[str, ...], body: str, expected: int):
    assert response_status(up, POST, JSON, *headers, body=body.replace("TOKEN", up.admin_token)) == expected


def test_special_characters_are_stored_and_printed_escaped(up: Up):
    odd = '<script>alert(1)</script>\n\u202e\u0007\U0001f4a9"'
    with up.client(up.admin_token) as client:
        token = client.post("/v1/tokens", json={"scopes": ["api"], "description": odd}).json()
        assert client.get(f"/v1/tokens/{token['id']}").json()["description"] == odd
    for command in (("list",), ("list", "--json"), ("show", token["id"])):
        printed = up.command("tokens", *command).stdout
        assert "alert(1)" in printed
        assert not any(sign in printed for sign in "\u202e\u0007")


def test_none_of_the_input_was_logged(up: Up):
    assert "Traceback" not in up.printed
    assert up.admin_token not in up.printed.replace(f"this once:  {up.admin_token}", "").replace(
        f"Bearer {up.admin_token}", ""
    )

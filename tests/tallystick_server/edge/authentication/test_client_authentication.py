"""Clients of ``/oauth2/*`` authenticate by exactly one bearer token, Basic credential or ``client_secret``.

Other routes ignore Basic and ``client_secret``.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import nats
import pytest
from hypothesis import given, strategies as st

from tallystick.coherence import propagation
from tallystick.coherence.transport import NatsTransport
from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.operation import Actor
from tallystick.contracts.quotas import TAKE_QUOTA, Quota, TakeQuota
from tallystick.contracts.records import NewToken, RateLimit, Restrictions, Token
from tallystick.contracts.tokens import CREATE_TOKEN, REVOKE_TOKEN, CreatedToken, CreateToken, RevokeToken
from tallystick.contracts.verification import VERIFY, Verdict, VerifyToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick_server.edge.authentication.client_authentication import read_passwords
from tests.support.coherence import leased
from tests.support.dashboard import ready
from tests.support.services import issue

pytestmark = pytest.mark.usefixtures("sent_once")
FORM = {"content-type": "application/x-www-form-urlencoded"}
BEARER, BASIC = 'Bearer realm="tallystick"', 'Basic realm="tallystick"'
OURS = token_format.mint()
PATHS = ("/oauth2/introspect", "/oauth2/revoke")
ACTOR = Actor(name="test")


def basic(password: str, user: str = "orders-api", scheme: str = "Basic ") -> dict[str, str]:
    return {"authorization": scheme + b64encode(f"{user}:{password}".encode("latin-1")).decode()}


def bearer(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


def header(method: str, value: str) -> dict[str, str]:
    """The header of an authentication method, if it has one."""
    match method:
        case "bearer":
            return bearer(value)
        case "basic":
            return basic(value)
    return {}


def encoded(value: str) -> str:
    """With every character but letters and digits percent-encoded, as openid-client does."""
    return "".join(character if character.isalnum() else f"%{ord(character):02X}" for character in value)


def challenges(response: httpx.Response) -> list[str]:
    return response.headers.get_list("www-authenticate")


async def create(operator, value: str, *scopes: str, **fields: Any) -> Token:
    """Create a token with a chosen value, as an import does."""
    request = CreateToken(
        token=NewToken(scopes=scopes or ("introspect",), **fields),
        digest=token_format.digest(value) or "",
        hint="",
        actor=ACTOR,
    )
    created = await call(operator, CREATE_TOKEN.by_operator, request)
    assert isinstance(created, CreatedToken), created
    return created.token


@pytest.fixture
async def client(edge, operator, tokens_service) -> httpx.AsyncClient:
    await ready(edge)
    await leased([edge], operator)
    return edge  # type: ignore[no-any-return]


async def post(client: httpx.AsyncClient, headers: dict[str, str], query: str = "", **fields: str):
    return await client.post(
        f"/oauth2/introspect{query}", content=urlencode({"token": OURS, **fields}), headers=FORM | headers
    )


def results(client: httpx.AsyncClient) -> dict[str, int]:
    transport: Any = client._transport
    return dict(transport.app._verifier.usage.results)


@pytest.mark.parametrize(
    ("password", "readings"),
    [
        pytest.param(OURS, (OURS,), id="ours"),
        pytest.param(OURS.replace("_", "%5F"), (OURS, OURS.replace("_", "%5F")), id="ours, encoded"),
        ("A" * 64, ("A" * 64,)),
        ("imported-value-of-somebody", ("imported-value-of-somebody",)),
        ("imported+value/of==", ("imported+value/of==",)),
        ("imported%2Bvalue%2Fof%3D%3D", ("imported+value/of==", "imported%2Bvalue%2Fof%3D%3D")),
        ("imported%2bvalue:with:colons", ("imported+value:with:colons", "imported%2bvalue:with:colons")),
        ("imported%zzvalue%41", ("imported%zzvalue%41",)),
        ("imported-value%", ("imported-value%",)),
        ("%69" * 16, ("i" * 16, "%69" * 16)),
        ("%69" * 15, ("%69" * 15,)),
        ("%00" * 16, ("%00" * 16,)),
        ("short", ("short",)),
        ("", ("",)),
        ("imported value of somebody", ("imported value of somebody",)),
        ("imported\xe9value-of-somebody", ("imported\xe9value-of-somebody",)),
    ],
)
def test_a_password_is_read_as_sent_and_percent_decoded(password: str, readings: tuple[str, ...]):
    sent = b64encode(f"user:{password}".encode("latin-1"))
    assert read_passwords(sent) == readings


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"=",
        b"a",
        b"dXNlcg==",
        b"dXNlcjpw*",
        b"dXNlcjpw=",
        b"dXNlcjpwYQ",
        b"dXNlcjpwYQ==dXNl",
        b"-_-_",
        b"\xff\xff",
    ],
)
def test_malformed_basic_has_no_password(sent: bytes):
    assert read_passwords(sent) is None


VALUES = st.one_of(
    st.text([chr(code) for code in range(0x21, 0x7F)], min_size=16, max_size=256),
    st.text("%+=25Bab3D", min_size=16, max_size=40),
    st.builds(token_format.mint),
)


@given(VALUES, st.sampled_from([str, quote, quote_plus, encoded]))
def test_every_value_is_among_the_readings_in_every_encoding(value: str, encode: Any):
    readings = read_passwords(b64encode(f"id:{encode(value)}".encode()))
    assert readings is not None
    assert len(readings) <= 2
    assert value in readings or token_format.digest(value) is None


async def test_a_client_authenticates_by_one_of_four_methods(client, operator):
    value, _ = await issue(operator, "introspect")
    await create(operator, OURS, "orders")
    for headers, query, fields in (
        (bearer(value), "", {}),
        ({}, f"?access_token={value}", {}),
        (basic(value), "", {}),
        (basic(value, user=""), "", {}),
        (basic(value, scheme="basic "), "", {}),
        (basic(value, scheme="BASIC   "), "", {}),
        ({"authorization": basic(value)["authorization"] + " "}, "", {}),
        (basic(encoded(value), user=encoded("https://api.example")), "", {}),
        ({}, "", {"client_id": "orders-api", "client_secret": value}),
        ({}, "", {"client_secret": value}),
        # A client id alone is not a credential.
        (bearer(value), "", {"client_id": "orders-api"}),
        (basic(value), "", {"client_id": "another"}),
    ):
        for _ in range(2):  # unknown to the edge, then cached
            response = await post(client, headers, query, **fields)
            assert (response.status_code, response.json()["active"]) == (200, True), (headers, query, fields)


async def test_more_than_one_credential_is_rejected_even_if_they_are_equal(client, operator, edge_client):
    value, token = await issue(operator, "introspect", restrictions=Restrictions(rate_limit=LIMIT))
    body = f"token={OURS}"
    for headers, query, fields in (
        (bearer(value), "", f"&client_secret={value}"),
        (bearer(value), "", "&client_secret="),
        (basic(value), "", f"&client_secret={value}"),
        (basic(value), f"?access_token={value}", ""),
        (bearer(value), f"?access_token={value}", ""),
        (bearer(value), f"?access_token={value}", f"&client_secret={value}"),
        ({}, f"?access_token={value}", f"&client_secret={value}"),
        ({}, "", f"&client_secret={value}&client_secret={value}"),
        ({}, "", f"&client_secret={value}&client%5Fsecret="),
        (bearer(value), "", f"&client_secret={value}&client_secret={value}"),
        ({"authorization": f"{basic(value)['authorization']}, Bearer {value}"}, "", ""),
        ({"authorization": f"{basic(value)['authorization']} {value}"}, "", ""),
    ):
        for path in PATHS:
            response = await client.post(path + query, content=body + fields, headers=FORM | headers)
            assert response.status_code == 400, (headers, query, fields)
            assert (response.json()["code"], response.json()["error"]) == (
                "invalid_request",
                "invalid_request",
            )
            assert value not in response.text + repr(response.headers)
    two = [*FORM.items(), *basic(value).items(), *bearer(value).items()]
    assert (await client.post(PATHS[0], content=body, headers=two)).status_code == 400
    # None of these requests was counted against the rate limit.
    quota = await call(edge_client, TAKE_QUOTA, TakeQuota(id=token.id))
    assert isinstance(quota, Quota)
    assert quota.remaining == LIMIT.max_requests - 1


LIMIT = RateLimit(max_requests=100, time_window=86_400)


async def test_malformed_basic_is_a_bad_request(client, subtests: pytest.Subtests):
    for value in ("Basic", "Basic ", "Basic !", "Basic dXNlcg==", "Basic dXNlcjpwYQ", "basic a b"):
        with subtests.test(value=value):
            for path in PATHS:
                response = await client.post(path, content="token=x", headers=FORM | {"authorization": value})
                assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
                assert challenges(response) == [f'{BEARER}, error="invalid_request"']


async def test_every_invalid_credential_gets_the_same_401_with_both_challenges(client, operator):
    revoked, token = await issue(operator, "introspect")
    await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=ACTOR))
    responses = []
    for value in (
        revoked,
        token_format.mint(),
        "short",
        "tly_" + "0" * 49,
        "imported%2Bvalue-unknown",
        "caf\xe9" * 8,
    ):
        for method in ("bearer", "basic", "form"):
            if method == "bearer" and not value.isascii():
                continue
            headers = header(method, value)
            fields = {"client_secret": value} if method == "form" else {}
            responses.append(await post(client, headers, **fields))
    responses += [await post(client, basic("")), await post(client, {}, client_secret="")]
    assert {response.status_code for response in responses} == {401}
    assert len({response.content for response in responses}) == 1
    for response in responses:
        assert challenges(response) == [f'{BEARER}, error="invalid_token"', BASIC]
        assert (response.json()["code"], response.json()["error"]) == ("invalid_token", "invalid_client")
    assert (
        len({tuple(sorted(name for name, _ in response.headers.multi_items())) for response in responses})
        == 1
    )
    assert results(client)["invalid_token"] == len(responses)


async def test_a_missing_credential_gets_401_with_both_challenges(client):
    for path in (*PATHS, "/oauth2/other"):
        for headers, body in (
            (FORM, f"token={OURS}"),
            (FORM, f"token={OURS}&client_id=orders-api"),
            (FORM, ""),
            (FORM, f"token={OURS}&access_token={OURS}"),
            (FORM | {"authorization": f"Token {OURS}"}, f"token={OURS}"),
            (FORM | {"authorization": f"Basically {OURS}"}, f"token={OURS}"),
            ({"content-type": "application/json"}, '{"client_secret":"x"}'),
            ({}, f"client_secret={OURS}"),
            (FORM | {"content-encoding": "gzip"}, f"client_secret={OURS}"),
        ):
            response = await client.post(path, content=body, headers=headers)
            assert response.status_code == 401, (path, headers, body)
            assert challenges(response) == [BEARER, BASIC]
            assert (response.json()["code"], response.json()["error"]) == ("missing_token", "invalid_client")
    for method in ("GET", "PUT", "DELETE"):
        response = await client.request(method, f"{PATHS[0]}?client_secret={OURS}", headers=FORM)
        assert (response.status_code, challenges(response)) == (401, [BEARER, BASIC])
    assert (await client.options(PATHS[0])).status_code == 204


async def test_other_routes_ignore_basic_and_client_secret(client, operator):
    value, _ = await issue(operator)
    for path in (
        "/v1/self",
        "/v1/stats",
        "/metrics",
        "/auth?scope=orders",
        "/oauth2",
        "/v1/oauth2/introspect",
        "/x",
    ):
        for method in ("GET", "POST"):
            for headers in (basic(value), basic("x"), {"authorization": "Basic"}, {}):
                response = await client.request(
                    method, path, headers=FORM | headers, content=f"client_secret={value}&token={value}"
                )
                assert response.status_code == 401, (method, path, headers)
                assert (response.json()["code"], challenges(response)) == ("missing_token", [BEARER])
                assert response.json().get("error") in {
                    None,
                    "Unauthorized",
                }  # as EmailEngine's responses have it
    known = await client.get(f"/v1/self?access_token={value}", headers=basic("x"))
    assert known.status_code == 200


async def test_no_path_notation_bypasses_the_rule(client, operator, subtests: pytest.Subtests):
    for path in ("/oauth2/../v1/self", "/oauth2/%2e%2e/v1/self", "//oauth2/introspect", "/oauth2/"):
        with subtests.test(path=path):
            value, _ = await issue(operator)
            request = client.build_request("POST", "/", headers=FORM | basic(value), content="token=x")
            request.url = httpx.URL(str(client.base_url).rstrip("/")).copy_with(raw_path=path.encode())
            assert (await client.send(request)).status_code in {401, 404}


async def test_an_unknown_path_needs_a_valid_token(client, operator):
    value, _ = await issue(operator)
    assert (await client.post("/oauth2/other", headers=basic(value))).status_code == 404
    assert (await client.post("/oauth2/other", headers=bearer(value))).status_code == 404
    assert (await client.post("/oauth2/other", headers=basic(token_format.mint()))).status_code == 401


async def test_an_imported_value_is_accepted_in_either_reading(client, operator):
    plain, percent = "imported+value/of=a", "imported%2Bvalue%2Fof%3Db"
    await create(operator, plain)
    await create(operator, percent)
    for password in (
        plain,
        encoded(plain),
        quote_plus(plain),
        percent,
        encoded(percent),
        quote_plus(percent),
    ):
        assert (await post(client, basic(password))).status_code == 200, password
        assert (await post(client, basic(password))).status_code == 200, password
    for value in (plain, percent):
        assert (await post(client, {}, client_secret=value)).status_code == 200
    # A form field has one reading only.
    assert (await post(client, {}, client_secret=encoded(plain))).status_code == 401


async def test_a_client_revokes_as_the_token_that_it_presented(client, operator):
    """The tokens service authorizes by the digest of that token, so of two readings it must receive the valid one."""
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=ACTOR))
    deleter, _ = await issue(operator, "api:tokens:delete")
    imported = ("imported+value/of=a", "imported%2Bvalue%2Fof%3Db")
    for value in imported:
        await create(operator, value, "api:tokens:delete")
    for headers, fields in (
        (basic(deleter), {}),
        (basic(encoded(deleter)), {}),
        ({}, {"client_secret": deleter}),
        *((basic(sent), {}) for value in imported for sent in (value, encoded(value))),
        *(({}, {"client_secret": value}) for value in imported),
    ):
        other, _ = await issue(operator, "orders")
        body = urlencode({"token": other, **fields})
        response = await client.post("/oauth2/revoke", content=body, headers=FORM | headers)
        assert response.status_code == 200, response.text
        assert (await client.get("/v1/self", headers=bearer(other))).status_code == 401
    other, _ = await issue(operator, "orders")
    for method in ("bearer", "basic", "form"):
        own, _ = await issue(operator, "orders", account="alice")
        for token, status in ((other, 403), (own, 200), (own, 401)):
            fields = {"client_secret": own} if method == "form" else {}
            body = urlencode({"token": token, **fields})
            response = await client.post("/oauth2/revoke", content=body, headers=FORM | header(method, own))
            assert response.status_code == status, (method, response.text)
    assert (await client.get("/v1/self", headers=bearer(other))).status_code == 200


async def test_a_password_with_two_valid_readings_is_two_credentials(client, operator):
    plain, percent = "imported+value-of-somebody", "imported%2Bvalue-of-somebody"
    await create(operator, plain)
    assert (await post(client, basic(percent))).status_code == 200
    other = await create(operator, percent, "orders")
    await leased([client], operator)
    async with asyncio.timeout(5):  # the negative entry of the value expires after a second
        while (response := await post(client, basic(percent))).status_code == 200:
            await asyncio.sleep(0.02)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert (await post(client, basic(encoded(plain).replace("%2D", "%2d")))).status_code == 200
    await propagation.call_and_wait(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=other.id, actor=ACTOR))
    assert (await post(client, basic(percent))).status_code == 200


async def test_a_client_s_token_is_authorized_as_any_other_token(client, operator):
    await call(operator, ADD_ACCOUNT.by_operator, AddAccount(account="alice", actor=ACTOR))
    for scopes, fields, status, code, error in (
        (("orders",), {}, 403, "insufficient_scope", "insufficient_scope"),
        (("introspect",), {"account": "alice"}, 403, "account_mismatch", "unauthorized_client"),
        (
            ("introspect",),
            {"restrictions": Restrictions(addresses=("192.0.2.0/24",))},
            403,
            "address_not_allowed",
            "unauthorized_client",
        ),
        (
            ("introspect",),
            {"restrictions": Restrictions(referrers=("https://example.org/*",))},
            403,
            "referrer_not_allowed",
            "unauthorized_client",
        ),
    ):
        value, _ = await issue(operator, *scopes, **fields)
        for headers, form in ((bearer(value), {}), (basic(value), {}), ({}, {"client_secret": value})):
            response = await post(client, headers, account="alice", **form)
            assert (response.status_code, response.json()["code"], response.json()["error"]) == (
                status,
                code,
                error,
            )
            assert BASIC not in challenges(response)


async def test_a_client_request_counts_once_against_its_rate_limit(client, operator):
    limit = Restrictions(rate_limit=RateLimit(max_requests=5, time_window=86_400))
    value, _ = await issue(operator, "introspect", restrictions=limit)
    headers: list[tuple[dict[str, str], dict[str, str]]] = [
        (bearer(value), {}),
        (basic(value), {}),
        ({}, {"client_secret": value}),
    ]
    for number in range(5):
        sent, fields = headers[number % 3]
        response = await post(client, sent, **fields)
        assert response.status_code == 200
        assert response.headers["ratelimit"].startswith(f'"token";r={4 - number};')
    for sent, fields in headers:
        response = await post(client, sent, **fields)
        assert (response.status_code, response.json()["error"]) == (429, "temporarily_unavailable")
        assert response.headers["retry-after"]


async def slowly(text: str, meanwhile) -> AsyncIterator[bytes]:
    yield text[:10].encode()
    await meanwhile
    yield text[10:].encode()


async def test_a_credential_that_is_revoked_while_the_body_is_sent_is_rejected(
    client, operator, subtests: pytest.Subtests
):
    for path in PATHS:
        for method in ("bearer", "query", "basic", "form"):
            with subtests.test(path=path, method=method):
                await create(operator, other := token_format.mint(), "orders")
                value, token = await issue(operator)
                headers = FORM | header(method, value)
                query = f"?access_token={value}" if method == "query" else ""
                body = f"token={other}" + (f"&client_secret={value}" if method == "form" else "")
                assert (
                    await client.post("/oauth2/introspect" + query, content=body, headers=headers)
                ).status_code == 200
                revocation = propagation.call_and_wait(
                    operator, REVOKE_TOKEN.by_operator, RevokeToken(id=token.id, actor=ACTOR)
                )
                response = await client.post(path + query, content=slowly(body, revocation), headers=headers)
                assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
                verdict = await call(operator, VERIFY, VerifyToken(digest=token_format.digest(other) or ""))
                assert isinstance(verdict, Verdict)
                assert verdict.code == "active"


async def test_a_header_without_permission_is_rejected_before_the_body_is_sent(
    client, operator, subtests: pytest.Subtests
):
    for scopes in ((), ("orders",)):
        with subtests.test(scopes=scopes):
            value = (await issue(operator, *scopes))[0] if scopes else token_format.mint()
            for headers in (bearer(value), basic(value)):
                sent = asyncio.Event()

                async def body(sent: asyncio.Event = sent) -> AsyncIterator[bytes]:
                    yield b"token="
                    sent.set()
                    await asyncio.sleep(60)
                    yield b"x"

                async with asyncio.timeout(20):
                    response = await client.post(PATHS[0], content=body(), headers=FORM | headers)
                assert response.status_code == (403 if scopes else 401)
                assert not sent.is_set()


async def test_errors_have_the_code_of_rfc_6749_and_name_the_media_type(client, operator):
    value, _ = await issue(operator)
    for path in PATHS:
        for headers, body in (
            (FORM, "token="),
            (FORM, ""),
            (FORM, "token=a&token=b"),
            ({"content-type": "application/json"}, '{"token":"x"}'),
            ({"content-type": "multipart/form-data; boundary=x"}, "--x--"),
            (FORM | {"content-encoding": "gzip"}, "token=x"),
        ):
            response = await client.post(path, content=body, headers=headers | bearer(value))
            problem = response.json()
            assert response.headers["content-type"] == "application/problem+json"
            assert problem["error"] == "invalid_request", body
            assert "JSON" not in response.text
            if headers is not FORM:
                assert response.status_code == 415
                assert "application/x-www-form-urlencoded" in problem["detail"]
        assert (await client.get(path, headers=bearer(value))).json()["error"] == "invalid_request"
    response = await client.post("/v1/tokens", content="x", headers=FORM | bearer(value))
    assert response.json()["detail"] == "the body must be application/json, without a content coding"
    assert response.json()["error"] == "Unsupported Media Type"  # as EmailEngine's responses have it


async def test_a_503_has_the_error_temporarily_unavailable(edge):
    for headers, fields in ((bearer(OURS), {}), (basic(OURS), {}), ({}, {"client_secret": OURS})):
        response = await post(edge, headers, **fields)
        assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
        assert (response.headers["retry-after"], challenges(response)) == ("1", [])


async def test_a_client_s_secret_is_in_no_message_log_or_response(client, operator, nats_server, caplog):
    caplog.set_level(0)
    messages: list[bytes] = []

    async def watch(message) -> None:
        messages.append(f"{message.subject} {message.reply} {message.headers}".encode() + message.data)

    watcher = await nats.connect(nats_server.watcher)
    await watcher.subscribe(">", cb=watch)
    await watcher.flush()
    value, token = await issue(operator, "introspect")
    stranger, imported = token_format.mint(), "a-canary+of/somebody%3D=="
    responses = []
    for secret in (value, stranger, imported, f"{value}x"):
        for headers, fields in (
            (basic(secret), {}),
            (basic(encoded(secret)), {}),
            ({}, {"client_secret": secret}),
            (basic(secret), {"client_secret": secret}),
            (bearer(value), {"client_secret": secret}),
            (basic(value), {"client_id": secret, "scope": secret, "restrictions": secret, "address": secret}),
        ):
            responses.append(await post(client, headers, **fields))
    await client._transport.app._verifier.usage.flush(NatsTransport(client._transport.app._app.state.client))
    await watcher.flush()
    await watcher.close()
    output = b"\n".join(messages) + "".join(record.getMessage() for record in caplog.records).encode()
    output += b"".join(response.content + repr(response.headers).encode() for response in responses)
    assert token.id.encode() in output
    for secret in (value, stranger, imported):
        for text in (secret, encoded(secret), b64encode(f"orders-api:{secret}".encode()).decode()):
            assert text.encode() not in output

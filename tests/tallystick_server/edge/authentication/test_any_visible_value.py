"""A token of any visible ASCII characters is accepted at every place that reads a credential."""

import base64
import string
from urllib.parse import quote, urlencode

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import example, given, strategies as st

from tallystick.contracts.imports import IMPORT_TOKENS, Imported, ImportTokens
from tallystick.contracts.operation import Actor
from tallystick.contracts.records import NewToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tallystick_server.cli.tokens import inspect
from tallystick_server.edge.authentication.client_authentication import read_passwords
from tallystick_server.edge.authentication.credentials import Credential, forwarded, take
from tallystick_server.edge.http.bodies import FORM
from tallystick_server.edge.http.parameters import unique_fields
from tests.support.services import issue

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
SPECIAL = "/+%=;,\"&#?'\\<>{}|^`:@!~*()[]$"
PREFIXES = ("tok_", "Bearer,", "%2F", "../../", "a%00", "&token=", "\x7e")
VALUES = [
    VISIBLE,
    VISIBLE[::-1],
    *(f"{character}opaque-value-{character}-of-a-peer{character}" for character in SPECIAL),
    *(f"{prefix}and.sixteen.more.characters" for prefix in PREFIXES),
    "/" * 16,
    "%" * 256,
    "," * 16,
    "=" * 20,
]

values = st.text(alphabet=VISIBLE, min_size=16, max_size=256).filter(
    lambda text: token_format.digest(text) is not None
)


def in_query(value: str) -> bytes:
    return f"a=1&access_token={quote(value, safe='')}&b=2".encode()


@given(values)
@example(VISIBLE)
def test_every_value_is_parsed_unchanged(value: str):
    for scheme in ("Bearer ", "bearer  "):
        header = take([(b"authorization", f"{scheme}{value}".encode())], b"").credential
        assert header == Credential("bearer", value)
    query = take([], in_query(value)).credential
    assert query == Credential("query", value)
    proxied = forwarded([(b"x-original-uri", b"/page?" + in_query(value))])
    assert proxied == Credential("query", value)
    assert unique_fields(urlencode({"token": value}).encode(), ["token"]) == {"token": value}


@given(values, st.text(alphabet=VISIBLE.replace(":", ""), max_size=20))
def test_every_value_is_accepted_as_a_basic_password(value: str, name: str):
    for sent in (value, quote(value, safe="")):
        basic = base64.b64encode(f"{quote(name)}:{sent}".encode())
        assert value in (read_passwords(basic) or ())


@pytest.fixture
async def admin(edge: httpx.AsyncClient, operator, tokens_service) -> httpx.AsyncClient:
    value, _ = await issue(operator)
    edge.headers["authorization"] = f"Bearer {value}"
    return edge


@pytest.fixture
async def imported(operator, admin) -> dict[str, str]:
    """The public token id for each of VALUES."""
    records = [
        TokenRecord(
            id=new_id("tok_"),
            digest=str(token_format.digest(value)),
            hint="opaque",
            token=NewToken(scopes=("api", "introspect")),
        )
        for value in VALUES
    ]
    actor = Actor(name="test")
    reply = await call(operator, IMPORT_TOKENS, ImportTokens(records=tuple(records), actor=actor))
    assert isinstance(reply, Imported), reply
    assert len(reply.added) == len(VALUES)
    return {value: record.id for value, record in zip(VALUES, records, strict=True)}


async def test_an_imported_value_is_accepted_at_every_place(admin, imported):
    """At the routes and at the fast path, with a cold and a warm cache."""
    for value, public_id in imported.items():
        for _ in range(2):
            bearer = {"authorization": f"Bearer {value}"}
            token = await admin.get("/v1/self", headers=bearer)
            assert (token.status_code, token.json().get("id")) == (200, public_id), value
            check = await admin.get("/auth?scope=api", headers=bearer)
            assert (check.status_code, check.headers.get("x-token-id")) == (200, public_id), value
        anonymous = {"authorization": "x"}
        url = f"/v1/self?access_token={quote(value, safe='')}"
        assert (await admin.get(url, headers=anonymous)).json()["id"] == public_id
        basic = base64.b64encode(f"client:{quote(value, safe='')}".encode()).decode()
        for headers, fields in (
            ({}, {}),
            ({"authorization": f"Basic {basic}"}, {}),
            ({"authorization": ""}, {"client_secret": value}),
        ):
            form = urlencode({"token": value, **fields})
            response = await admin.post(
                "/oauth2/introspect", content=form, headers={"content-type": FORM, **headers}
            )
            assert response.json().get("jti") == public_id, (value, response.text)


async def test_an_imported_token_is_revoked_by_its_value(admin, imported):
    """The value is in the path of the older route, or in the form of RFC 7009."""
    for number, value in enumerate(imported):
        if number % 2:
            response = await admin.delete(f"/v1/token/{quote(value, safe='')}")
            assert (response.status_code, response.json()["deleted"]) == (200, True), value
        else:
            response = await admin.post("/oauth2/revoke", data={"token": value})
            assert response.status_code == 200
        assert (await admin.get("/v1/self", headers={"authorization": f"Bearer {value}"})).status_code == 401


async def test_a_path_needs_exactly_one_value(admin, subtests: pytest.Subtests):
    for path in ("/v1/token/", "/v1/token", "/v1/token/a/b", "/v1/token/a//b", "/v1/token//a"):
        with subtests.test(path=path):
            assert (await admin.delete(path)).status_code in {404, 405}


@given(values, st.sampled_from(("", "\n", "\r\n")))
def test_the_command_line_reads_every_value_from_standard_input(value: str, end: str):
    result = CliRunner().invoke(inspect, input=value + end)
    assert "no token" not in result.output
    assert result.exit_code == (0 if token_format.is_ours(value) else 1)


def test_the_values_contain_every_visible_character():
    assert set("".join(VALUES)) >= set(VISIBLE)
    assert set(string.punctuation) <= set(VISIBLE)

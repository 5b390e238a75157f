"""The OpenAPI document and the server have the same bounds of request bodies."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import msgspec
import pytest

from tallystick_server.edge.api.bounds import MAX_BYTES
from tests.support.api import bearer, create_token

Schema = dict[str, Any]
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
LIMIT = {"maxRequests": 5, "timeWindow": 60}
VALID: dict[str, Any] = {"scopes": "api", "addresses": "192.0.2.0/24", "referrers": "https://example.org/*"}
"""A valid item of each list."""
TEXTS = [
    "", " ", "a", "A", "é", "a b", "a\n", "\n", ".", "..", "...", "*", "**", "*" * 8, "*" * 9, "a:b", ":a", "a:", "a::b",
    "a.b_c-d:0", "-a", "*:a", "a/b", "a%b", "tok~1", "me@example.com", "(a)", "a,b;c=d", "https://example.org/*", "\u2028",
    "https://example.org/A*", "https://EXAMPLE.org/*", "*.example.org/*", "*A/*",
]  # fmt: skip
"""Short texts of every kind: each is checked by the schema's pattern and by the server."""
UNBOUNDED = {
    "notBefore", "expires", "permissions", "ip", "remoteAddress",  # times, and fields whose type has no bound
    "token", "token_type_hint", "client_id", "client_secret", "account", "address", "referrer", "restrictions",
}  # fmt: skip
"""Fields without a bound in at least one request body. The account of a new token has a bound."""


class Body(NamedTuple):
    """A request body of one operation."""

    method: str
    path: str
    media_type: str
    schema: Schema
    required: bool

    @property
    def base(self) -> dict[str, Any]:
        """The required fields of a body, with valid values."""
        values = {"scopes": ["api"], "account": "base", "token": "x" * 20}
        return {name: values[name] for name in self.schema["required"]}


class Case(NamedTuple):
    """A body with one value at a bound or just outside it.

    Args:
        path: the names of the fields that lead to the value.
        value: the value.
        is_valid: whether the schema allows it.
    """

    path: tuple[str, ...]
    value: Any
    is_valid: bool


@pytest.fixture
async def api(admin: httpx.AsyncClient) -> dict[str, Any]:
    response = await admin.get("/docs/openapi.json")
    return dict(response.json())


def bodies(api: dict[str, Any]) -> Iterator[Body]:
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            if body := operation.get("requestBody"):
                for media_type, content in body["content"].items():
                    yield Body(method, path, media_type, resolved(api, content["schema"]), body["required"])


def resolved(api: dict[str, Any], schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    target = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    overlay = {
        name: {**resolved_options(target["properties"][name]), **bounds}
        for name, bounds in schema.get("properties", {}).items()
    }
    return {**target, "properties": {**target["properties"], **overlay}}


def resolved_options(schema: Schema) -> Schema:
    """The type of an optional property, other than null."""
    (option,) = (option for option in schema["anyOf"] if option != {"type": "null"})
    return dict(option)


def properties(
    api: dict[str, Any], schema: Schema, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Yield each field of an object, at every depth, with each of its types."""
    for name, field in schema["properties"].items():
        for option in field.get("anyOf", [field]):
            part = resolved(api, option)
            if part.get("properties"):
                yield from properties(api, part, (*path, name))
            elif part.get("type") not in {"null", "boolean"}:
                yield (*path, name), part


def cases(api: dict[str, Any], body: Body) -> Iterator[Case]:
    for path, field in properties(api, body.schema):
        for value, is_valid in values(field, path[-1]):
            yield Case(path, value, is_valid)


def values(field: Schema, name: str) -> Iterator[tuple[Any, bool]]:
    """Values just inside and just outside a field's bounds."""
    match field.get("type"):
        case "integer":
            if "minimum" in field:
                yield from [(field["minimum"], True), (field["minimum"] - 1, False)]
                yield from [(field["maximum"], True), (field["maximum"] + 1, False)]
        case "string" if "pattern" in field:
            validator = jsonschema_rs.Draft202012Validator(field)
            yield from ((text, validator.is_valid(text)) for text in TEXTS)
            if longest := field.get("maxLength"):
                # The length of 64 scopes, or of one.
                text = " ".join(["a" * 128] * 64) if longest > 8000 else "a" * longest
                if name == "referrers":
                    text = f"*{text[2:]}*"
                assert len(text) == longest
                yield from [(text, True), (f"{text[:1]}a{text[1:]}", False)]
        case "array":
            item = VALID[name]
            yield from (([item] * count, True) for count in (max(1, field["minItems"]), field["maxItems"]))
            yield [item] * (field["maxItems"] + 1), False
            yield [], field["minItems"] == 0
            if "pattern" in field["items"]:
                yield from (([value], valid) for value, valid in values(field["items"], name))
        case "object" if MAX_BYTES in field:
            around = len(msgspec.json.encode({"a": ""}))
            for extra in (0, 1):
                yield {"a": "é" * 5 + "x" * (field[MAX_BYTES] - around - 10 + extra)}, not extra


def with_value(body: Body, case: Case) -> dict[str, Any]:
    """The body with the case's value and the fields that its object requires."""
    whole = msgspec.json.decode(msgspec.json.encode(body.base))
    parent = whole
    for name in case.path[:-1]:
        parent = parent.setdefault(name, dict(LIMIT) if name == "rateLimit" else {})
    parent[case.path[-1]] = case.value
    return dict(whole)


async def send(client: httpx.AsyncClient, body: Body, content: dict[str, Any]) -> httpx.Response:
    path, headers = body.path, {}
    if "{token_id}" in path or path.startswith("/v1/self"):
        token = await create_token(
            client, restrictions={"rateLimit": {"maxRequests": 999, "timeWindow": 999}}
        )
        path = path.replace("{token_id}", token["id"])
        headers = bearer(token["token"]) if path.startswith("/v1/self") else {}
    # An empty body would not be a form.
    sent: dict[str, Any] = (
        {"data": content or {"other": ""}} if body.media_type == FORM else {"json": content}
    )
    return await client.request(body.method, path, headers=headers, **sent)


async def test_the_server_enforces_each_bound_of_the_document(admin: httpx.AsyncClient, api: dict[str, Any]):
    count, wrong = 0, []
    for body in bodies(api):
        for case in cases(api, body):
            content = with_value(body, case)
            if body.path == "/v1/self/rotate" and case.value == 30 * 24 * 3600:
                continue  # the limit of this installation is one day
            if case.path == ("account",) and case.is_valid and body.path != "/v1/account":
                await admin.post("/v1/account", json={"account": case.value})
            count += 1
            response = await send(admin, body, content)
            # EmailEngine's clients get 404 for an invalid account.
            is_unknown = body.path == "/v1/token" and case.path == ("account",)
            expected = {200, 201} if case.is_valid else {404 if is_unknown else 400}
            if response.status_code not in expected:
                wrong.append((body.path, ".".join(case.path), str(case.value)[:40], response.text))
    assert not wrong
    assert count > 400


async def test_only_the_listed_fields_have_no_bound(api: dict[str, Any]):
    for body in bodies(api):
        fields = {path[-1] for path, _ in properties(api, body.schema)}
        bounded = {case.path[-1] for case in cases(api, body)}
        assert fields - bounded <= UNBOUNDED, body.path
    create = next(body for body in bodies(api) if body.path == "/v1/tokens")
    assert "account" in {case.path[-1] for case in cases(api, create)}


async def test_the_server_requires_the_required_fields(admin: httpx.AsyncClient, api: dict[str, Any]):
    required = {}
    for body in bodies(api):
        required[f"{body.method} {body.path}"] = body.required, body.schema["required"]
        responses = [await send(admin, body, body.base)]
        assert responses[0].status_code in {200, 201}, responses[0].text
        for name in body.schema["required"]:
            missing = {field: value for field, value in body.base.items() if field != name}
            assert (await send(admin, body, missing)).status_code == 400
        if body.media_type == JSON and "{" not in body.path and not body.path.startswith("/v1/self"):
            assert ((await admin.request(body.method, body.path)).status_code < 300) is not body.required
    assert required["post /v1/tokens"] == required["post /v1/token"] == (True, ["scopes"])


async def test_no_parameter_lists_an_empty_value(api: dict[str, Any]):
    parameters: Callable[..., Any] = itertools.chain.from_iterable
    for parameter in parameters(
        operation["parameters"] for path in api["paths"].values() for operation in path.values()
    ):
        assert "" not in parameter["schema"].get("enum", []), parameter

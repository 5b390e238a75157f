"""The OpenAPI document says what the routes do, and `/docs` needs nothing but itself."""

import re
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
from litestar.routes import HTTPRoute

from tallystick_server.edge.api.openapi import documented
from tallystick_server.edge.app import create_app
from tallystick_server.edge.authorization.requirements import PUBLIC
from tallystick_server.edge.http.errors import KINDS
from tallystick_server.edge.settings import Settings
from tests.support.services import lifespan

LITESTAR: Any = create_app(Settings(nats_url="nats://127.0.0.1:1"))._app  # type: ignore[attr-defined]
HIDDEN = {"/", "/docs", "/docs/page.js", "/docs/page.css", "/docs/openapi.json"}
ROUTES = [(route, handler) for route, handler in documented(LITESTAR)]
OPERATIONS = sorted(
    (
        pytest.param(route.path_format, method, handler, id=f"{method} {route.path_format}")
        for route, handler in ROUTES
        for method in handler.http_methods
    ),
    key=lambda operation: str(operation.id),
)


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(LITESTAR.state.docs["openapi.json"].content)
    return decoded


def resolve(api: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        found: Any = api
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        return {**found, **{name: value for name, value in part.items() if name != "$ref"}}
    return part


def refusals(api, operation) -> dict[str, str]:
    """Each code with which an operation may refuse, and its status."""
    found = {}
    for status, response in operation["responses"].items():
        if problem := resolve(api, response).get("content", {}).get("application/problem+json"):
            assert problem["schema"]["$ref"] == "#/components/schemas/Problem"
            for code in problem["schema"]["properties"]["code"]["enum"]:
                assert resolve(api, problem["examples"][code])["value"]["code"] == code
                found[code] = status
    return found


def test_nothing_is_hidden_but_the_unknown_the_dashboard_and_the_docs_themselves():
    shown = {route.path for route, _ in ROUTES}
    paths = {route.path for route in LITESTAR.routes if isinstance(route, HTTPRoute)}
    assert {path for path in paths - shown if not path.startswith("/admin")} == HIDDEN


@pytest.mark.parametrize(("path", "method", "handler"), OPERATIONS)
def test_every_route_is_there_with_its_errors(api, path: str, method: str, handler):
    operation = api["paths"][path][method.lower()]
    assert operation["summary"]
    assert all(parameter["description"] for parameter in operation["parameters"])
    in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    found = refusals(api, operation)
    assert all(found[code] == str(KINDS[code].status) for code in found)
    expected = {"bad_request", "uri_too_long", "header_fields_too_large", "internal"}
    if handler.opt["requires"] == PUBLIC:
        assert operation["security"] == []
    else:
        clients = [["basic"]] if path.startswith("/oauth2/") else []
        assert [list(scheme) for scheme in operation["security"]] == [["bearer"], ["query"], *clients]
        expected |= {"missing_token", "invalid_token", "invalid_request", "rate_limited", "unavailable"}
        expected |= {"address_not_allowed", "referrer_not_allowed"}
    if "requestBody" in operation:
        expected |= {"request_timeout", "content_too_large", "unsupported_media_type"}
    if in_path:
        expected |= {"not_found"}
    assert expected <= found.keys()
    assert any(int(status) < 300 for status in operation["responses"])


def test_every_code_is_the_answer_to_something(api):
    found = {
        code
        for operations in api["paths"].values()
        for operation in operations.values()
        for code in refusals(api, operation)
    }
    assert KINDS.keys() - found == {"method_not_allowed"}  # of every path, so of no operation


def test_every_schema_has_an_example_that_fits_it(api):
    for name, schema in api["components"]["schemas"].items():
        assert schema["examples"], name
        root = {"$ref": f"#/components/schemas/{name}", "components": api["components"]}
        validator = jsonschema_rs.Draft202012Validator(root, validate_formats=True)
        for example in schema["examples"]:
            validator.validate(example)


def test_every_schema_is_referred_to_and_every_reference_leads_somewhere(api):
    references = set(re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(api).decode()))
    assert references == api["components"]["schemas"].keys()


def test_the_operations_of_a_path_are_in_order(api):
    assert all(list(operations) == sorted(operations) for operations in api["paths"].values())


def test_an_operation_s_id_stands_once(api):
    ids = [operation["operationId"] for each in api["paths"].values() for operation in each.values()]
    assert len(set(ids)) == len(ids)


async def test_the_docs_need_no_token_and_nothing_from_elsewhere(edge: httpx.AsyncClient):
    for path in ("/docs", "/docs/page.js", "/docs/page.css", "/docs/openapi.json"):
        answer = await edge.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        )
        assert "unsafe" not in policy
        if not path.endswith("json"):
            assert "//" not in re.sub(r"^\s*//.*", "", answer.text, flags=re.MULTILINE)
    html = (await edge.get("/docs")).text
    assert re.findall(r"<script[^>]*>(.*?)</script>", html) == [""]
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", html)
    script = (await edge.get("/docs/page.js")).text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval", script)


BESIDE_THE_DOCS = [
    "/docs/other",
    "/docs/openapi.json/x",
    "/docs/../v1/stats",
    "/docs/page.html",
    "/docs//v1/stats",
    "/doc",
]


async def test_the_gate_is_there_beside_the_docs(edge: httpx.AsyncClient, subtests: pytest.Subtests):
    for path in BESIDE_THE_DOCS:
        with subtests.test(path=path):
            answer = await edge.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")


async def test_the_docs_can_be_switched_off(nats_server, event_stream):
    app: Any = create_app(Settings(nats_url=nats_server.edge, docs=False))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        for path in ("/docs", "/docs/page.js", "/docs/page.css", "/docs/openapi.json"):
            assert (await client.get(path)).status_code == 401

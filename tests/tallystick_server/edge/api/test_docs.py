"""The OpenAPI document describes the routes, and `/docs` is self-contained."""

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
        schema: Any = api
        for key in part["$ref"].removeprefix("#/").split("/"):
            schema = schema[key]
        return {**schema, **{name: value for name, value in part.items() if name != "$ref"}}
    return part


def error_statuses(api, operation) -> dict[str, str]:
    """The status of each error code of an operation, by code."""
    statuses = {}
    for status, response in operation["responses"].items():
        if problem := resolve(api, response).get("content", {}).get("application/problem+json"):
            assert problem["schema"]["$ref"] == "#/components/schemas/Problem"
            for code in problem["schema"]["properties"]["code"]["enum"]:
                assert resolve(api, problem["examples"][code])["value"]["code"] == code
                statuses[code] = status
    return statuses


def test_only_the_fallback_the_dashboard_and_the_docs_are_undocumented():
    documented_paths = {route.path for route, _ in ROUTES}
    paths = {route.path for route in LITESTAR.routes if isinstance(route, HTTPRoute)}
    assert {path for path in paths - documented_paths if not path.startswith("/admin")} == HIDDEN


@pytest.mark.parametrize(("path", "method", "handler"), OPERATIONS)
def test_every_route_is_documented_with_its_errors(api, path: str, method: str, handler):
    operation = api["paths"][path][method.lower()]
    assert operation["summary"]
    assert all(parameter["description"] for parameter in operation["parameters"])
    in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    statuses = error_statuses(api, operation)
    assert all(statuses[code] == str(KINDS[code].status) for code in statuses)
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
    assert expected <= statuses.keys()
    assert any(int(status) < 300 for status in operation["responses"])


def test_every_error_code_belongs_to_an_operation(api):
    codes = {
        code
        for operations in api["paths"].values()
        for operation in operations.values()
        for code in error_statuses(api, operation)
    }
    assert KINDS.keys() - codes == {"method_not_allowed"}  # a property of paths, not of operations


def test_every_schema_has_a_valid_example(api):
    for name, schema in api["components"]["schemas"].items():
        assert schema["examples"], name
        root = {"$ref": f"#/components/schemas/{name}", "components": api["components"]}
        validator = jsonschema_rs.Draft202012Validator(root, validate_formats=True)
        for example in schema["examples"]:
            validator.validate(example)


def test_every_schema_is_referenced_and_every_reference_resolves(api):
    references = set(re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(api).decode()))
    assert references == api["components"]["schemas"].keys()


def test_the_operations_of_a_path_are_in_order(api):
    assert all(list(operations) == sorted(operations) for operations in api["paths"].values())


def test_operation_ids_are_unique(api):
    ids = [
        operation["operationId"] for operations in api["paths"].values() for operation in operations.values()
    ]
    assert len(set(ids)) == len(ids)


async def test_the_docs_need_no_token_and_no_external_resource(edge: httpx.AsyncClient):
    for path in ("/docs", "/docs/page.js", "/docs/page.css", "/docs/openapi.json"):
        response = await edge.get(path)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        )
        assert "unsafe" not in policy
        if not path.endswith("json"):
            assert "//" not in re.sub(r"^\s*//.*", "", response.text, flags=re.MULTILINE)
    html = (await edge.get("/docs")).text
    assert re.findall(r"<script[^>]*>(.*?)</script>", html) == [""]
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", html)
    script = (await edge.get("/docs/page.js")).text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval", script)


PATHS_NEAR_THE_DOCS = [
    "/docs/other",
    "/docs/openapi.json/x",
    "/docs/../v1/stats",
    "/docs/page.html",
    "/docs//v1/stats",
    "/doc",
]


async def test_paths_near_the_docs_require_authentication(edge: httpx.AsyncClient, subtests: pytest.Subtests):
    for path in PATHS_NEAR_THE_DOCS:
        with subtests.test(path=path):
            response = await edge.get(path)
            assert (response.status_code, response.json()["code"]) == (401, "missing_token")


async def test_the_docs_can_be_disabled(nats_server, event_stream):
    app: Any = create_app(Settings(nats_url=nats_server.edge, docs=False))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        for path in ("/docs", "/docs/page.js", "/docs/page.css", "/docs/openapi.json"):
            assert (await client.get(path)).status_code == 401

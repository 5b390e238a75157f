"""Generates the OpenAPI document from the routes: their requirements, parameters, bodies, responses and errors.

`tallystick_server.edge.authorization.routes` lists what a route declares besides its signature. Two declarations are for
this document only:

- ``codes``: further error codes of the route.
- ``media_types``: the media types of a response that is not JSON.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.params import KwargDefinition, PathParameter
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition
from msgspec import Struct

from tallystick import VERSION
from tallystick.tokens import rules
from tallystick_server.edge.api.bounds import REQUIRED, add_bounds
from tallystick_server.edge.api.examples import EXAMPLES
from tallystick_server.edge.api.tokens import TokenWithSecret, UnknownOutcome
from tallystick_server.edge.authorization.requirements import (
    SELF,
    AnyToken,
    Public,
    Scope,
    ScopeInQuery,
    Session,
)
from tallystick_server.edge.authorization.routes import rules_of
from tallystick_server.edge.http.bodies import FORM
from tallystick_server.edge.http.errors import KINDS, MEDIA_TYPE, OAUTH2_PATHS, Problem
from tallystick_server.runtime import docstrings

REFERENCE = "#/components/schemas/{name}"
Object = dict[str, Any]

DESCRIPTION = (
    "Tallystick authenticates access tokens and counts events.\n\n"
    "Every request carries a token as `Authorization: Bearer ...` or, for clients that cannot set headers, as "
    "`?access_token=...`. Each operation lists the scope that it requires. Errors are RFC 9457 problem details with a "
    "`code`. A method that a path does not support is rejected with 405 `method_not_allowed`. HEAD is supported "
    "wherever GET is."
)
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token (RFC 6750)."},
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "For clients that cannot set headers. URLs are stored in histories and logs, so prefer the header.",
    },
}
CLIENT_SCHEMES = {
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": (
            "OAuth 2 client authentication (RFC 6749, section 2.3.1): any user name, and an access token as the "
            "password. The token is also accepted as `client_secret` in the form."
        ),
    },
}
"""Additional schemes of the routes under ``/oauth2/``."""
HEADERS = {
    "X-Request-Id": ("string", "The id of this request, as in logs and the audit."),
    "WWW-Authenticate": ("string", "The challenge of RFC 6750; under `/oauth2/` a second one for Basic."),
    "Retry-After": ("integer", "Seconds to wait before retrying."),
    "RateLimit": (
        "string",
        'The remaining requests of the token\'s rate limit: `"token";r=remaining;t=seconds`.',
    ),
    "RateLimit-Policy": ("string", 'The token\'s rate limit: `"token";q=requests;w=seconds`.'),
    "Location": ("string", "The URL of the new token."),
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes retries safe: requests with the same key within a day make the change only once.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": rules.MAX_IDEMPOTENCY_KEY,
        "pattern": f"^[!-~]{{1,{rules.MAX_IDEMPOTENCY_KEY}}}$",
    },
}


_OF_ANY_REQUEST = frozenset({"bad_request", "uri_too_long", "header_fields_too_large", "internal"})
_OF_A_BODY = frozenset({"request_timeout", "content_too_large", "unsupported_media_type"})
_OF_A_TOKEN = frozenset(
    {
        "missing_token",
        "invalid_token",
        "invalid_request",
        "unavailable",
        "overloaded",
        "address_not_allowed",
        "referrer_not_allowed",
        "rate_limited",
    }
)


class TokenRequirement(NamedTuple):
    """What a route requires of a token.

    Args:
        text: the description for readers.
        codes: the error codes with which a token may be rejected; none if the route needs no token.
        scope: the scope that the token must cover, if it is the same for all requests.
    """

    text: str
    codes: frozenset[str]
    scope: str | None = None


def token_requirement(handler: HTTPRouteHandler) -> TokenRequirement:
    """What a route requires of a token. No other function here reads it from the route."""
    required = rules_of(handler).requires
    of_an_account = _OF_A_TOKEN | {"account_mismatch"}
    of_a_scope = of_an_account | {"insufficient_scope"}
    match required:
        case Public():
            return TokenRequirement("Requires no token.", frozenset())
        case AnyToken():
            codes = _OF_A_TOKEN if required == SELF else of_an_account
            return TokenRequirement("Requires a token with any scope.", codes)
        case ScopeInQuery():
            return TokenRequirement("Requires a token that covers the scope in the query.", of_a_scope)
        case Scope(scope) | Session(scope):
            return TokenRequirement(f"Requires scope `{scope}`.", of_a_scope, scope)


def document(app: Litestar) -> Object:
    """The OpenAPI 3.1 document of every route that is not left out of the schema."""
    paths: dict[str, Object] = {}
    rejections: dict[str, Object] = {}
    for route, handler in documented(app):
        for method in sorted(handler.http_methods):
            operation = _operation(route, handler, method)
            for same_status in _by_status(codes(route, handler, method)):
                name = "-".join(same_status)
                rejections[name] = _rejection(same_status)
                operation["responses"][str(KINDS[same_status[0]].status)] = {
                    "$ref": f"#/components/responses/{name}"
                }
            paths.setdefault(route.path_format, {})[method.lower()] = operation
    schemas = docstrings.schemas(EXAMPLES, REFERENCE)
    add_bounds(schemas)
    for kind, example in EXAMPLES.items():
        schemas[kind.__name__]["examples"] = [msgspec.to_builtins(example)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallystick",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        # Litestar keeps the handlers of a path in no fixed order.
        "paths": {path: dict(sorted(paths[path].items())) for path in sorted(paths)},
        "components": {
            "schemas": schemas,
            "responses": dict(sorted(rejections.items())),
            "securitySchemes": SCHEMES | CLIENT_SCHEMES,
            "headers": {
                name: {"description": text, "schema": {"type": kind}}
                for name, (kind, text) in HEADERS.items()
            },
            "examples": {code: {"value": _problem(code)} for code in KINDS},
        },
    }


def documented(app: Litestar) -> Iterator[tuple[HTTPRoute, HTTPRouteHandler]]:
    """The routes in the document."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from (
                (route, handler) for handler in route.route_handlers if handler.resolve_include_in_schema()
            )


def codes(route: HTTPRoute, handler: HTTPRouteHandler, method: str) -> set[str]:
    """All error codes with which a route may reject a request."""
    rules = rules_of(handler)
    expected = {*_OF_ANY_REQUEST, *token_requirement(handler).codes, *handler.opt.get("codes", ())}
    if rules.form:
        # The form names the token that the request is about, which decides what the client's token must cover.
        expected |= {"account_mismatch", "insufficient_scope"}
    if rules.body or rules.form:
        expected |= _OF_A_BODY
    if _takes_a_key(route, method):
        expected |= {"conflict", "exceeds_authority"}
    if route.path_parameters or _takes_a_key(route, method):
        expected |= {"not_found"}
    return expected


def _operation(route: HTTPRoute, handler: HTTPRouteHandler, method: str) -> Object:
    rules, required = rules_of(handler), token_requirement(handler)
    summary, _, rest = docstrings.read(handler.fn.__doc__).text.partition("\n\n")
    operation: Object = {
        "operationId": _operation_id(handler, method),
        "tags": [_tag(route)],
        "summary": summary.rstrip("."),
        "description": "\n\n".join(part for part in (required.text, rest) if part),
        "parameters": [*_parameters(handler), *([IDEMPOTENCY_KEY] if _takes_a_key(route, method) else [])],
        # OpenAPI 3.1 lets every scheme name the roles it takes.
        "security": [
            {name: [required.scope] if required.scope else []}
            for name in (_schemes(route) if required.codes else ())
        ],
        "responses": _successes(handler, needs_token=bool(required.codes)),
    }
    for media_type, kind in (("application/json", rules.body), (FORM, rules.form)):
        if kind is not None:
            operation["requestBody"] = {
                "required": rules.body_required or kind is rules.form or kind in REQUIRED,
                "content": {media_type: _content(kind)},
            }
    return operation


def _schemes(route: HTTPRoute) -> Object:
    return SCHEMES | (CLIENT_SCHEMES if route.path.startswith(OAUTH2_PATHS) else {})


def _parameters(handler: HTTPRouteHandler) -> Iterator[Object]:
    for name, field in handler.parsed_fn_signature.parameters.items():
        declared = field.kwarg_definition
        if name not in {"request", "data"} and isinstance(declared, KwargDefinition):
            in_path = isinstance(declared, PathParameter)
            yield {
                "name": getattr(declared, "name", None) or name,
                "in": "path" if in_path else "query",
                "description": declared.description or "",
                "required": field.is_required,
                "schema": _parameter_schema(field, declared),
            }


def _parameter_schema(field: FieldDefinition, declared: KwargDefinition) -> Object:
    schema = msgspec.json.schema(field.annotation)
    # A query string has no null: a nullable parameter is optional.
    options = [option for option in schema.pop("anyOf", ()) if option != {"type": "null"}]
    schema |= options[0] if options else {}
    if "enum" in schema:
        # An empty value means that the parameter is absent.
        schema["enum"] = [value for value in schema["enum"] if value]
    limits = {
        "minimum": declared.ge,
        "maximum": declared.le,
        "default": None if field.is_required else field.default,
    }
    schema |= {name: value for name, value in limits.items() if value not in {None, ""}}
    return schema


def _successes(handler: HTTPRouteHandler, *, needs_token: bool) -> dict[str, Object]:
    kind = _success_type(handler)
    response: Object = {"description": "OK.", "headers": _headers("X-Request-Id")}
    if needs_token:
        response["headers"] |= _headers("RateLimit", "RateLimit-Policy")
    if kind is bytes:
        names = [media_type.partition(";")[0] for media_type in handler.opt["media_types"]]
        response["content"] = {name: {"schema": {"type": "string"}} for name in names}
    elif kind not in {None, type(None)}:
        response["content"] = {"application/json": _content(kind)}
    if kind is not TokenWithSecret:
        return {str(handler.status_code): response}
    created = {**response, "headers": response["headers"] | _headers("Location")}
    replayed = {
        **response,
        "description": "Already created with this Idempotency-Key. The secret is not returned again.",
    }
    unknown = {
        **response,
        "description": "The outcome is unknown: the token may exist. If so, this is its secret.",
        "content": {"application/json": _content(UnknownOutcome)},
    }
    return {"200": replayed, str(handler.status_code): created, "202": unknown}


def _by_status(expected: set[str]) -> list[list[str]]:
    """The codes of each status."""
    ordered = sorted((code for code in KINDS if code in expected), key=lambda code: KINDS[code].status)
    return [list(same_status) for _, same_status in groupby(ordered, key=lambda code: KINDS[code].status)]


def _rejection(same_status: list[str]) -> Object:
    """The response for the codes of one status."""
    status = KINDS[same_status[0]].status
    fields = ["X-Request-Id"]
    if any(KINDS[code].challenge for code in same_status):
        fields.append("WWW-Authenticate")
    if status in {429, 503}:
        fields.append("Retry-After")
    if status == 429:
        fields += ["RateLimit", "RateLimit-Policy"]
    return {
        "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in same_status) + ".",
        "headers": _headers(*fields),
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "$ref": REFERENCE.format(name=Problem.__name__),
                    "properties": {"status": {"const": status}, "code": {"enum": same_status}},
                },
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in same_status},
            }
        },
    }


def _problem(code: str) -> Problem:
    kind = KINDS[code]
    return Problem(title=kind.title, status=kind.status, code=code)


def _content(kind: type[Struct]) -> Object:
    return {"schema": {"$ref": REFERENCE.format(name=kind.__name__)}}


def _headers(*names: str) -> dict[str, Object]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _success_type(handler: HTTPRouteHandler) -> Any:
    """The type of a handler's response, without ``Response`` around it."""
    returned = handler.parsed_fn_signature.return_type
    return returned.inner_types[0].annotation if returned.inner_types else returned.annotation


def _takes_a_key(route: HTTPRoute, method: str) -> bool:
    return route.path.startswith("/v1/") and method != "GET"


def _operation_id(handler: HTTPRouteHandler, method: str) -> str:
    module = handler.fn.__module__.rpartition(".")[2]
    only = len(handler.http_methods) == 1
    return f"{module}-{handler.handler_name}" + ("" if only else f"-{method.lower()}")


def _tag(route: HTTPRoute) -> str:
    parts = [part for part in route.path_format.split("/") if part not in {"", "v1"}]
    return parts[0].rstrip("s") if parts else "/"

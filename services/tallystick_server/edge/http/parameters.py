"""Reads query strings and forms (``application/x-www-form-urlencoded``). Repeated parameters are rejected, since a proxy
and the route could each use a different value. Unknown parameters are rejected, since a misspelled filter would return
everything.

The framework's parser is not used: it caches up to a thousand parsed query strings and forms, including secrets.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from tallystick.contracts.input_limits import unknown_name
from tallystick.contracts.messages import FieldError
from tallystick_server.edge.http.errors import ProblemError

REPEATED = "given more than once"
MISPLACED = "belongs in the form, not in the query"
MAX_UNKNOWN = 10
"""Maximum number of unknown parameters in one response."""
ACCESS_TOKEN = "access_token"  # noqa: S105  # the name of a parameter that every route accepts


def declared_query(handler: HTTPRouteHandler) -> frozenset[str]:
    """The names of a route's query parameters.

    Raises:
        RuntimeError: a parameter is declared neither for the query nor for the path.
    """
    names = set()
    for name, field in handler.parsed_fn_signature.parameters.items():
        match field.kwarg_definition:
            case QueryParameter() as parameter:
                names.add(parameter.name or name)
            case PathParameter():
                pass
            case _ if name not in {"request", "data"}:
                raise RuntimeError(f"{handler}: {name} is neither a QueryParameter nor a PathParameter")
    return frozenset(names)


class Query(NamedTuple):
    """The query parameters of a route.

    Args:
        declared: the names of its parameters, which must not be repeated.
        misplaced: the fields of its form, which are rejected in the query.
        is_strict: whether other parameters are rejected.
    """

    declared: frozenset[str]
    misplaced: frozenset[str] = frozenset()
    is_strict: bool = True


def query_of(handler: HTTPRouteHandler, *, is_public: bool) -> Query:
    """The query parameters of a route.

    Every documented route that needs a token rejects unknown parameters, since a mistyped one would have no effect. They
    are ignored by

    - public routes and pages: load balancers and shared links add parameters of their own;
    - routes with a form, as OAuth 2 requires (RFC 6749, section 3.2), except for the names of the form's fields;
    - routes that declare ``other_parameters="ignored"``.

    Raises:
        RuntimeError: a parameter is declared neither for the query nor for the path.
    """
    form: type[msgspec.Struct] | None = handler.opt.get("form")
    return Query(
        declared_query(handler),
        misplaced=frozenset(field.encode_name for field in msgspec.structs.fields(form))
        if form
        else frozenset(),
        is_strict=handler.resolve_include_in_schema()
        and not is_public
        and form is None
        and handler.opt.get("other_parameters") != "ignored",
    )


def read_query(scope: Any, query: Query) -> tuple[FieldError, ...]:
    """Removes from a request's query string what its route does not declare, before the framework parses it.

    Returns:
        What is wrong with it: parameters that are repeated, unknown or in the wrong place. Names are compared decoded:
        ``acc%6funt`` is ``account``.
    """
    remaining = []
    counts: Counter[str] = Counter()
    for part in scope["query_string"].split(b"&"):
        name = unquote_plus(str(part.partition(b"=")[0], "latin-1"))
        if name in query.declared:
            remaining.append(part)
        if part:
            counts[name] += 1
    scope["query_string"] = b"&".join(remaining)
    repeated = sorted(name for name in counts.keys() & query.declared if counts[name] > 1)
    misplaced = sorted(counts.keys() & query.misplaced)
    unknown = counts.keys() - query.declared if query.is_strict else ()
    return (
        *(FieldError(field=name, message=REPEATED) for name in repeated),
        *(FieldError(field=name, message=MISPLACED) for name in misplaced),
        *(_unknown(name, query.declared) for name in sorted(unknown)[:MAX_UNKNOWN]),
    )


def _unknown(name: str, declared: Iterable[str]) -> FieldError:
    field, message = unknown_name("parameter", name, [*sorted(declared), ACCESS_TOKEN])
    return FieldError(field=field, message=message)


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The names and values of a form's body, in order."""
    return parse_qsl(str(body, "latin-1"), keep_blank_values=True)


def unique_fields(body: bytes, declared: Iterable[str]) -> dict[str, str]:
    """The declared fields of a form's body.

    Raises:
        ProblemError: a declared field is repeated.
    """
    names = frozenset(declared)
    fields = [(name, value) for name, value in form_fields(body) if name in names]
    counts = Counter(name for name, _ in fields)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise repetition(repeated)
    return dict(fields)


def repetition(names: Iterable[str]) -> ProblemError:
    """The error for repeated fields."""
    return ProblemError(
        "bad_request", errors=tuple(FieldError(field=name, message=REPEATED) for name in names)
    )

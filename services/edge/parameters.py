"""Reads query strings and forms (``application/x-www-form-urlencoded``). A parameter that a route declares may come once:
where it came twice, a proxy in front and the route could each decide by another one.

Nothing is kept of what was read, unlike by the framework, whose caches of parsed query strings and forms hold a
thousand of each, up to 64 KiB, secrets included.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from services.edge.errors import Refused
from shared.contracts import FieldError

REPEATED = "given more than once"


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


def keep_declared(scope: Any, declared: frozenset[str]) -> tuple[str, ...]:
    """Removes from a request's query string what its route does not declare, before the framework parses it.

    Returns:
        The names that it has more than once, decoded: ``acc%6funt`` is ``account``.
    """
    kept = []
    counts: Counter[str] = Counter()
    for part in scope["query_string"].split(b"&") if declared else ():
        name = unquote_plus(str(part.partition(b"=")[0], "latin-1"))
        if name in declared:
            kept.append(part)
            counts[name] += 1
    scope["query_string"] = b"&".join(kept)
    return tuple(sorted(name for name, count in counts.items() if count > 1))


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The names and values of a form's body, in order."""
    return parse_qsl(str(body, "latin-1"), keep_blank_values=True)


def unique_fields(body: bytes, declared: Iterable[str]) -> dict[str, str]:
    """The declared fields of a form's body.

    Raises:
        Refused: one of them comes more than once.
    """
    names = frozenset(declared)
    fields = [(name, value) for name, value in form_fields(body) if name in names]
    counts = Counter(name for name, _ in fields)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise repetition(repeated)
    return dict(fields)


def repetition(names: Iterable[str]) -> Refused:
    """The rejection of a request that has declared parameters more than once."""
    return Refused("bad_request", errors=tuple(FieldError(field=name, message=REPEATED) for name in names))

"""The rules that routes declare for their requests, read once when the edge starts."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Litestar
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.routes import HTTPRoute
from msgspec import Struct, structs

from tallystick.contracts.messages import FieldError
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.authorization.requirements import (
    AccountIn,
    AnyToken,
    Public,
    Requirement,
    Scope,
    Session,
)
from tallystick_server.edge.http.bodies import JSON
from tallystick_server.edge.http.parameters import Query, query_of

MoreFaults = Callable[[HttpRequest, dict[str, Any]], Awaitable[list[FieldError]]]
"""Finds faults in a decoded body that its type does not reveal."""
Authenticate = Callable[[HttpRequest, "RouteRules"], Awaitable[None]]
"""Authenticates and authorizes a request whose credential need not be a bearer token.

Raises:
    AuthError: the request is rejected.
"""


class RouteRules(Struct, frozen=True, kw_only=True):
    """The rules of a route. A handler's decorator declares them, except ``query`` and ``body``.

    Args:
        requires: the requirement; ``scope``, ``account`` and ``alternative`` are its parts.
        authenticate: how a request is authenticated, if not by a bearer token alone.
        query: its query parameters. They must not be repeated, and others are rejected.
        body: the type of its JSON body.
        body_required: whether a request must have a body.
        json_types: the media types of that body.
        more_faults: finds further faults of a body that does not fit its type.
        form: the type of its form body, whose fields `form_of` returns. They must not be repeated.
        reads_body: whether the decision may have to wait for the body.
    """

    requires: Requirement
    scope: str | None = None
    account: AccountIn | None = None
    alternative: str | None = None
    authenticate: Authenticate | None = None
    query: Query = Query(frozenset())
    body: type[Struct] | None = None
    body_required: bool = False
    json_types: tuple[str, ...] = JSON
    more_faults: MoreFaults | None = None
    form: type[Struct] | None = None
    reads_body: bool = False


def rules_of(handler: BaseRouteHandler) -> RouteRules:
    """The rules of a route, as `declare_rules` has read them."""
    rules: RouteRules = handler.opt["rules"]
    return rules


def declare_rules(app: Litestar, before_request: object) -> None:
    """Reads the rules of every route.

    Args:
        app: the application.
        before_request: the guard that must run before each handler.

    Raises:
        RuntimeError: a route declares no requirement, not even `Public`; the guard does not run before it; or its
            declarations contradict each other.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.resolve_before_request() is not before_request:
                    raise RuntimeError(f"{route.path} would be served without the guard")
                handler.opt["rules"] = _read(route.path, handler)


def _read(path: str, handler: HTTPRouteHandler) -> RouteRules:
    opt = handler.opt
    if not isinstance(requires := opt.get("requires"), Requirement):
        raise RuntimeError(f"{path} declares no requirement")  # noqa: TRY004  # a programming error, like the others
    body = handler.parsed_fn_signature.parameters.get("data")
    if body is not None and not body.has_default and "POST" in handler.http_methods:
        is_optional = not any(field.required for field in structs.fields(body.annotation))
        if is_optional:
            raise RuntimeError(f"{path} requires no field of its body, so its body needs a default")
    authenticate, form = opt.get("authenticate"), opt.get("form")
    rules = RouteRules(
        requires=requires,
        scope=requires.name if isinstance(requires, Scope | Session) else None,
        account=requires.account if isinstance(requires, Scope | AnyToken) else None,
        alternative=requires.alternative if isinstance(requires, Scope) else None,
        authenticate=authenticate,
        query=query_of(handler, is_public=isinstance(requires, Public)),
        body=None if body is None else body.annotation,
        body_required=body is not None and not body.has_default,
        json_types=opt.get("json_types", JSON),
        more_faults=opt.get("more_faults"),
        form=form,
        reads_body=bool(body or form or authenticate),
    )
    if rules.account is AccountIn.QUERY and "account" not in rules.query.declared:
        raise RuntimeError(f"{path} takes its account from a query parameter that it does not declare")
    return rules


def public_paths(app: Litestar) -> frozenset[str]:
    """The path templates for which the middleware requires no token: those of public routes, and those of the dashboard,
    which uses sessions.

    Raises:
        RuntimeError: one path is public for one method, and not for another.
    """
    kinds: dict[str, set[bool]] = {}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.http_methods != {"OPTIONS"}:
                    is_public = isinstance(rules_of(handler).requires, Public | Session)
                    kinds.setdefault(route.path_format, set()).add(is_public)
    if mixed := [path for path, is_public in kinds.items() if len(is_public) > 1]:
        raise RuntimeError(f"{mixed} are public for some methods only")
    return frozenset(path for path, is_public in kinds.items() if is_public == {True})

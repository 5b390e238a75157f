"""Routing, rendering and error pages of the dashboard."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.handlers import HTTPRouteHandler
from litestar.plugins.htmx import HTMXRequest
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Redirect, Template
from litestar.template import TemplateConfig

from tallystick import VERSION
from tallystick.errors import AuthError
from tallystick_server.edge.authentication.context import HttpRequest, accepted, context_of, set_error
from tallystick_server.edge.authorization.requirements import PUBLIC, Session
from tallystick_server.edge.dashboard import filters, flash
from tallystick_server.edge.dashboard.flash import Flash
from tallystick_server.edge.dashboard.sessions import (
    ADMIN,
    Forged,
    SignInNeeded,
    TooManyAttempts,
    authenticate_session,
    csrf_of,
)
from tallystick_server.edge.http import errors
from tallystick_server.edge.http.errors import ProblemError

HEADERS = {
    # Nothing from other origins and nothing inline: script in a description does not run.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: the session's token may be restricted by referrer.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "cache-control": "no-store",
}

Page = Template | Redirect | Response[Any]
Decorator = Callable[[Callable[..., Awaitable[Page]]], HTTPRouteHandler]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tallystick_server.edge.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters.FILTERS
    environment.globals |= {"version": VERSION, "now": lambda: datetime.now(UTC), **filters.GLOBALS}
    return environment


TEMPLATES = TemplateConfig(instance=JinjaTemplateEngine.from_environment(_environment()))


def page(request: HttpRequest, name: str, *, status: int = 200, **context: Any) -> Template:
    """A page, or for htmx a part of one."""
    csrf, decision = csrf_of(request), accepted(request)
    message = flash.taken_by(request) if csrf else None
    common = {
        "flash": message,
        "me": decision.token if decision else None,
        "csrf": csrf,
        "path": request.scope["path"],
        "request_id": context_of(request).request_id,
    }
    return Template(
        name,
        context={**common, **context},
        status_code=status,
        headers=HEADERS,
        cookies=[flash.forgotten(request)] if message else [],
        media_type="text/html",
    )


def redirect(path: str, *cookies: Cookie) -> Redirect:
    return Redirect(path, status_code=303, headers=HEADERS, cookies=list(cookies))


def done(request: HttpRequest, path: str, message: Flash) -> Redirect:
    """Redirects to a page that shows the message once."""
    return redirect(path, flash.set_by(request, message))


def split_url(url: str) -> SplitResult:
    """The parts of a URL that a client sent; all empty if it is invalid."""
    try:
        return urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        return urlsplit("")


def local(path: str) -> str:
    """The path and query if they belong to the dashboard; otherwise the path of its first page."""
    target = split_url(path)
    segments = target.path.split("/")
    is_ours = not target.scheme and not target.netloc and segments[1:2] == ["admin"]
    # The browser resolves dot segments, and treats a backslash as a slash.
    leads_out = not {".", ".."}.isdisjoint(map(unquote, segments)) or "\\" in path or "//" in target.path
    if not is_ours or leads_out or not path.isprintable():
        return "/admin"
    return path


def _error_page(request: HttpRequest, error: Exception) -> Page:
    match error:
        case SignInNeeded():
            return _to_sign_in(request)
        case AuthError(reason="invalid_token") | ProblemError(code="invalid_token"):
            set_error(request, "invalid_token", error)
            return _to_sign_in(request)
        case Forged():
            set_error(request, "forged", error)
            return _error(request, 403, "Form rejected", str(error))
        case TooManyAttempts():
            set_error(request, "too_many_attempts", error)
            response = _error(request, 429, "Too many sign-in attempts", "Try again in a minute.")
            response.headers["retry-after"] = "60"
            return response
    problem = errors.as_problem(error)
    set_error(request, problem.code, error)
    status, headers, _ = errors.parts(problem)
    response = _error(request, status, errors.KINDS[problem.code].title, _advice(problem))
    response.headers |= {name: value for name, value in headers.items() if name != "content-type"}
    return response


def _error(request: HttpRequest, status: int, title: str, detail: str = "") -> Template:
    return page(request, "error.html", status=status, title=title, detail=detail)


def _advice(problem: ProblemError) -> str:
    match problem.code:
        case "insufficient_scope":
            return "The dashboard requires a token with scope “admin” or “*”."
        case "account_mismatch":
            return "Account-bound tokens cannot be used in the dashboard."
        case "unavailable" | "overloaded":
            return "The tokens or metrics service is not responding. Try again in a moment."
        case "not_found":
            return "This page or record does not exist."
    faults = (f"{fault.field}: {fault.message}" for fault in problem.errors)
    return "; ".join([problem.detail, *faults]).strip("; ")


def _to_sign_in(request: HttpRequest) -> Page:
    """Redirects to the login page, which then leads back to the current page."""
    scope = request.scope
    if request.headers.get("hx-request") == "true":
        # A part of a page cannot contain the login form, so htmx loads the whole login page.
        current = split_url(request.headers.get("hx-current-url", ""))
        return Response(
            None,
            status_code=204,
            headers={**HEADERS, "hx-redirect": _sign_in(current.path, current.query, ended=True)},
        )
    if request.method == "GET":
        return redirect(_sign_in(scope["path"], scope["query_string"].decode("latin-1")))
    # The page with the form: actions without a page of their own are on the token's page.
    page_of_form = scope["path"].removesuffix("/enable").removesuffix("/end-grace").removesuffix("/disable")
    return redirect(_sign_in(page_of_form, ended=True))


def _sign_in(path: str, query: str = "", *, ended: bool = False) -> str:
    target = local(f"{path}?{query}" if query else path)
    parameters = ["ended=true"] if ended else []
    parameters += [f"next={quote(target)}"] if target != "/admin" else []
    return "?".join(["/admin/sign-in", *(["&".join(parameters)] if parameters else [])])


_COMMON: dict[str, Any] = {
    "include_in_schema": False,
    "exception_handlers": {Exception: _error_page},
    "request_class": HTMXRequest,
}


def shows(path: str) -> Decorator:
    """Declares a page that requires a session."""
    return get(path, requires=Session(ADMIN), authenticate=authenticate_session, **_COMMON)


def changes(path: str) -> Decorator:
    """Declares the action of a form that requires a session."""
    return post(path, requires=Session(ADMIN), authenticate=authenticate_session, status_code=200, **_COMMON)


def shows_all(*paths: str) -> Decorator:
    """Declares a public page."""
    return get(list(paths), requires=PUBLIC, **_COMMON)


def takes_from_all(path: str) -> Decorator:
    """Declares the action of a public form."""
    return post(path, requires=PUBLIC, status_code=200, **_COMMON)


Handlers = list[HTTPRouteHandler]

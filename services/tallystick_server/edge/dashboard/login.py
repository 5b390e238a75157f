"""Signing in and out."""

from typing import Annotated

from litestar.params import QueryParameter

from tallystick.errors import AuthError
from tallystick_server.edge.authentication.context import HttpRequest, context_of, set_error
from tallystick_server.edge.dashboard import sessions
from tallystick_server.edge.dashboard.pages import (
    Handlers,
    Page,
    changes,
    local,
    page,
    redirect,
    shows_all,
    takes_from_all,
)
from tallystick_server.edge.dashboard.sessions import Attempts
from tallystick_server.edge.http.errors import KINDS, ProblemError, as_problem

INVALID_CREDENTIAL = "Invalid token: it is unknown, mistyped, expired, disabled or revoked."
SESSION_ENDED = "Your session has ended. If you were submitting a form, it was not saved."
LINK_USED = "This link has expired or was already used. Sign in with a token instead."


@shows_all("/admin/sign-in")
async def show_sign_in(
    request: HttpRequest,
    link: Annotated[str, QueryParameter(max_length=128)] = "",
    target: Annotated[str, QueryParameter(name="next", max_length=2048)] = "",
    *,
    ended: Annotated[bool, QueryParameter()] = False,
) -> Page:
    """The login form. A login link also needs a click, so that programs which only follow links do not use it up."""
    return page(
        request, "sign_in.html", link=link, next=local(target), problem=SESSION_ENDED if ended else ""
    )


@takes_from_all("/admin/sign-in")
async def sign_in(request: HttpRequest) -> Page:
    """Starts a session."""
    attempts: Attempts = request.app.state.attempts
    address = context_of(request).address
    form = await sessions.form(request)
    link = form.get("link", "")
    target = local(form.get("next", ""))
    is_counted = not link  # a link cannot be guessed
    if is_counted:
        attempts.start(address)
    try:
        cookie = await sessions.sign_in(
            request, token=None if link else form.get("token", ""), link=link or None
        )
    except (AuthError, ProblemError) as error:
        code = as_problem(error).code
        if code in {"unavailable", "overloaded", "rate_limited"}:
            if is_counted:
                attempts.refund(address)
            raise
        set_error(request, code, error)
        problem = (LINK_USED if link else INVALID_CREDENTIAL) if code == "invalid_token" else _denied(code)
        return page(request, "sign_in.html", status=KINDS[code].status, link="", next=target, problem=problem)
    if is_counted:
        attempts.refund(address)
    response = redirect(target)
    response.cookies.append(cookie)
    return response


@changes("/admin/sign-out")
async def sign_out(request: HttpRequest) -> Page:
    """Ends the session."""
    response = redirect("/admin/sign-in")
    response.cookies.append(await sessions.sign_out(request))
    return response


def _denied(code: str) -> str:
    if code == "insufficient_scope":
        return "This token is valid, but the dashboard requires scope “admin” or “*”."
    return f"{KINDS[code].title}."


HANDLERS: Handlers = [show_sign_in, sign_in, sign_out]

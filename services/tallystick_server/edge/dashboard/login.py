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

WRONG = "This token is not valid: it is unknown, mistyped, expired, disabled or revoked."
ENDED = "Your session has ended. A form that you sent just now was not carried out."
USED = "This link was used already, or its time is over. Sign in with a token instead."


@shows_all("/admin/sign-in")
async def ask(
    request: HttpRequest,
    link: Annotated[str, QueryParameter(max_length=128)] = "",
    wanted: Annotated[str, QueryParameter(name="next", max_length=2048)] = "",
    *,
    ended: Annotated[bool, QueryParameter()] = False,
) -> Page:
    """Asks for a token, or for a click where a link has brought one here: what merely follows links uses none up."""
    return page(request, "sign_in.html", link=link, next=local(wanted), problem=ENDED if ended else "")


@takes_from_all("/admin/sign-in")
async def begin(request: HttpRequest) -> Page:
    """Begins a session."""
    attempts: Attempts = request.app.state.attempts
    address = context_of(request).address
    sent = await sessions.form(request)
    link = sent.get("link", "")
    wanted = local(sent.get("next", ""))
    is_counted = not link  # which cannot be guessed
    if is_counted:
        attempts.start(address)
    try:
        cookie = await sessions.sign_in(
            request, token=None if link else sent.get("token", ""), link=link or None
        )
    except (AuthError, ProblemError) as error:
        code = as_problem(error).code
        if code in {"unavailable", "overloaded", "rate_limited"}:
            if is_counted:
                attempts.refund(address)
            raise
        set_error(request, code, error)
        problem = (USED if link else WRONG) if code == "invalid_token" else _denied(code)
        return page(request, "sign_in.html", status=KINDS[code].status, link="", next=wanted, problem=problem)
    if is_counted:
        attempts.refund(address)
    answer = redirect(wanted)
    answer.cookies.append(cookie)
    return answer


@changes("/admin/sign-out")
async def end(request: HttpRequest) -> Page:
    """Ends the session."""
    answer = redirect("/admin/sign-in")
    answer.cookies.append(await sessions.sign_out(request))
    return answer


def _denied(code: str) -> str:
    if code == "insufficient_scope":
        return "This token is valid, but the dashboard needs one with the scope “admin” or “*”."
    return f"{KINDS[code].title}."


HANDLERS: Handlers = [ask, begin, end]

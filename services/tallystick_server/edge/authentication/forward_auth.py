"""Answers a proxy's question, "may this request pass?", for tokens that are known here: without the framework, and
where the token has no restrictions, from what was answered to the same question before.

Whatever is unusual about a question is left to the route in `tallystick_server.edge.api.oauth`, which says the same.

Envoy appends the target of the client's request to the path of its check, so there the question is read from headers
that Envoy sets: the target, with its query string, is the client's and decides nothing.
"""

import re
from typing import NamedTuple
from urllib.parse import quote

from tallystick.coherence.cache import CachedToken
from tallystick.contracts.records import Restrictions, Token
from tallystick.errors import AuthError
from tallystick.tokens.access import AccessRequest
from tallystick.tokens.scopes import is_scope
from tallystick.verifier import Verifier
from tallystick_server.edge.authentication.context import Accepted, Decision
from tallystick_server.edge.authentication.credentials import Headers, token_parts
from tallystick_server.edge.http.errors import (
    FORWARD_AUTH_PATH,
    Answer,
    as_problem,
    complete_answer,
    error_answer,
)

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
REFUSED_METHODS = {"CONNECT", "TRACE"}
REMEMBERED = 32
"""Answers kept with each token."""
BEFORE_TARGET = f"{FORWARD_AUTH_PATH}/"
"""A check whose path begins with this is one of Envoy's, and the rest of it is the client's request target."""
QUESTION_HEADERS = {b"x-tallystick-scope": b"scope=", b"x-tallystick-account": b"account="}

_QUESTION = re.compile(rb"scope=([a-z0-9_.:-]{1,128})(?:&account=([A-Za-z0-9._~@-]{1,128}))?")
_UNRESTRICTED = Restrictions()


class Answered(NamedTuple):
    """A check that is answered from the cache."""

    decision: Decision
    answer: Answer


def read_question(headers: Headers, query: bytes) -> bytes:
    """The query of a check under `BEFORE_TARGET`, as one at `FORWARD_AUTH_PATH` has it.

    Scope and account are taken from `QUESTION_HEADERS`. One that comes twice is a repeated parameter, which is rejected.
    Of the client's query string only the token is kept.

    Args:
        headers: the header fields of the check.
        query: the query string of the client's request.
    """
    question = [
        parameter + quote(value, safe="*:~@").encode()
        for header, parameter in QUESTION_HEADERS.items()
        for name, value in headers
        if name == header
    ]
    return b"&".join([*question, *token_parts(query)])


def method_of_check(method: str) -> str:
    """The method to treat a check under `BEFORE_TARGET` as: the decision is the same for all, made-up ones too."""
    return method if method in METHODS | REFUSED_METHODS else "GET"


def answer_from_cache(verifier: Verifier, cached: CachedToken, method: str, query: bytes) -> Answered | None:
    """The answer; None where the route has to give it."""
    if method not in METHODS:
        return None
    known: Answered | None = cached.answers.get(query)
    return known or _decide(verifier, cached, query)


def headers(token: Token) -> dict[str, str]:
    """What a proxy hands on; each is always there, so that none can be spoofed."""
    return {
        "x-token-id": token.id,
        "x-token-account": token.account or "",
        "x-token-scopes": " ".join(token.scopes),
        "cache-control": "no-store",
    }


def _decide(verifier: Verifier, cached: CachedToken, query: bytes) -> Answered | None:
    question = _QUESTION.fullmatch(query)
    token = cached.token
    if question is None or token.restrictions != _UNRESTRICTED:
        return None
    scope, account = (part.decode() if part is not None else None for part in question.groups())
    if scope is None or not is_scope(scope):
        return None
    try:
        verifier.check(token, AccessRequest(scope, account))
        answered = Answered(Accepted(token), complete_answer(200, headers(token)))
    except AuthError as error:
        # Kept, so without the frames that it came through.
        answered = Answered(error.with_traceback(None), error_answer(as_problem(error), FORWARD_AUTH_PATH))
    if len(cached.answers) < REMEMBERED:
        cached.answers[query] = answered
    return answered

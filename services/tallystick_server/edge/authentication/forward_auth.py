"""The fast path of forward-auth: responds to a proxy's check for a cached token without the framework. For a token
without restrictions, the response to an earlier check with the same query is reused.

Unusual checks are left to the route in `tallystick_server.edge.api.oauth`, which decides in the same way.

Envoy appends the target of the client's request to the path of its check. Scope and account are then read from headers
that Envoy sets, since the client controls the target and its query string.
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
    RawResponse,
    as_problem,
    error_response,
    raw_response,
)

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
REJECTED_METHODS = {"CONNECT", "TRACE"}
MAX_CACHED_CHECKS = 32
"""Maximum number of check results that are cached with a token."""
BEFORE_TARGET = f"{FORWARD_AUTH_PATH}/"
"""The prefix of the path of Envoy's checks. The rest of the path is the client's request target."""
QUESTION_HEADERS = {b"x-tallystick-scope": b"scope=", b"x-tallystick-account": b"account="}

_QUESTION = re.compile(rb"scope=([a-z0-9_.:-]{1,128})(?:&account=([A-Za-z0-9._~@-]{1,128}))?")
_UNRESTRICTED = Restrictions()


class CheckResult(NamedTuple):
    """The decision on a check and its response."""

    decision: Decision
    response: RawResponse


def read_question(headers: Headers, query: bytes) -> bytes:
    """Translates a check under `BEFORE_TARGET` into the query string of a check at `FORWARD_AUTH_PATH`.

    Scope and account are read from `QUESTION_HEADERS`. A repeated header becomes a repeated parameter, which is rejected.
    Only the token of the client's query string is kept.

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
    """The method of a check under `BEFORE_TARGET`. Unknown methods count as GET: the decision does not depend on them."""
    return method if method in METHODS | REJECTED_METHODS else "GET"


def check_from_cache(
    verifier: Verifier, cached: CachedToken, method: str, query: bytes
) -> CheckResult | None:
    """The decision and its response; None if the route has to decide."""
    if method not in METHODS:
        return None
    result: CheckResult | None = cached.check_results.get(query)
    return result or _decide(verifier, cached, query)


def headers(token: Token) -> dict[str, str]:
    """The headers that a proxy passes on. All are always set, so that clients cannot spoof them."""
    return {
        "x-token-id": token.id,
        "x-token-account": token.account or "",
        "x-token-scopes": " ".join(token.scopes),
        "cache-control": "no-store",
    }


def _decide(verifier: Verifier, cached: CachedToken, query: bytes) -> CheckResult | None:
    question = _QUESTION.fullmatch(query)
    token = cached.token
    if question is None or token.restrictions != _UNRESTRICTED:
        return None
    scope, account = (part.decode() if part is not None else None for part in question.groups())
    if scope is None or not is_scope(scope):
        return None
    try:
        verifier.check(token, AccessRequest(scope, account))
        result = CheckResult(Accepted(token), raw_response(200, headers(token)))
    except AuthError as error:
        # Cached without the traceback, which would keep its frames alive.
        result = CheckResult(error.with_traceback(None), error_response(as_problem(error), FORWARD_AUTH_PATH))
    if len(cached.check_results) < MAX_CACHED_CHECKS:
        cached.check_results[query] = result
    return result

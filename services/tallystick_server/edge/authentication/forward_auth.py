"""Answers a proxy's question, "may this request pass?", for tokens that are known here: without the framework, and
where the token has no restrictions, from what was answered to the same question before.

Whatever is unusual about a question is left to the route in `tallystick_server.edge.api.oauth`, which says the same.

Envoy appends the target of the client's request to the path of its check, so there the question is read from headers
that Envoy sets: the target, with its query string, is the client's and decides nothing.
"""

import re
from urllib.parse import quote

from tallystick.coherence.cache import Entry
from tallystick.contracts.records import Restrictions, Token
from tallystick.errors import Refused
from tallystick.tokens.access import Demand, judge
from tallystick.tokens.scopes import is_scope
from tallystick_server.edge.authentication.credentials import token_parts
from tallystick_server.edge.authorization.guard import Gate, Scope
from tallystick_server.edge.http.errors import FORWARD_AUTH_PATH, PROBLEM_HEADER, Answer, made, refusal

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
REFUSED_METHODS = {"CONNECT", "TRACE"}
REMEMBERED = 32
"""Answers kept with each token."""
BEFORE_TARGET = f"{FORWARD_AUTH_PATH}/"
"""A check whose path begins with this is one of Envoy's, and the rest of it is the client's request target."""
QUESTION_HEADERS = {b"x-tallystick-scope": b"scope=", b"x-tallystick-account": b"account="}

_QUESTION = re.compile(rb"scope=([a-z0-9_.:-]{1,128})(?:&account=([A-Za-z0-9._~@-]{1,128}))?")
_UNRESTRICTED = Restrictions()


def read_question(scope: Scope) -> None:
    """Rewrites a check under `BEFORE_TARGET` to the same check at `FORWARD_AUTH_PATH`.

    Scope and account are taken from `QUESTION_HEADERS`. One that comes twice is a repeated parameter, which is rejected.
    Of the client's query string only the token is kept.
    """
    question = [
        parameter + quote(value, safe="*:~@").encode()
        for header, parameter in QUESTION_HEADERS.items()
        for name, value in scope["headers"]
        if name == header
    ]
    scope["path"], scope["raw_path"] = FORWARD_AUTH_PATH, FORWARD_AUTH_PATH.encode()
    scope["query_string"] = b"&".join([*question, *token_parts(scope["query_string"])])
    if scope["method"] not in METHODS | REFUSED_METHODS:
        scope["method"] = "GET"  # the verdict is the same for every method, made-up ones too


def rejection(refused: Refused) -> Answer:
    """A refusal whose body is in a header too, for proxies that discard the body."""
    found = refusal(refused)
    return found._replace(headers=(*found.headers, (PROBLEM_HEADER.encode(), found.body)))


def answer(gate: Gate, scope: Scope, entry: Entry, request_id: bytes) -> Answer | None:
    """The answer; None where the route has to give it."""
    query = scope["query_string"]
    known = entry.answers.get(query) or _judged(entry, query)
    if known is None or scope["method"] not in METHODS:
        return None
    refused, found = known
    if refused is None:
        gate.usage.used(entry.token.id, gate.address_of(scope))
    elif gate.usage.refused(entry.token.id, refused):
        gate.usage.note(entry.token.id, refused, gate.address_of(scope), "/auth", request_id.decode())
    return found


def headers(token: Token) -> dict[str, str]:
    """What a proxy hands on; each is always there, so that none can be spoofed."""
    return {
        "x-token-id": token.id,
        "x-token-account": token.account or "",
        "x-token-scopes": " ".join(token.scopes),
        "cache-control": "no-store",
    }


def _judged(entry: Entry, query: bytes) -> tuple[str | None, Answer] | None:
    """Why the request may not pass, if so, and the answer that says it."""
    question = _QUESTION.fullmatch(query)
    token = entry.token
    if question is None or token.restrictions != _UNRESTRICTED:
        return None
    scope, account = (part.decode() if part is not None else None for part in question.groups())
    if scope is None or not is_scope(scope):
        return None
    refused = judge(token, Demand(scope, account))
    if refused is None:
        found = made(200, headers(token))
    else:
        found = rejection(Refused(refused, scope=scope if refused == "insufficient_scope" else None))
    if len(entry.answers) < REMEMBERED:
        entry.answers[query] = refused, found
    return refused, found

"""Answers a proxy's question, "may this request pass?", for tokens that are known here: without the framework, and
where the token has no restrictions, from what was answered to the same question before.

Whatever is unusual about a question is left to the route in `services.edge.routes.standards`, which says the same.
"""

import re

from services.edge.cache import Entry
from services.edge.errors import Answer, Refused, made, refusal
from services.edge.gate import Gate, Scope
from shared.contracts import Restrictions, Token
from shared.judgement import Demand, judge
from shared.scopes import is_scope

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
REMEMBERED = 32
"""Answers kept with each token."""

_QUESTION = re.compile(rb"scope=([a-z0-9_.:-]{1,128})(?:&account=([A-Za-z0-9._~@-]{1,128}))?")
_UNRESTRICTED = Restrictions()


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
        found = refusal(Refused(refused, scope=scope if refused == "insufficient_scope" else None))
    if len(entry.answers) < REMEMBERED:
        entry.answers[query] = refused, found
    return refused, found

"""Extracts the bearer token from a request (RFC 6750, sections 2.1 and 2.3). It is removed from the headers and the query
string, so that no later code can log or repeat it.
"""

import re
from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from tallystick.errors import DenyReason
from tallystick.tokens.format import digest

Headers = Collection[tuple[bytes, bytes]]

_PLAIN = re.compile(rb"Bearer ([A-Za-z0-9_~+/=.-]+)")
_PLAIN_TOKEN = re.compile(rb"[A-Za-z0-9_~+/=.-]+")
_BEARER_PREFIX = b"Bearer "
_BEARER = re.compile(rb"bearer(?![!#$%&'*+\-.^_`|~0-9a-z])(?: +([^ \t]+) *)?(.*)", re.IGNORECASE | re.DOTALL)


Kind = Literal["none", "ambiguous", "bearer", "query", "basic", "form", "session"]


class Credential(Struct, frozen=True, gc=False):
    """The credential of a request.

    Args:
        kind: where it was sent: ``bearer`` and ``basic`` in the Authorization header, ``query`` in ``?access_token=``,
            ``form`` in ``client_secret``, ``session`` in the dashboard's cookie. ``none`` means that there is no
            credential, ``ambiguous`` that there are several or that its syntax is ambiguous.
        value: the token, unchecked, or the secret of a session. Empty for ``none`` and ``ambiguous``.
        readings: every reading of the password of HTTP Basic that may be a token.
    """

    kind: Kind
    value: str = ""
    readings: tuple[str, ...] = ()

    def fault(self) -> DenyReason | None:
        """Why it is rejected without a lookup."""
        if self.kind == "none":
            return "missing_token"
        if self.kind == "ambiguous":
            return "invalid_request"
        return None if digest(self.value) else "invalid_token"


NONE = Credential("none")
BEARER = Credential("bearer")
"""A bearer token whose value is no longer needed."""
AMBIGUOUS = Credential("ambiguous")


class ExtractedCredential(NamedTuple):
    """The credential, and the headers and query string without it."""

    credential: Credential
    headers: Headers
    query: bytes


def session_digest(secret: str) -> str:
    """The SHA-256 digest of the secret of a session or a login link, by which the tokens service stores it."""
    return sha256(secret.encode()).hexdigest()


def only_bearer(headers: Headers, fields: dict[bytes, bytes], query: bytes) -> bytes | None:
    """The text after ``Bearer ``, if there is certainly no other credential; None if only `take` can decide that. It is a
    token if it is found in the cache; otherwise its syntax is still to be checked by `is_single_token`.

    Args:
        headers: the raw header fields.
        fields: the same as a dictionary.
        query: the query string.
    """
    authorization = fields.get(b"authorization", b"")
    if (
        authorization[:7] != _BEARER_PREFIX
        or len(fields) != len(headers)
        or (query and (b"access" in query or b"%" in query))
    ):
        return None
    return authorization[7:]


def is_single_token(token: bytes) -> bool:
    """Whether the text after ``Bearer `` is certainly one token, valid or not."""
    return _PLAIN_TOKEN.fullmatch(token) is not None


def take(headers: Headers, query: bytes) -> ExtractedCredential:
    """Separates the credential from a request's raw headers (names in lower case) and query string."""
    in_headers = [value for name, value in headers if name == b"authorization"]
    in_query: list[bytes] = []
    if in_headers:
        headers = [(name, value) for name, value in headers if name != b"authorization"]
    # Any parameter whose name decodes to access_token counts: `access%5Ftoken=`.
    if b"access" in query or b"%" in query:
        in_query, query = _split_query(query)
    return ExtractedCredential(_credential(in_headers, in_query), headers, query)


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> Credential:
    """The token in the query string of the original request in forward-auth, which ``X-Forwarded-Uri`` (Traefik, Caddy)
    or ``X-Original-URI`` (nginx) contains.

    A client that sends such a header has the token, so the proxy need not be trusted. Headers with different tokens are
    ambiguous.
    """
    uris = [value for name, value in headers if name in (b"x-forwarded-uri", b"x-original-uri")]
    tokens_by_uri = [_split_query(uri.partition(b"#")[0].partition(b"?")[2])[0] for uri in uris]
    # Several headers may contain the same token; one header with several tokens is ambiguous.
    tokens = max(tokens_by_uri, key=len, default=[])
    distinct = {token for uri_tokens in tokens_by_uri for token in uri_tokens}
    return _credential([], tokens if len(distinct) <= 1 else [*distinct])


def token_parts(query: bytes) -> list[bytes]:
    """The parts of a query string that contain a token, as they were sent."""
    return [part for part in query.split(b"&") if _is_token(part.partition(b"=")[0])]


def _credential(in_headers: list[bytes], in_query: list[bytes]) -> Credential:
    if not in_headers and not in_query:
        return NONE
    if len(in_headers) == 1 and not in_query and (plain := _PLAIN.fullmatch(in_headers[0])):
        return Credential("bearer", plain[1].decode("latin-1"))
    bearer = [match for match in map(_BEARER.fullmatch, in_headers) if match]
    if len(in_headers) > 1 or len(bearer) + len(in_query) > 1:
        return AMBIGUOUS
    if bearer:
        token, rest = bearer[0].groups()
        return AMBIGUOUS if rest or not token else Credential("bearer", token.decode("latin-1"))
    if in_query:
        return Credential("query", in_query[0].decode("latin-1")) if in_query[0] else AMBIGUOUS
    return NONE  # other authentication schemes are ignored


def _is_token(name: bytes) -> bool:
    return unquote_to_bytes(name.replace(b"+", b" ")) == b"access_token"


def _split_query(query: bytes) -> tuple[list[bytes], bytes]:
    tokens, rest = [], []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if _is_token(name):
            tokens.append(unquote_to_bytes(value.replace(b"+", b" ")))
        else:
            rest.append(part)
    return tokens, b"&".join(rest)

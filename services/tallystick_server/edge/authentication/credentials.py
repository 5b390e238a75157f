"""Takes the bearer token off a request: out of the headers and the query string, so that nothing after this can
log or repeat it (RFC 6750, sections 2.1 and 2.3).
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from tallystick.errors import DenyReason
from tallystick.tokens.format import digest

Headers = Sequence[tuple[bytes, bytes]]

_PLAIN = re.compile(rb"Bearer ([A-Za-z0-9_~+/=.-]+)")
_BEARER = re.compile(rb"bearer(?![!#$%&'*+\-.^_`|~0-9a-z])(?: +([^ \t]+) *)?(.*)", re.IGNORECASE | re.DOTALL)


Kind = Literal["none", "ambiguous", "bearer", "query", "basic", "form", "session"]


class Credential(Struct, frozen=True, gc=False):
    """What a request presents.

    Args:
        kind: where it stands: ``bearer`` and ``basic`` in the Authorization header, ``query`` in ``?access_token=``,
            ``form`` in ``client_secret``, ``session`` in the dashboard's cookie. A request has ``none``; or it is
            ``ambiguous``: there are two, or the syntax leaves open what is meant.
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
AMBIGUOUS = Credential("ambiguous")


class Taken(NamedTuple):
    """The credential, and the request without it."""

    credential: Credential
    headers: Headers
    query: bytes


def session_digest(secret: str) -> str:
    """By what the tokens service knows a session or a login link: the SHA-256 digest of its secret."""
    return sha256(secret.encode()).hexdigest()


def plain_bearer(headers: Headers, fields: dict[bytes, bytes], query: bytes) -> bytes | None:
    """The token of a bearer credential that is certainly the only one; None where `take` has to find out.

    Args:
        headers: the raw header fields.
        fields: the same as a dictionary.
        query: the query string.
    """
    if len(fields) != len(headers) or (query and (b"access" in query or b"%" in query)):
        return None
    plain = _PLAIN.fullmatch(fields.get(b"authorization", b""))
    return plain[1] if plain else None


def take(headers: Headers, query: bytes) -> Taken:
    """Separates the credential from a request's raw headers (names in lower case) and query string."""
    in_headers = [value for name, value in headers if name == b"authorization"]
    in_query: list[bytes] = []
    if in_headers:
        headers = [(name, value) for name, value in headers if name != b"authorization"]
    # Any part that decodes to the name counts, however it is written: `access%5Ftoken=`.
    if b"access" in query or b"%" in query:
        in_query, query = _split_query(query)
    return Taken(_credential(in_headers, in_query), headers, query)


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> Credential:
    """The token in the query of the request that a proxy asks about, as ``X-Forwarded-Uri`` (Traefik, Caddy) or
    ``X-Original-URI`` (nginx) names it.

    The sender of such a header has the token in it, so the proxy need not be trusted. Two of them, or two
    tokens in them, leave open which is meant.
    """
    uris = [value for name, value in headers if name in (b"x-forwarded-uri", b"x-original-uri")]
    found = [_split_query(uri.partition(b"#")[0].partition(b"?")[2])[0] for uri in uris]
    # Several such headers may agree; one that names several tokens does not.
    tokens = max(found, key=len, default=[])
    different = {token for each in found for token in each}
    return _credential([], tokens if len(different) <= 1 else [*different])


def token_parts(query: bytes) -> list[bytes]:
    """The parts of a query string that hold a token, as they were written."""
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
    return NONE  # another scheme is as if nothing was sent


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

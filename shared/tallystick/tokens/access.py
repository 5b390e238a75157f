"""Checks an access request against its token: scope, account, addresses and referrers, in this order. Pure."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from tallystick.contracts.records import Token
from tallystick.tokens.addresses import address, network
from tallystick.tokens.scopes import covers

AccessDenial = Literal[
    "insufficient_scope", "account_mismatch", "address_not_allowed", "referrer_not_allowed"
]

MAX_REFERRER_BYTES = 2048
"""A longer Referer header matches no pattern."""


class AccessRequest(NamedTuple):
    """What a request asks of a token.

    Args:
        scope: the scope that the route requires; None if any valid token is accepted.
        account: the account that the request names, if any.
        any_account: whether an account-bound token is accepted for any account, since the route is about the token.
        address: the client's address.
        referrer: the Referer header, if any.
    """

    scope: str | None
    account: str | None = None
    any_account: bool = False
    address: str | None = None
    referrer: str | None = None


def check_access(token: Token, access: AccessRequest) -> AccessDenial | None:
    """The first reason to reject the request; None if it is accepted."""
    if access.scope is not None and not covers(token.scopes, access.scope):
        return "insufficient_scope"
    if token.account is not None and not access.any_account and access.account != token.account:
        return "account_mismatch"
    limits = token.restrictions
    if limits.addresses is not None and not address_allowed(limits.addresses, access.address):
        return "address_not_allowed"
    if limits.referrers is not None and not referrer_allowed(limits.referrers, access.referrer):
        return "referrer_not_allowed"
    return None


def address_allowed(allowed: tuple[str, ...], client: str | None) -> bool:
    client_address = address(client) if client is not None else None
    return client_address is not None and any(client_address in _network(text) for text in allowed)


def referrer_allowed(allowed: tuple[str, ...], referrer: str | None) -> bool:
    """Whether one of the patterns matches.

    ``*`` matches anything within the scheme, the host or the path; the query is never matched, so
    ``https://evil.example/?https://good.example/`` is evil.example's. A pattern without ``://`` is for any scheme,
    one without a path for the origin alone, and a lone ``*`` for any page. A referrer over `MAX_REFERRER_BYTES`
    matches nothing.
    """
    # A character takes at least one byte, and text outside ASCII is rejected, so the length may be in characters.
    if referrer is None or len(referrer) > MAX_REFERRER_BYTES or _NOT_IN_A_URL.search(referrer):
        return False
    try:
        parts = urlsplit(referrer)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return False
    if not host:
        return False
    referrer_parts = (parts.scheme.lower(), host.lower() + port, parts.path.removeprefix("/"))
    return any(
        all(matches(segments, part) for segments, part in zip(_patterns(text), referrer_parts, strict=True))
        for text in allowed
    )


_network = lru_cache(4096)(network)

_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")

_SHORT = 16  # characters
_PADDED = 30_000  # characters


def matches(segments: tuple[str, ...], text: str, find: Callable[[str, str, int], int] = str.find) -> bool:
    """Whether a text consists of the segments in this order, with anything between two of them, in linear time.

    The first segment stands at the start and the last one at the end. Each of the others is searched for once, from
    where the one before it ends: if any arrangement fits, the leftmost one does, so there is nothing to try again.

    Args:
        segments: the parts of a pattern between its ``*``; a pattern without ``*`` is one segment.
        text: what has to match.
        find: how to search, as `str.find`; a test counts its steps.
    """
    if len(segments) == 1:
        return text == segments[0]
    first, *middle, last = segments
    position, end = len(first), len(text) - len(last)
    if position > end or not text.startswith(first) or not text.endswith(last):
        return False
    # CPython searches a text of 30,000 characters in linear time (two-way), but a shorter one in the product of both
    # lengths. Segments hold no NUL, so padding with it adds no match.
    padded = text.ljust(_PADDED, "\0") if any(len(segment) > _SHORT for segment in middle) else text
    for segment in middle:
        start = find(padded, segment, position)
        position = start + len(segment)
        if start < 0 or position > end:
            return False
    return True


@lru_cache(4096)
def _patterns(text: str) -> tuple[tuple[str, ...], ...]:
    """The segments of a pattern's scheme, host and path."""
    if text == "*":
        text = "*/*"
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "*", text
    host, _, path = rest.partition("/")
    return tuple(tuple(part.split("*")) for part in (scheme.lower(), host.lower(), path))

"""Whether a token may do what a request asks: scope, account, addresses and referrers, in this order. Pure."""

import re
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from shared.addresses import address, network
from shared.contracts import Token
from shared.scopes import covers

Refusal = Literal["insufficient_scope", "account_mismatch", "address_not_allowed", "referrer_not_allowed"]


class Demand(NamedTuple):
    """What a request asks of a token.

    Args:
        scope: the scope its route requires; None where any token will do.
        account: the account it names; None where it names none.
        any_account: the route is about the token itself, so an account-bound one may use it.
        address: the client's address.
        referrer: the Referer header; None where there is none.
    """

    scope: str | None
    account: str | None = None
    any_account: bool = False
    address: str | None = None
    referrer: str | None = None


def judge(token: Token, demand: Demand) -> Refusal | None:
    """The first thing that does not fit; None when all does."""
    if demand.scope is not None and not covers(token.scopes, demand.scope):
        return "insufficient_scope"
    if token.account is not None and not demand.any_account and demand.account != token.account:
        return "account_mismatch"
    limits = token.restrictions
    if limits.addresses is not None and not address_allowed(limits.addresses, demand.address):
        return "address_not_allowed"
    if limits.referrers is not None and not referrer_allowed(limits.referrers, demand.referrer):
        return "referrer_not_allowed"
    return None


def address_allowed(allowed: tuple[str, ...], client: str | None) -> bool:
    found = address(client) if client is not None else None
    return found is not None and any(found in _network(text) for text in allowed)


def referrer_allowed(allowed: tuple[str, ...], referrer: str | None) -> bool:
    """Whether one of the patterns matches.

    ``*`` stands for anything within the scheme, the host or the path; nothing is looked for in the query, so
    ``https://evil.example/?https://good.example/`` is evil.example's. A pattern without ``://`` is for any scheme,
    one without a path for the origin alone, and a lone ``*`` for any page.
    """
    if referrer is None or re.search(r"[\x00-\x20\x7f-\U0010ffff\\]", referrer):
        return False
    try:
        parts = urlsplit(referrer)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return False
    if not host:
        return False
    found = (parts.scheme.lower(), host.lower() + port, parts.path.removeprefix("/"))
    return any(
        all(pattern.fullmatch(part) for pattern, part in zip(_patterns(text), found, strict=True))
        for text in allowed
    )


_network = lru_cache(4096)(network)


@lru_cache(4096)
def _patterns(text: str) -> tuple[re.Pattern[str], ...]:
    if text == "*":
        text = "*/*"
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "*", text
    host, _, path = rest.partition("/")
    return tuple(
        re.compile(".*".join(map(re.escape, part.split("*"))), re.DOTALL)
        for part in (scheme.lower(), host.lower(), path)
    )

"""What every request passes before its handler, in this order: syntax, token, scope, account, addresses,
referrers, rate limit, body.
"""

import math
from collections.abc import Callable
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from services.edge import bodies
from services.edge.cache import Unknown
from services.edge.checker import Checker
from services.edge.client_address import client_address
from services.edge.errors import Refused
from services.edge.quotas import Quotas
from services.edge.usage import Usage
from shared.contracts import Quota, Token
from shared.judgement import Demand, judge

PUBLIC = "public"
"""The required scope of a route that needs no token."""
OWN = "own"
"""The required scope of a route about the token itself: any token will do, an account-bound one too."""
ANY = "any"
"""The required scope of a route that needs a token and no scope."""
ASKED = "asked"
"""The required scope of a route that is told one in the request, and judges by it itself."""

HttpRequest = Request[Any, Any, Any]


async def authorize(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar's guard for every route. A route's ``opt`` says what it requires:

    - ``scope``: a scope, or one of the four above.
    - ``account_in``: ``path``, ``query`` or ``body``, where it names an account.
    - ``body``: the type of its JSON body.

    Raises:
        Refused: the first thing that does not fit.
    """
    required: str = handler.opt["scope"]  # `app` sees to it that every route names one
    request: HttpRequest = connection  # type: ignore[assignment]  # websockets are off
    if required not in {PUBLIC, ASKED}:
        await admit(
            request,
            required if required not in {OWN, ANY} else None,
            account=await _named_account(request, handler),
            any_account=required == OWN,
        )
    if kind := handler.opt.get("body"):
        await _check_body(request, kind)


async def admit(
    request: HttpRequest, scope: str | None, *, account: str | None = None, any_account: bool = False
) -> Token:
    """Lets a request in, and answers the token that did.

    Args:
        request: the request.
        scope: what it takes; None for any token.
        account: the account the request names.
        any_account: it is about the token itself.

    Raises:
        Refused: the first of syntax, token, scope, account, addresses, referrers and rate limit that does not fit.
    """
    checker: Checker = request.app.state.checker
    usage: Usage = request.app.state.usage
    state = request.scope["state"]
    address = address_of(request)
    known = checker.warm(state["credential"]) or await checker.check(state["credential"])

    def refuse(token_id: str, reason: str) -> None:
        usage.refused(token_id, reason, address, request.scope["path_template"], state.get("request_id"))

    if isinstance(known, Unknown):
        if known.refused is not None:
            refuse(known.refused.id, known.refused.reason)
        raise Refused("invalid_token")
    token = known.token
    demand = Demand(
        scope=scope,
        account=account,
        any_account=any_account,
        address=address,
        referrer=request.headers.get("referer"),
    )
    if refusal := judge(token, demand):
        refuse(token.id, refusal)
        raise Refused(
            refusal,
            scope=scope if refusal == "insufficient_scope" else None,
            address=address if refusal == "address_not_allowed" else None,
        )
    if token.restrictions.rate_limit is not None:
        await _spend(request, token, refuse)
    usage.used(token.id, address)
    state["token"] = token
    return token


async def _spend(request: HttpRequest, token: Token, refuse: Callable[[str, str], None]) -> None:
    quotas: Quotas = request.app.state.quotas
    quota = await quotas.spend(token)
    if quota is None:
        return
    request.scope["state"]["rate_limit"] = rate_limit_fields(quota)
    if not quota.granted:
        refuse(token.id, "rate_limited")
        raise Refused("rate_limited", headers={"retry-after": str(max(1, math.ceil(quota.resets_in)))})


def token_of(request: HttpRequest) -> Token:
    """The token that let this request in."""
    token: Token = request.scope["state"]["token"]
    return token


def rate_limit_fields(quota: Quota) -> list[tuple[bytes, bytes]]:
    """The IETF's RateLimit and RateLimit-Policy fields (draft-ietf-httpapi-ratelimit-headers)."""
    resets_in = max(1, math.ceil(quota.resets_in))
    return [
        (b"ratelimit-policy", f'"token";q={quota.limit};w={quota.window}'.encode()),
        (b"ratelimit", f'"token";r={quota.remaining};t={resets_in}'.encode()),
    ]


def address_of(request: HttpRequest) -> str | None:
    """The client's address, as far as the proxies in between are trusted."""
    forwarded = [value for name, value in request.scope["headers"] if name == b"x-forwarded-for"]
    peer = request.client.host if request.client else None
    return client_address(peer, forwarded, request.app.state.trusted_proxies)


async def _named_account(request: HttpRequest, handler: BaseRouteHandler) -> str | None:
    match handler.opt.get("account_in"):
        case "path":
            named = request.path_params.get("account")
        case "query":
            values = request.query_params.getall("account", [])
            named = values[0] if len(values) == 1 else None
        case "body":
            named = bodies.loosely(await request.body()).get("account")
        case _:
            named = None
    return named if isinstance(named, str) else None


async def _check_body(request: HttpRequest, kind: Any) -> None:
    content_types = request.headers.getall("content-type", [])
    if [each.partition(";")[0].strip().lower() for each in content_types] != [
        "application/json"
    ] or request.headers.get("content-encoding", "identity") != "identity":
        raise Refused("unsupported_media_type")
    if found := bodies.problems(await request.body(), kind):
        raise Refused("bad_request", errors=tuple(found))

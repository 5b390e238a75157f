"""What every request passes before its handler, in this order: syntax, token, scope, account, addresses,
referrers, rate limit, body.
"""

import math
from functools import lru_cache
from typing import Any, NoReturn

import msgspec
from litestar import Request
from nats.aio.client import Client

from tallystick.coherence.cache import Cache, Entry, Known, Unknown
from tallystick.coherence.invalidation import now
from tallystick.coherence.lookup import Checker
from tallystick.coherence.quotas import Quotas
from tallystick.coherence.usage import Usage
from tallystick.contracts import validation
from tallystick.contracts.messages import FieldError
from tallystick.contracts.quotas import Quota
from tallystick.contracts.records import Restrictions, Token
from tallystick.contracts.verification import Verdict
from tallystick.errors import Refused
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import Measures
from tallystick.producer import Producer
from tallystick.rpc.hedged import Hedged
from tallystick.tokens import addresses
from tallystick.tokens.access import Demand, judge
from tallystick.tokens.addresses import Network
from tallystick.tokens.scopes import covers
from tallystick_server.edge.http import bodies, parameters
from tallystick_server.edge.http.proxies import client_address
from tallystick_server.edge.http.request_counter import UNROUTED, Calls

PUBLIC = "public"
"""The required scope of a route that needs no token."""
OWN = "own"
"""The required scope of a route about the token itself: any token will do, an account-bound one too."""
ANY = "any"
"""The required scope of a route that needs a token and no scope."""
ASKED = "asked"
"""The required scope of a route that is told one in the request, and judges by it itself."""

FORM = "application/x-www-form-urlencoded"
JSON = ("application/json",)

HttpRequest = Request[Any, Any, Any]
Scope = Any
"""An ASGI connection scope; its ``state`` holds this gate, the credential and the request's id."""


class Gate:
    """Decides about requests.

    Args:
        cache: what is known of tokens.
        trusted_proxies: whose X-Forwarded-For is believed.
    """

    checker: Checker
    quotas: Quotas

    def __init__(self, cache: Cache, trusted_proxies: tuple[Network, ...]) -> None:
        self.cache = cache
        self.usage = Usage()
        self.measures = Measures()
        self.calls = Calls(self.measures)
        self._trusted = trusted_proxies
        self.logs_requests = False
        """Whether there is an access log, for which an answer from outside the framework has to say what it is about."""

    def connect(self, client: Client) -> None:
        """Before the first request: whom to ask about what is not known here."""
        tokens = Hedged(client)
        self.checker = Checker(tokens, self.cache, self.measures)
        self.quotas = Quotas(tokens, self.measures)

    def measured_by(self, producer: Producer) -> None:
        """Has what is counted here reported."""
        producer.measures = self.measures
        self.measures.gauge(catalogue.EDGES, lambda: 1)
        self.measures.gauge(catalogue.LEASES, lambda: self.cache.alive(now()))
        self.measures.gauge(catalogue.CACHED_TOKENS, lambda: len(self.cache))
        producer.before_report += [lambda: self.calls.report(producer), self._count_checks]

    def _count_checks(self) -> None:
        self.measures.count(catalogue.USES_DROPPED, self.usage.dropped)
        self.usage.dropped = 0
        for result, count in self.usage.take_results().items():
            self.measures.count(catalogue.TOKEN_CHECKS, count, result=result)
        for reason, count in self.usage.take_ended().items():
            self.measures.count(catalogue.REVOKED_TOKEN_USES, count, reason=reason)

    async def admit(
        self, scope: Scope, required: str | None, *, account: str | None = None, any_account: bool = False
    ) -> Token:
        """Lets a request in, and answers the token that did.

        Args:
            scope: the request.
            required: the scope it takes; None for any token.
            account: the account the request names.
            any_account: it is about the token itself.

        Raises:
            Refused: the first of syntax, token, scope, account, addresses, referrers and rate limit that does not
                fit.
        """
        known = await self._known(scope)
        return await self.let_in(scope, known, required, account=account, any_account=any_account)

    async def screen(
        self, scope: Scope, required: str | None, *, account: str | None = None, any_account: bool = False
    ) -> None:
        """Rejects a request early, as `admit` would. One that passes has used nothing up and is not counted.

        Raises:
            Refused: as `admit` does, the rate limit aside.
        """
        self._judged(scope, await self._known(scope), required, account=account, any_account=any_account)

    def screen_known(self, scope: Scope, known: Known, required: str) -> None:
        """The same for a token that was looked up already."""
        self._judged(scope, known, required, account=None, any_account=False)

    def reject(self, scope: Scope, verdict: Verdict) -> NoReturn:
        """Rejects a request as the tokens service has judged it.

        Raises:
            Refused: always.
        """
        token = verdict.token.id if verdict.token else verdict.refused.id if verdict.refused else None
        reason = verdict.refused.log_reason if verdict.refused else verdict.code
        if token is None:
            self.usage.results[verdict.code] += 1
        else:
            self._note(scope, token, reason, self.address_of(scope))
        raise Refused(verdict.code, scope="admin" if verdict.code == "insufficient_scope" else None)

    async def _known(self, scope: Scope) -> Known:
        state = scope["state"]
        entry: Entry | None = state["entry"]
        return entry or await self.checker.check(state["credential"].presented())

    async def let_in(
        self,
        scope: Scope,
        known: Known,
        required: str | None,
        *,
        account: str | None = None,
        any_account: bool = False,
    ) -> Token:
        """The same for a token that was looked up already."""
        token, address = self._judged(scope, known, required, account=account, any_account=any_account)
        if token.restrictions.rate_limit is not None:
            await self._spend(scope, token, address)
        self.usage.used(token.id, address)
        scope["state"]["token"] = token
        return token

    def _judged(
        self, scope: Scope, known: Known, required: str | None, *, account: str | None, any_account: bool
    ) -> tuple[Token, str | None]:
        """The token, if it is valid and may do this, and the client's address."""
        address = self.address_of(scope)
        if isinstance(known, Unknown):
            if known.refused is not None:
                self._note(scope, known.refused.id, known.refused.log_reason, address)
            else:
                self.usage.results["invalid_token"] += 1
            raise Refused("invalid_token")
        token = known.token
        demand = Demand(required, account, any_account, address, referrer_of(scope, token))
        if refusal := judge(token, demand):
            self._note(scope, token.id, refusal, address)
            raise Refused(
                refusal,
                scope=required if refusal == "insufficient_scope" else None,
                address=address if refusal == "address_not_allowed" else None,
            )
        return token, address

    def address_of(self, scope: Scope) -> str | None:
        """The client's address, as far as the proxies in between are trusted."""
        client = scope["client"]
        peer = client[0] if client else None
        if not self._trusted:
            return _unproxied(peer)
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return client_address(peer, forwarded, self._trusted)

    def is_encrypted(self, scope: Scope) -> bool:
        """Whether the client speaks HTTPS, as far as the proxies in between are trusted."""
        if scope["scheme"] == "https":
            return True
        return self._said_by_proxy(scope, b"x-forwarded-proto").lower() == "https"

    def hosts_of(self, scope: Scope) -> tuple[str, ...]:
        """The names, with ports, by which the client may have addressed this site: Host; and the proxy's
        X-Forwarded-Host, alone and with X-Forwarded-Port, as far as the proxies in between are trusted.
        """
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if host := self._said_by_proxy(scope, b"x-forwarded-host"):
            hosts.append(host)
            if port := self._said_by_proxy(scope, b"x-forwarded-port"):
                hosts.append(f"{host}:{port}")
        return tuple(hosts)

    def _said_by_proxy(self, scope: Scope, name: bytes) -> str:
        """A header as the proxy next to us has set it: the last value of the list. Empty if that is not trusted."""
        peer = addresses.address(scope["client"][0]) if scope["client"] else None
        if peer is None or not any(peer in network for network in self._trusted):
            return ""
        values = [value for field, value in scope["headers"] if field == name]
        return values[-1].rpartition(b",")[2].strip().decode("latin-1") if values else ""

    async def _spend(self, scope: Scope, token: Token, address: str | None) -> None:
        quota = await self.quotas.spend(token)
        if quota is None:
            return
        scope["state"]["rate_limit"] = rate_limit_fields(quota)
        if not quota.granted:
            self._note(scope, token.id, "rate_limited", address)
            raise Refused("rate_limited", headers={"retry-after": str(max(1, math.ceil(quota.resets_in)))})

    def _note(self, scope: Scope, token: str, reason: str, address: str | None) -> None:
        """For the token's log, and the access log."""
        scope["state"]["rejected"] = token, reason
        if self.usage.refused(token, reason):
            route = scope.get("path_template", UNROUTED)
            self.usage.note(token, reason, address, route, scope["state"]["request_id"])


async def authorize(request: HttpRequest) -> None:
    """Runs before every route's handler. A route's ``opt`` says what it requires:

    - ``scope``: a scope, or one of the four above.
    - ``or_scope``: another scope that admits as well; the tokens service then judges what the request changes.
    - ``account_in``: ``path``, ``query`` or ``body``, where it names an account; ``token`` if it names a token, whose
      account the tokens service knows.
    - ``query``: its query parameters, which `app` takes from its signature. None may come twice, and no other at all.
    - ``other_parameters``: ``ignored`` for a route that other query parameters may be sent to.
    - ``body``: the type of its JSON body, which may be left out unless ``body_required``.
    - ``inquire``: adds to the faults of a JSON body that does not fit its type; a function of the request and what could
      be decoded of the body.
    - ``form``: the type of its form body, whose fields the handler gets by `form_of`. None may come twice.
    - ``by``: the function that authorizes the request instead, for a route with other credentials than a token in
      the header or the query.

    Raises:
        Refused: the first thing that does not fit.
    """
    scope = request.scope
    opt = scope["route_handler"].opt
    required: str = opt["scope"]  # `app` sees to it that every route names one
    state = scope["state"]
    faults = parameters.read_query(scope, opt["query"]) if scope["query_string"] else ()
    entry: Entry | None = state["entry"]
    if entry is not None and required in entry.admitted and not opt["reads_body"]:
        # What `admit` found for an unrestricted token before.
        gate: Gate = state["gate"]
        gate.usage.used(entry.token.id, gate.address_of(scope))
        state["token"] = entry.token
        if not faults:
            return
    elif by := opt.get("by"):
        await by(request)
    elif required not in {PUBLIC, ASKED}:
        await _admit_to_route(request, required, faults)
    if faults:
        raise Refused("bad_request", errors=faults)
    if kind := opt.get("body"):
        await _check_body(request, kind)
    elif kind := opt.get("form"):
        state["form"] = await _read_form(request, kind)


async def _admit_to_route(request: HttpRequest, required: str, faults: tuple[FieldError, ...]) -> None:
    """Admits a request to a route that declares its scope, and caches that for an unrestricted token.

    Only these scopes are remembered with a token: there are as many as routes, while a proxy's client may ask
    ``/auth`` about ever new ones.
    """
    scope = request.scope
    opt, state = scope["route_handler"].opt, scope["state"]
    gate = gate_of(request)
    place = opt.get("account_in")
    demanded = None if required in {OWN, ANY} else required
    any_account = required == OWN or place == "token"
    try:
        if opt["reads_body"]:
            # Before the body, which may take its time, and after it, when the token may have ended.
            account = None if place == "body" else await _named_account(request, place)
            first = await _chosen(request, demanded)
            await gate.screen(scope, first, account=account, any_account=any_account or place == "body")
            await request.body()
            state["entry"] = None
            demanded = await _chosen(request, demanded)
        entry: Entry | None = state["entry"]
        account = await _named_account(request, place)
        token = await gate.admit(scope, demanded, account=account, any_account=any_account)
    except Refused as refused:
        # The request names two accounts, so none can be called the wrong one.
        if refused.code == "account_mismatch" and any(fault.field == "account" for fault in faults):
            raise Refused("bad_request", errors=faults) from None
        raise
    if (
        entry is not None
        and demanded is not None
        and state["entry"] is entry
        and token.account is None
        and token.restrictions == _UNRESTRICTED
    ):
        entry.admitted.add(required)


_UNRESTRICTED = Restrictions()


def gate_of(request: HttpRequest) -> Gate:
    gate: Gate = request.scope["state"]["gate"]
    return gate


def token_of(request: HttpRequest) -> Token:
    """The token that let this request in."""
    token: Token = request.scope["state"]["token"]
    return token


def form_of(request: HttpRequest) -> dict[str, str]:
    """The fields of this request's form that its route declares."""
    form: dict[str, str] = request.scope["state"]["form"]
    return form


def rate_limit_fields(quota: Quota) -> list[tuple[bytes, bytes]]:
    """The IETF's RateLimit and RateLimit-Policy fields (draft-ietf-httpapi-ratelimit-headers), and the older ones that
    EmailEngine's clients read.
    """
    resets_in = max(1, math.ceil(quota.resets_in))
    return [
        (b"ratelimit-policy", f'"token";q={quota.limit};w={quota.window}'.encode()),
        (b"ratelimit", f'"token";r={quota.remaining};t={resets_in}'.encode()),
        (b"x-ratelimit-limit", b"%d" % quota.limit),
        (b"x-ratelimit-remaining", b"%d" % quota.remaining),
        (b"x-ratelimit-reset", b"%d" % resets_in),
    ]


@lru_cache(4096)
def _unproxied(peer: str | None) -> str | None:
    return client_address(peer, (), ())


def referrer_of(scope: Scope, token: Token) -> str | None:
    """The Referer header, where the token is restricted by it."""
    return None if token.restrictions.referrers is None else referrer(scope)


def referrer(scope: Scope) -> str | None:
    """The Referer header."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"referer"), None)


async def _chosen(request: HttpRequest, required: str | None) -> str | None:
    """The scope to require: the route's other one, of a token that covers only that."""
    scope = request.scope
    other: str | None = scope["route_handler"].opt.get("or_scope")
    if other is None or required is None:
        return required
    known = await gate_of(request).checker.check(scope["state"]["credential"].presented())
    if isinstance(known, Entry) and not covers(known.token.scopes, required):
        return other if covers(known.token.scopes, other) else required
    return required


async def _named_account(request: HttpRequest, place: str | None) -> str | None:
    match place:
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
    opt = request.scope["route_handler"].opt
    # Without a body the handler gets its default. Many clients then send the media type all the same.
    if not opt["body_required"] and not await request.body() and _is_json_or_absent(request):
        return
    _check_media_type(request, *opt.get("json_types", JSON))
    if found := bodies.problems(await request.body(), kind):
        if inquire := opt.get("inquire"):
            more = await inquire(request, bodies.loosely(await request.body()))
            found = validation.with_others(found, more)
        raise Refused("bad_request", errors=tuple(found))


async def _read_form(request: HttpRequest, kind: Any) -> dict[str, str]:
    _check_media_type(request, FORM)
    declared = [field.encode_name for field in msgspec.structs.fields(kind)]
    return parameters.unique_fields(await request.body(), declared)


def _is_json_or_absent(request: HttpRequest) -> bool:
    return _media_types(request) in ([], list(JSON)) and _is_uncoded(request)


def _check_media_type(request: HttpRequest, *media_types: str) -> None:
    found = _media_types(request)
    if len(found) != 1 or found[0] not in media_types or not _is_uncoded(request):
        detail = f"the body must be {' or '.join(media_types)}, without a content coding"
        raise Refused("unsupported_media_type", detail)


def _media_types(request: HttpRequest) -> list[str]:
    fields = request.headers.getall("content-type", [])
    return [field.partition(";")[0].strip().lower() for field in fields]


def _is_uncoded(request: HttpRequest) -> bool:
    return bool(request.headers.get("content-encoding", "identity") == "identity")

"""The guard, which runs before every handler. It checks in this order: query, token, scope, account, address, referrer,
rate limit, body. The middleware has authenticated the token; the guard authorizes the request.
"""

from msgspec import structs

from tallystick.coherence.cache import CachedToken
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import Restrictions, Token
from tallystick.errors import AuthError
from tallystick.tokens.access import AccessRequest
from tallystick.tokens.scopes import covers
from tallystick_server.edge.authentication.authenticator import authenticate
from tallystick_server.edge.authentication.context import (
    Accepted,
    HttpRequest,
    RequestContext,
    context_of,
    decide,
    set_context,
    state_of,
    verifier_of,
)
from tallystick_server.edge.authorization.requirements import AccountIn, AnyToken, Scope
from tallystick_server.edge.authorization.routes import RouteRules, rules_of
from tallystick_server.edge.http import bodies, parameters
from tallystick_server.edge.http.errors import ProblemError

_UNRESTRICTED = Restrictions()


async def authorize(request: HttpRequest) -> None:
    """Checks a request against the rules of its route.

    Raises:
        AuthError: the credential is rejected.
        ProblemError: the query or the body is invalid.
        Unavailable: the tokens service does not reply.
    """
    scope = request.scope
    rules = rules_of(scope["route_handler"])
    faults = parameters.read_query(scope, rules.query) if scope["query_string"] else ()
    state = state_of(request)
    cached = state["context"].cached
    if cached is not None and rules.scope in cached.admitted and not rules.reads_body:
        # This unrestricted token was authorized for the scope before.
        state["decision"] = Accepted(cached.token)
        if not faults:
            return
    elif rules.authenticate is not None:
        await rules.authenticate(request, rules)
    elif isinstance(rules.requires, Scope | AnyToken):
        await _authorize_token(request, rules, faults)
    if faults:
        raise ProblemError("bad_request", errors=faults)
    if rules.body is not None:
        await bodies.check_json(
            request,
            rules.body,
            rules.json_types,
            required=rules.body_required,
            more_faults=rules.more_faults,
        )
    elif rules.form is not None:
        state["form"] = await bodies.read_form(request, rules.form)


async def authenticate_again(request: HttpRequest) -> RequestContext:
    """Looks the token up again after the body was read: it may have been revoked while a slow client sent the body.

    Raises:
        AuthError: the token is no longer valid.
        Unavailable: the tokens service does not reply.
    """
    context = context_of(request)
    credential, cached = await authenticate(verifier_of(request), context.credential)
    context = structs.replace(context, credential=credential, cached=cached)
    set_context(request, context)
    return context


async def admit(request: HttpRequest, access: AccessRequest) -> Token:
    """Authorizes a request, consumes one request of the token's rate limit, and records the decision.

    Raises:
        AuthError: the token does not allow the request, or its rate limit is exceeded.
        Unavailable: the tokens service does not reply.
    """
    token = cached_of(request).token
    quota = await verifier_of(request).authorize(token, access)
    decide(request, Accepted(token, quota))
    return token


def cached_of(request: HttpRequest) -> CachedToken:
    """The token of the request's credential.

    Raises:
        AuthError: the request presents no valid credential.
    """
    context = context_of(request)
    if context.cached is None:
        raise AuthError(context.credential.fault() or "missing_token")
    return context.cached


def access_to(
    request: HttpRequest, scope: str | None, account: str | None = None, *, any_account: bool = False
) -> AccessRequest:
    """The access request of an HTTP request, with the address and the referrer it comes from."""
    context = context_of(request)
    return AccessRequest(scope, account, any_account, context.address, context.referrer)


async def _authorize_token(request: HttpRequest, rules: RouteRules, faults: tuple[FieldError, ...]) -> None:
    """Authorizes a request for the scope that its route declares, and caches the result for an unrestricted token.

    Only scopes of routes are cached, since their number is bounded. Requests to ``/auth`` may name any scope.
    """
    place = rules.account
    any_account = place is AccountIn.TOKEN
    try:
        if rules.reads_body:
            # Checked before the body is read, and again after it: a slow body may outlast the token.
            account = None if place is AccountIn.BODY else await _named_account(request, place)
            unnamed = any_account or place is AccountIn.BODY
            access = access_to(request, _scope_for(request, rules), account, any_account=unnamed)
            verifier_of(request).check(cached_of(request).token, access)
            await request.body()
            await authenticate_again(request)
        account = await _named_account(request, place)
        scope = _scope_for(request, rules)
        token = await admit(request, access_to(request, scope, account, any_account=any_account))
    except AuthError as error:
        # The request names two accounts, so the error is the repetition, not a mismatch.
        if error.reason == "account_mismatch" and any(fault.field == "account" for fault in faults):
            raise ProblemError("bad_request", errors=faults) from None
        raise
    if (
        scope is not None
        and scope == rules.scope
        and not rules.reads_body
        and token.account is None
        and token.restrictions == _UNRESTRICTED
    ):
        cached_of(request).admitted.add(scope)


def _scope_for(request: HttpRequest, rules: RouteRules) -> str | None:
    """The scope to require: the route's alternative if the token covers only that."""
    scope, alternative = rules.scope, rules.alternative
    if scope is None or alternative is None:
        return scope
    scopes = cached_of(request).token.scopes
    return alternative if covers(scopes, alternative) and not covers(scopes, scope) else scope


async def _named_account(request: HttpRequest, place: AccountIn | None) -> str | None:
    match place:
        case AccountIn.PATH:
            account = request.path_params.get("account")
        case AccountIn.QUERY:
            values = request.query_params.getall("account", [])
            account = values[0] if len(values) == 1 else None
        case AccountIn.BODY:
            account = bodies.loosely(await request.body()).get("account")
        case _:
            account = None
    return account if isinstance(account, str) else None

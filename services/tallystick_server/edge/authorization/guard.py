"""What every request passes before its handler, in this order: syntax, token, scope, account, addresses, referrers,
rate limit, body. The middleware has authenticated the sender; the guard authorizes the request.
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
    """Runs before every route's handler, and holds the request to what the route declares.

    Raises:
        AuthError: the credential is rejected.
        ProblemError: the query or the body does not fit.
        Unavailable: this cannot be decided now.
    """
    scope = request.scope
    rules = rules_of(scope["route_handler"])
    faults = parameters.read_query(scope, rules.query) if scope["query_string"] else ()
    state = state_of(request)
    cached = state["context"].cached
    if cached is not None and rules.scope in cached.admitted and not rules.reads_body:
        # What was found for this unrestricted token before.
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
    """Looks the token up again: sending the body may have taken long, and the token may have been revoked meanwhile.

    Raises:
        AuthError: the token is not valid any more.
        Unavailable: this cannot be decided now.
    """
    context = context_of(request)
    credential, cached = await authenticate(verifier_of(request), context.credential)
    context = structs.replace(context, credential=credential, cached=cached)
    set_context(request, context)
    return context


async def admit(request: HttpRequest, access: AccessRequest) -> Token:
    """Checks what the request's token allows, uses up one request of its rate limit, and accepts the request.

    Raises:
        AuthError: the token does not allow it, or its rate limit is used up.
        Unavailable: this cannot be decided now.
    """
    token = cached_of(request).token
    quota = await verifier_of(request).authorize(token, access)
    decide(request, Accepted(token, quota))
    return token


def cached_of(request: HttpRequest) -> CachedToken:
    """The token that the request's credential stands for.

    Raises:
        AuthError: it presents none.
    """
    context = context_of(request)
    if context.cached is None:
        raise AuthError(context.credential.fault() or "missing_token")
    return context.cached


def access_to(
    request: HttpRequest, scope: str | None, account: str | None = None, *, any_account: bool = False
) -> AccessRequest:
    """What a request asks of its token, with where it comes from."""
    context = context_of(request)
    return AccessRequest(scope, account, any_account, context.address, context.referrer)


async def _authorize_token(request: HttpRequest, rules: RouteRules, faults: tuple[FieldError, ...]) -> None:
    """Holds a request to the scope that its route declares, and remembers that an unrestricted token covers it.

    Only these scopes are remembered with a token: there are as many as routes, while a proxy's client may ask
    ``/auth`` about ever new ones.
    """
    place = rules.account
    any_account = place is AccountIn.TOKEN
    try:
        if rules.reads_body:
            # Before the body, which may take its time, and after it, when the token may have ended.
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
        # The request names two accounts, so none can be called the wrong one.
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
    """The scope to require: the route's alternative, of a token that covers only that."""
    scope, alternative = rules.scope, rules.alternative
    if scope is None or alternative is None:
        return scope
    scopes = cached_of(request).token.scopes
    return alternative if covers(scopes, alternative) and not covers(scopes, scope) else scope


async def _named_account(request: HttpRequest, place: AccountIn | None) -> str | None:
    match place:
        case AccountIn.PATH:
            named = request.path_params.get("account")
        case AccountIn.QUERY:
            values = request.query_params.getall("account", [])
            named = values[0] if len(values) == 1 else None
        case AccountIn.BODY:
            named = bodies.loosely(await request.body()).get("account")
        case _:
            named = None
    return named if isinstance(named, str) else None

"""The standard interfaces: forward-auth for proxies, introspection (RFC 7662), and revocation (RFC 7009)."""

from typing import Annotated, Any, Literal

from litestar import HttpMethod, MediaType, Response, post, route
from litestar.params import QueryParameter
from msgspec import UNSET, Struct, UnsetType

from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import Restrictions
from tallystick.tokens.format import digest
from tallystick.tokens.scopes import is_scope
from tallystick_server.edge.api import introspection
from tallystick_server.edge.api.introspection import read_question
from tallystick_server.edge.api.tokens import revoke_token
from tallystick_server.edge.authentication import forward_auth
from tallystick_server.edge.authentication.client_authentication import authenticate_client
from tallystick_server.edge.authentication.context import HttpRequest, form_of
from tallystick_server.edge.authorization.guard import access_to, admit
from tallystick_server.edge.authorization.requirements import AccountIn, AnyToken, Scope, ScopeInQuery
from tallystick_server.edge.http.errors import FORWARD_AUTH_PATH, ProblemError


class TokenForm(Struct, kw_only=True):
    """The token to revoke.

    Args:
        token: the token.
        token_type_hint: accepted and ignored; there is only one type.
        client_id: accepted and ignored; the client's token identifies the client.
        client_secret: the client's own token, unless it is in a header or the query string.
    """

    token: str
    token_type_hint: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET


class IntrospectionForm(TokenForm, kw_only=True):
    """The token to introspect, and the request that presented it.

    Args:
        token: the token.
        token_type_hint: accepted and ignored; there is only one type.
        client_id: accepted and ignored; the client's token identifies the client.
        client_secret: the client's own token, unless it is in a header or the query string.
        scope: the scopes that the token must cover, separated by spaces.
        account: the account that the request is about.
        address: the IP address that the request came from.
        referrer: the Referer header of the request.
        restrictions: `show` to receive the token's restrictions and check those whose fields you omit yourself.
    """

    scope: str | UnsetType = UNSET
    account: str | UnsetType = UNSET
    address: str | UnsetType = UNSET
    referrer: str | UnsetType = UNSET
    restrictions: Literal["show"] | UnsetType = UNSET


class Introspection(Struct, kw_only=True):
    """The state of a token (RFC 7662). A token that is not active has only the member ``active``.

    Args:
        active: whether the token is valid and allows the given request.
        scope: the requested scopes, or all scopes of the token if none was requested, separated by spaces.
        client_id: the token's public id.
        sub: the account that the token is bound to.
        iat: when the token was created, in seconds since the epoch.
        nbf: when the token becomes valid, in seconds since the epoch.
        exp: when the token expires, in seconds since the epoch.
        jti: the token's public id.
        restrictions: the token's restrictions, if the request has `restrictions=show`.
    """

    active: bool
    scope: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    token_type: Literal["Bearer"] | UnsetType = UNSET
    sub: str | UnsetType = UNSET
    iat: int | UnsetType = UNSET
    nbf: int | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    restrictions: Restrictions | UnsetType = UNSET


@route(
    FORWARD_AUTH_PATH,
    http_method=[
        HttpMethod.GET,
        HttpMethod.POST,
        HttpMethod.PUT,
        HttpMethod.PATCH,
        HttpMethod.DELETE,
        HttpMethod.OPTIONS,
    ],
    requires=ScopeInQuery(),
    status_code=200,
)
async def auth(
    request: HttpRequest,
    required_scope: Annotated[
        str, QueryParameter(name="scope", description="the scope that the token must cover")
    ],
    account: Annotated[
        str | None, QueryParameter(description="the account that the request is about")
    ] = None,
) -> Response[None]:
    """Authorize a request on behalf of a proxy (forward-auth).

    Paths that begin with `/auth/` are served too, for Envoy, which appends the client's request target. There the scope
    and the account are read from the headers `X-Tallystick-Scope` and `X-Tallystick-Account`, never from the query.

    A rejection also has its body in the header `X-Token-Problem`, for proxies that pass on headers only.
    """
    if not is_scope(required_scope):
        raise ProblemError("bad_request", "`scope` must be one valid scope")
    token = await admit(request, access_to(request, required_scope, account))
    # A JSON response would have a body; responses from the cache have none.
    return Response(None, status_code=200, headers=forward_auth.headers(token), media_type=MediaType.TEXT)


@post(
    "/oauth2/introspect",
    requires=Scope("introspect"),
    form=IntrospectionForm,
    authenticate=authenticate_client,
    status_code=200,
)
async def introspect(request: HttpRequest) -> Introspection:
    """Introspect a token (RFC 7662).

    With any of `scope`, `account`, `address` and `referrer`, the token is checked as `/auth` checks a request, and one
    request of its rate limit is consumed. If a restriction cannot be checked because its field is absent, the token is
    not active, unless you send `restrictions=show` and check that restriction yourself.
    """
    value, question = _token_parameter(request), read_question(form_of(request))
    token = await introspection.introspect(request, value, question)
    if token is None:
        return Introspection(active=False)
    return Introspection(
        active=True,
        scope=" ".join(question.scopes or token.scopes),
        client_id=token.id,
        token_type="Bearer",  # noqa: S106  # a type of token
        sub=token.account if token.account is not None else UNSET,
        iat=int(token.created.timestamp()),
        nbf=int(token.not_before.timestamp()) if token.not_before is not None else UNSET,
        exp=int(token.expires.timestamp()) if token.expires is not None else UNSET,
        jti=token.id,
        restrictions=token.restrictions if question.show else UNSET,
    )


@post(
    "/oauth2/revoke",
    requires=AnyToken(AccountIn.TOKEN),
    form=TokenForm,
    authenticate=authenticate_client,
    status_code=200,
)
async def revoke(request: HttpRequest) -> Response[None]:
    """Revoke a token (RFC 7009).

    A token may revoke itself; to revoke others it needs scope ``api:tokens:delete``. An unknown token is not an error.
    """
    of_token = digest(_token_parameter(request))
    if of_token is not None:
        try:
            await revoke_token(request, digest=of_token)
        except ProblemError as error:
            if error.code != "not_found":
                raise
    return Response(None, status_code=200)


def _token_parameter(request: HttpRequest) -> str:
    """The form's ``token``.

    Raises:
        ProblemError: it is missing or empty.
    """
    token = form_of(request).get("token")
    if not token:
        raise ProblemError("bad_request", errors=(FieldError(field="token", message="must not be empty"),))
    return token


HANDLERS: list[Any] = [auth, introspect, revoke]

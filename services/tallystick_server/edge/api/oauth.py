"""What others ask by standards: proxies (forward-auth), introspection (RFC 7662), revocation (RFC 7009)."""

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
from tallystick_server.edge.api.tokens import end
from tallystick_server.edge.authentication import forward_auth
from tallystick_server.edge.authentication.client_authentication import authenticate_client
from tallystick_server.edge.authentication.context import HttpRequest, form_of
from tallystick_server.edge.authorization.guard import access_to, admit
from tallystick_server.edge.authorization.requirements import AccountIn, AnyToken, Scope, ScopeInQuery
from tallystick_server.edge.http.errors import FORWARD_AUTH_PATH, ProblemError


class TokenForm(Struct, kw_only=True):
    """The token in question.

    Args:
        token: the token.
        token_type_hint: accepted and ignored: there is one type.
        client_id: accepted and ignored: the client's token says who the client is.
        client_secret: the client's token, if neither a header nor the query string has it.
    """

    token: str
    token_type_hint: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET


class IntrospectionForm(TokenForm, kw_only=True):
    """The token in question, and the request that the token came with.

    Args:
        token: the token.
        token_type_hint: accepted and ignored: there is one type.
        client_id: accepted and ignored: the client's token says who the client is.
        client_secret: the client's token, if neither a header nor the query string has it.
        scope: the scopes that the token must cover, separated by spaces.
        account: the account that the request is about.
        address: the IP address that the request came from.
        referrer: the Referer header of the request.
        restrictions: `show` if you check the token's restrictions yourself, as far as you leave out what they need.
    """

    scope: str | UnsetType = UNSET
    account: str | UnsetType = UNSET
    address: str | UnsetType = UNSET
    referrer: str | UnsetType = UNSET
    restrictions: Literal["show"] | UnsetType = UNSET


class Introspection(Struct, kw_only=True):
    """What a token is (RFC 7662). A token that is not active has no other member than ``active``.

    Args:
        active: whether the token is valid, and may do what was asked about.
        scope: the scopes that were asked about, else those of the token, separated by spaces.
        client_id: the token's public id.
        sub: the account it is bound to.
        iat: when it was made; this and the other times in seconds since the epoch.
        nbf: before when it is not valid.
        exp: when it expires.
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
    wanted: Annotated[str, QueryParameter(name="scope", description="what the token has to cover")],
    account: Annotated[
        str | None, QueryParameter(description="the account that the request is about")
    ] = None,
) -> Response[None]:
    """May this request pass? For a proxy that asks before it lets one through.

    A path that begins with `/auth/` is answered too, for Envoy, which appends the client's target. There the scope and
    the account are read from the headers `X-Tallystick-Scope` and `X-Tallystick-Account` and never from the query.

    A rejection has its body in `X-Token-Problem` too, for proxies that pass on headers only.
    """
    if not is_scope(wanted):
        raise ProblemError("bad_request", "the query has to name one scope")
    token = await admit(request, access_to(request, wanted, account))
    # As JSON it would have a body, which the answers given without this route have not.
    return Response(None, status_code=200, headers=forward_auth.headers(token), media_type=MediaType.TEXT)


@post(
    "/oauth2/introspect",
    requires=Scope("introspect"),
    form=IntrospectionForm,
    authenticate=authenticate_client,
    status_code=200,
)
async def introspect(request: HttpRequest) -> Introspection:
    """Tells what a token is (RFC 7662).

    With any of `scope`, `account`, `address` and `referrer`, the token is judged as `/auth` judges a request, and one
    request of its rate limit is used up. A token with a restriction that cannot be checked, because the field it needs
    is absent, is not active, unless you send `restrictions=show` and check it yourself.
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
    """Revokes a token (RFC 7009): oneself, or any with scope ``api:tokens:delete``. Unknown ones are no error."""
    of_token = digest(_token_parameter(request))
    if of_token is not None:
        try:
            await end(request, digest=of_token)
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

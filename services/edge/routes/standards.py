"""What others ask by standards: proxies (forward-auth), introspection (RFC 7662), revocation (RFC 7009)."""

from typing import Annotated, Any, Literal

from litestar import HttpMethod, MediaType, Response, post, route
from litestar.params import QueryParameter
from msgspec import UNSET, Struct, UnsetType

from services.edge import forward_auth
from services.edge.credentials import NONE, forwarded
from services.edge.errors import Refused
from services.edge.gate import ANY, ASKED, HttpRequest, form_of, gate_of
from services.edge.routes.asking import ask
from services.edge.routes.tokens import end
from shared import contracts as c
from shared.scopes import is_scope
from shared.token_value import digest


class TokenForm(Struct):
    """Which token is meant.

    Args:
        token: the token itself.
        token_type_hint: taken, as the standards have it, and not needed: there is one type.
    """

    token: str
    token_type_hint: str | UnsetType = UNSET


class Introspection(Struct, kw_only=True):
    """What a token is (RFC 7662); ``active`` alone for every token that is not honoured.

    Args:
        scope: its scopes, separated by spaces.
        client_id: the token's public id.
        sub: the account it is bound to.
        iat: when it was made; this and the other times in seconds since the epoch.
        nbf: before when it is not honoured.
        exp: when it ends.
        jti: the token's public id.
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


@route(
    "/auth",
    http_method=[
        HttpMethod.GET,
        HttpMethod.POST,
        HttpMethod.PUT,
        HttpMethod.PATCH,
        HttpMethod.DELETE,
        HttpMethod.OPTIONS,
    ],
    opt={"scope": ASKED},
    status_code=200,
)
async def auth(
    request: HttpRequest,
    wanted: Annotated[str, QueryParameter(name="scope", description="what the token has to cover")],
    account: Annotated[
        str | None, QueryParameter(description="the account that the request is about")
    ] = None,
) -> Response[None]:
    """May this request pass? For a proxy that asks before it lets one through."""
    if not is_scope(wanted):
        raise Refused("bad_request", "the query has to name one scope")
    state = request.scope["state"]
    if state["credential"] == NONE:  # a client that cannot set headers, behind a proxy
        state["credential"] = forwarded(request.scope["headers"])
    token = await gate_of(request).admit(request.scope, wanted, account=account)
    # As JSON it would have a body, which the answers given without this route have not.
    return Response(None, status_code=200, headers=forward_auth.headers(token), media_type=MediaType.TEXT)


@post("/oauth2/introspect", opt={"scope": "introspect", "form": TokenForm}, status_code=200)
async def introspect(request: HttpRequest) -> Introspection:
    """Tells what a token is (RFC 7662)."""
    of_token = digest(_token_parameter(request))
    if of_token is None:
        return Introspection(active=False)
    verdict = await ask(request, c.VERIFY, c.VerifyToken(digest=of_token))
    token = verdict.token
    if token is None:
        return Introspection(active=False)
    return Introspection(
        active=True,
        scope=" ".join(token.scopes),
        client_id=token.id,
        token_type="Bearer",  # noqa: S106  # a type of token
        sub=token.account if token.account is not None else UNSET,
        iat=int(token.created.timestamp()),
        nbf=int(token.not_before.timestamp()) if token.not_before is not None else UNSET,
        exp=int(token.expires.timestamp()) if token.expires is not None else UNSET,
        jti=token.id,
    )


@post("/oauth2/revoke", opt={"scope": ANY, "account_in": "token", "form": TokenForm}, status_code=200)
async def revoke(request: HttpRequest) -> Response[None]:
    """Revokes a token (RFC 7009): oneself, or any with scope ``api:tokens:delete``. Unknown ones are no error."""
    of_token = digest(_token_parameter(request))
    if of_token is not None:
        try:
            await end(request, digest=of_token)
        except Refused as refused:
            if refused.code != "not_found":
                raise
    return Response(None, status_code=200)


def _token_parameter(request: HttpRequest) -> str:
    """The form's ``token``.

    Raises:
        Refused: it has none.
    """
    token = form_of(request).get("token")
    if not token:
        raise Refused("bad_request", "the form has to hold one token")
    return token


HANDLERS: list[Any] = [auth, introspect, revoke]

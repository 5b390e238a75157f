"""What others ask by standards: proxies (forward-auth), introspection (RFC 7662), revocation (RFC 7009)."""

from typing import Any

from litestar import HttpMethod, Response, post, route
from litestar.params import FromQuery

from services.edge.errors import Refused
from services.edge.gate import ANY, PUBLIC, HttpRequest, admit, token_of
from services.edge.routes.asking import ask
from services.edge.routes.tokens import end
from shared import contracts as c
from shared.scopes import covers, is_scope
from shared.token_value import digest


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
    opt={"scope": PUBLIC},  # it lets in by the scope it is asked for
    status_code=200,
)
async def auth(request: HttpRequest, account: FromQuery[str | None] = None) -> Response[None]:
    """May this request pass? For a proxy that asks before it lets one through."""
    wanted = request.query_params.getall("scope", [])
    if len(wanted) != 1 or not is_scope(wanted[0]):
        raise Refused("bad_request", "the query has to name one scope")
    token = await admit(request, wanted[0], account=account)
    return Response(
        None,
        status_code=200,
        headers={
            "x-token-id": token.id,
            "x-token-account": token.account or "",
            "x-token-scopes": " ".join(token.scopes),
            "cache-control": "no-store",
        },
    )


@post("/oauth2/introspect", opt={"scope": "introspect"}, status_code=200)
async def introspect(request: HttpRequest) -> dict[str, Any]:
    """What a token is (RFC 7662); ``{"active": false}`` for every token that is not honoured."""
    of_token = digest(await _token_parameter(request))
    if of_token is None:
        return {"active": False}
    verdict = await ask(request, c.VERIFY, c.VerifyToken(digest=of_token))
    token = verdict.token
    if token is None:
        return {"active": False}
    facts: dict[str, Any] = {
        "active": True,
        "scope": " ".join(token.scopes),
        "client_id": token.id,
        "token_type": "Bearer",
        "iat": int(token.created.timestamp()),
        "jti": token.id,
    }
    if token.account is not None:
        facts["sub"] = token.account
    for name, time in (("exp", token.expires), ("nbf", token.not_before)):
        if time is not None:
            facts[name] = int(time.timestamp())
    return facts


@post("/oauth2/revoke", opt={"scope": ANY}, status_code=200)
async def revoke(request: HttpRequest) -> Response[None]:
    """Revokes a token (RFC 7009): oneself, or any with scope ``api:tokens:delete``. Unknown ones are no error."""
    of_token = digest(await _token_parameter(request))
    if of_token is not None:
        verdict = await ask(request, c.VERIFY, c.VerifyToken(digest=of_token))
        itself = verdict.token is not None and verdict.token.id == token_of(request).id
        if not itself and not covers(token_of(request).scopes, "api:tokens:delete"):
            raise Refused("insufficient_scope", scope="api:tokens:delete")
        try:
            await end(request, digest=of_token)
        except Refused as refused:
            if refused.code != "not_found":
                raise
    return Response(None, status_code=200)


async def _token_parameter(request: HttpRequest) -> str:
    """The form's ``token``.

    Raises:
        Refused: the body is no form, or does not name one token.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise Refused("unsupported_media_type")
    values = (await request.form()).getall("token", [])
    if len(values) != 1 or not isinstance(values[0], str) or not values[0]:
        raise Refused("bad_request", "the form has to hold one token")
    return values[0]


HANDLERS: list[Any] = [auth, introspect, revoke]

"""Access tokens: make, list, show, revoke."""

from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from services.edge.routes.asking import HttpRequest, actor, ask
from shared import contracts as c
from shared import token_value

NO_STORE = {"cache-control": "no-store"}


class CreatedToken(c.Token, frozen=True):
    """A new token, with its secret for the only time."""

    token: str


@post("/v1/tokens", opt={"scope": "api:tokens:write"})
async def create(request: HttpRequest, data: JSONBody[c.NewToken]) -> Response[CreatedToken]:
    """Makes a token and shows its secret, once."""
    value = token_value.mint()
    made = await ask(
        request,
        c.CREATE_TOKEN,
        c.CreateToken(
            token=data,
            digest=token_value.digest(value) or "",
            hint=token_value.hint(value),
            actor=actor(request),
        ),
    )
    created = CreatedToken(token=value, **msgspec.structs.asdict(made))
    return Response(created, status_code=201, headers={**NO_STORE, "location": f"/v1/tokens/{made.id}"})


@get("/v1/tokens", opt={"scope": "api:tokens:read"})
async def list_tokens(
    request: HttpRequest,
    page: FromQuery[int] = 0,
    page_size: Annotated[int, QueryParameter(name="pageSize")] = 20,
    search: Annotated[str | None, QueryParameter(name="query")] = None,
    account: FromQuery[str | None] = None,
) -> c.TokenPage:
    """Lists tokens, newest first."""
    return await ask(
        request, c.LIST_TOKENS, c.ListTokens(page=page, page_size=page_size, query=search, account=account)
    )


@get("/v1/tokens/{token_id:str}", opt={"scope": "api:tokens:read"})
async def show(request: HttpRequest, token_id: FromPath[str]) -> c.Token:
    """Shows one token."""
    return await ask(request, c.GET_TOKEN, c.GetToken(id=token_id))


@delete("/v1/tokens/{token_id:str}", opt={"scope": "api:tokens:delete"}, status_code=200)
async def revoke(request: HttpRequest, token_id: FromPath[str]) -> c.Revoked:
    """Revokes a token for good. Once this returns it is refused everywhere."""
    return await ask(request, c.REVOKE_TOKEN, c.RevokeToken(id=token_id, actor=actor(request)))


HANDLERS: list[Any] = [create, list_tokens, show, revoke]

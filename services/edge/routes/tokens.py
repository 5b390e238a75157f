"""Access tokens: make, list, show, edit, rotate, revoke."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import UNSET, UnsetType

from services.edge.gate import OWN, HttpRequest, gate_of, token_of
from services.edge.routes.asking import actor, ask, change, idempotency_key
from services.edge.routes.parameters import Account, Page, PageSize, TokenId
from shared import contracts as c
from shared import token_value
from shared.token_value import is_ours

NO_STORE = {"cache-control": "no-store"}


class CreatedToken(c.Token, frozen=True, kw_only=True):
    """A new token, with its secret for the only time.

    Args:
        token: the secret. Left out when the request repeats an earlier one with the same Idempotency-Key: nobody
            kept it.
        code: ``already_created`` in that case.
    """

    token: str | UnsetType = UNSET
    code: str | UnsetType = UNSET


class Revocation(msgspec.Struct):
    """A token is refused everywhere.

    Args:
        edges: how many edges have acknowledged that.
        seconds: how long it took.
    """

    deleted: bool
    edges: int
    seconds: float


class AccountRevocation(msgspec.Struct):
    """All tokens of an account are refused everywhere.

    Args:
        tokens: how many were revoked.
        edges: how many edges have acknowledged that.
        seconds: how long it took.
    """

    account: str
    tokens: int
    edges: int
    seconds: float


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """``grace``: for how many seconds the old secret lives on."""

    grace: int = 0


async def make(request: HttpRequest, wanted: c.NewToken, *, status: int) -> Response[CreatedToken]:
    secret = token_value.new_secret()
    made = await ask(
        request,
        c.CREATE_TOKEN,
        c.CreateToken(
            token=wanted,
            digest=secret.digest,
            hint=secret.hint,
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return _shown(made, secret.value, status)


async def renew(request: HttpRequest, token_id: str, grace: int) -> Response[CreatedToken]:
    secret = token_value.new_secret()
    made, _ = await change(
        request,
        c.ROTATE_TOKEN,
        c.RotateToken(
            id=token_id,
            grace=grace,
            digest=secret.digest,
            hint=secret.hint,
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return _shown(made, secret.value, 201)


async def end(request: HttpRequest, *, token_id: str | None = None, digest: str | None = None) -> Revocation:
    revoked, everywhere = await change(
        request,
        c.REVOKE_TOKEN,
        c.RevokeToken(
            id=token_id, digest=digest, actor=actor(request), idempotency_key=idempotency_key(request)
        ),
    )
    gate_of(request).measures.observe("tallystick_revocation_propagation_seconds", everywhere.seconds)
    return Revocation(deleted=revoked.deleted, edges=everywhere.edges, seconds=everywhere.seconds)


@post("/v1/tokens", opt={"scope": "api:tokens:write", "account_in": "body"})
async def create(request: HttpRequest, data: JSONBody[c.NewToken]) -> Response[CreatedToken]:
    """Makes a token and shows its secret, once."""
    return await make(request, data, status=201)


@get("/v1/tokens", opt={"scope": "api:tokens:read", "account_in": "query"})
async def list_tokens(
    request: HttpRequest,
    *,
    page: Page = 0,
    page_size: PageSize = 20,
    search: Annotated[
        str | None,
        QueryParameter(name="query", description="only those with this in id, description or account"),
    ] = None,
    account: Annotated[str | None, QueryParameter(description="only those bound to this account")] = None,
    in_state: Annotated[
        Literal[c.TokenState, ""],  # not None, which "null" would be read as
        QueryParameter(name="state", description="only those in this state; without it all but revoked ones"),
    ] = "",
) -> c.TokenPage:
    """Lists tokens, newest first."""
    wanted = c.ListTokens(
        page=page, page_size=page_size, query=search, account=account, state=in_state or None
    )
    return await ask(request, c.LIST_TOKENS, wanted)


@get("/v1/tokens/{token_id:str}", opt={"scope": "api:tokens:read"})
async def show(request: HttpRequest, token_id: TokenId) -> c.Token:
    """Shows one token."""
    return await ask(request, c.GET_TOKEN, c.GetToken(id=token_id))


@patch("/v1/tokens/{token_id:str}", opt={"scope": "api:tokens:write"})
async def edit(request: HttpRequest, token_id: TokenId, data: JSONBody[c.TokenChanges]) -> c.Token:
    """Changes what is given and leaves the rest; never beyond what the editor's own token may."""
    edited, _ = await change(
        request,
        c.UPDATE_TOKEN,
        c.UpdateToken(
            id=token_id, changes=data, actor=actor(request), idempotency_key=idempotency_key(request)
        ),
    )
    return edited


@post("/v1/tokens/{token_id:str}/rotate", opt={"scope": "api:tokens:write"})
async def rotate(request: HttpRequest, token_id: TokenId, data: JSONBody[Rotation]) -> Response[CreatedToken]:
    """Makes the token's successor; the old secret lives on for the grace period at most."""
    return await renew(request, token_id, data.grace)


@delete("/v1/tokens/{token_id:str}", opt={"scope": "api:tokens:delete"}, status_code=200)
async def revoke(request: HttpRequest, token_id: TokenId) -> Revocation:
    """Revokes a token for good. Once this returns it is refused everywhere."""
    return await end(request, token_id=token_id)


@get("/v1/tokens/{token_id:str}/log", opt={"scope": "api:tokens:read"})
async def log(request: HttpRequest, token_id: TokenId) -> c.TokenLog:
    """The latest changes of a token, and what was refused to it."""
    return await ask(request, c.GET_LOG, c.GetLog(id=token_id))


# EmailEngine's older names


@post("/v1/token", opt={"scope": "api:tokens:write", "account_in": "body"}, status_code=200)
async def create_older(request: HttpRequest, data: JSONBody[c.NewToken]) -> Response[CreatedToken]:
    """The same as POST /v1/tokens, answered with 200."""
    return await make(request, data, status=200)


@delete("/v1/token/{token:str}", opt={"scope": "api:tokens:delete"}, status_code=200)
async def revoke_older(
    request: HttpRequest,
    token: Annotated[str, PathParameter(description="the token's public id, or the token itself")],
) -> Revocation:
    """Revokes by id or by the token itself, which then stands in URLs and logs on the way here: prefer the id."""
    digest = token_value.digest(token) if is_ours(token) or not token.startswith("tok_") else None
    return await end(request, token_id=None if digest else token, digest=digest)


@get("/v1/tokens/account/{account:str}", opt={"scope": "api:tokens:read", "account_in": "path"})
async def list_of_account(
    request: HttpRequest,
    account: Account,
    page: Page = 0,
    page_size: PageSize = 20,
) -> c.TokenPage:
    """Lists an account's tokens."""
    return await ask(request, c.LIST_TOKENS, c.ListTokens(page=page, page_size=page_size, account=account))


@delete(
    "/v1/tokens/account/{account:str}",
    opt={"scope": "api:tokens:delete", "account_in": "path"},
    status_code=200,
)
async def revoke_of_account(request: HttpRequest, account: Account) -> AccountRevocation:
    """Revokes all tokens of an account, which itself stays."""
    revoked, everywhere = await change(
        request,
        c.REVOKE_ALL,
        c.RevokeAll(account=account, actor=actor(request), idempotency_key=idempotency_key(request)),
    )
    return AccountRevocation(
        account=account, tokens=revoked.tokens, edges=everywhere.edges, seconds=everywhere.seconds
    )


# With the token itself


@get("/v1/self", opt={"scope": OWN})
async def show_self(request: HttpRequest) -> c.Token:
    """What am I?"""
    # What let the request in may be older than its last use.
    return await ask(request, c.GET_TOKEN, c.GetToken(id=token_of(request).id))


@post("/v1/self/rotate", opt={"scope": OWN})
async def rotate_self(request: HttpRequest, data: JSONBody[Rotation]) -> Response[CreatedToken]:
    """Renew me."""
    return await renew(request, token_of(request).id, data.grace)


@delete("/v1/self", opt={"scope": OWN}, status_code=200)
async def revoke_self(request: HttpRequest) -> Revocation:
    """Revoke me."""
    return await end(request, token_id=token_of(request).id)


def _shown(made: c.Made, value: str, status: int) -> Response[CreatedToken]:
    record = msgspec.structs.asdict(made.token)
    if made.replayed:
        return Response(CreatedToken(code="already_created", **record), status_code=200, headers=NO_STORE)
    headers = {**NO_STORE, "location": f"/v1/tokens/{made.token.id}"}
    return Response(CreatedToken(token=value, **record), status_code=status, headers=headers)


HANDLERS: list[Any] = [
    create,
    list_tokens,
    show,
    edit,
    rotate,
    revoke,
    log,
    create_older,
    revoke_older,
    list_of_account,
    revoke_of_account,
    show_self,
    rotate_self,
    revoke_self,
]

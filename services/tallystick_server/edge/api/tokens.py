"""The routes of access tokens: create, list, get, edit, rotate and revoke."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from tallystick.coherence.notices import notice_key
from tallystick.coherence.propagation import Creation, Propagation
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import NewToken, Token
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    GET_LOG,
    GET_TOKEN,
    LIST_TOKENS,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    CreateToken,
    EditedToken,
    EditToken,
    GetLog,
    GetToken,
    ListTokens,
    RevokeAll,
    Revoked,
    RevokeToken,
    RotateToken,
    TokenLog,
    TokenOrder,
    TokenPage,
    TokenState,
    TokenUpdate,
)
from tallystick.metrics import catalogue
from tallystick.tokens import format as token_format
from tallystick_server.edge.api import upstream
from tallystick_server.edge.api.parameters import Account, After, Page, PageSize, TokenId, TokenIdOrDigest
from tallystick_server.edge.api.upstream import actor, ask, change, idempotency_key, revisions
from tallystick_server.edge.authentication.context import HttpRequest, token_of, verifier_of
from tallystick_server.edge.authorization.requirements import SELF, AccountIn, Scope
from tallystick_server.edge.http.errors import ProblemError, etag

T = TypeVar("T", bound=Token)

NO_STORE = {"cache-control": "no-store"}


class TokenWithSecret(Token, frozen=True, kw_only=True):
    """A new token with its secret, which is returned only once.

    Args:
        token: the secret. Absent if the request repeats an earlier one with the same Idempotency-Key, since secrets
            are not stored.
        code: ``already_created`` in that case.
        settled: whether every edge has acknowledged the change. If false, an edge may accept the old secret or reject
            the new one until its lease expires.
    """

    token: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    settled: bool | UnsetType = UNSET


class UnknownOutcome(msgspec.Struct, kw_only=True):
    """The secret of a token that may exist: a service became unavailable before it confirmed the change.

    Args:
        token: the secret. If it is valid, the token exists.
        committed: always ``unknown``.
    """

    token: str
    committed: Literal["unknown"] = "unknown"


class Revocation(msgspec.Struct, rename="camel"):
    """The tokens that a revocation covers. Repeating it returns the same tokens.

    Args:
        deleted: whether the tokens are revoked; false for a dry run.
        covered: the ids of the revoked tokens of the rotation chain, oldest first.
        descendants: the ids of the descendants that were revoked with it.
        own_chain: the ids among these that belong to the caller's own rotation chain.
        living_descendants: the number of valid tokens that were created with the covered ones, directly or indirectly.
        settled: whether every edge rejects these tokens.
        edges: the number of edges that acknowledged the revocation.
        seconds: how long the propagation took, in seconds.
    """

    deleted: bool
    covered: tuple[str, ...]
    descendants: tuple[str, ...]
    own_chain: tuple[str, ...]
    living_descendants: int
    settled: bool
    edges: int
    seconds: float


class AccountRevocation(msgspec.Struct, rename="camel"):
    """The revocation of all tokens of an account.

    Args:
        tokens: the number of revoked tokens.
        living_descendants: the number of valid tokens that were created with these, directly or indirectly.
        settled: whether every edge rejects these tokens.
        edges: the number of edges that acknowledged the revocation.
        seconds: how long the propagation took, in seconds.
    """

    account: str
    tokens: int
    living_descendants: int
    settled: bool
    edges: int
    seconds: float


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``grace``: for how many seconds the old secret stays valid."""

    grace: int = 0


NO_GRACE = Rotation()
NO_FIELDS = NewToken()


async def create_token(request: HttpRequest, token: NewToken, *, status: int) -> Response[TokenWithSecret]:
    secret = token_format.new_secret()
    created = await upstream.create(
        request,
        CREATE_TOKEN,
        CreateToken(
            token=token,
            digest=secret.digest,
            hint=secret.hint,
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return _shown(created, secret.value, status)


async def rotate_token(request: HttpRequest, token_id: str, grace: int) -> Response[TokenWithSecret]:
    secret = token_format.new_secret()
    created = await upstream.create(
        request,
        ROTATE_TOKEN,
        RotateToken(
            id=token_id,
            grace=grace,
            digest=secret.digest,
            hint=secret.hint,
            revisions=revisions(request),
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return _shown(created, secret.value, 201)


async def revoke_token(
    request: HttpRequest, *, token_id: str | None = None, digest: str | None = None, **options: Any
) -> Revocation:
    """Revokes a token. ``options`` are further fields of `RevokeToken`."""
    return revocation(*await revoke_and_wait(request, token_id=token_id, digest=digest, **options))


async def revoke_and_wait(
    request: HttpRequest, *, token_id: str | None = None, digest: str | None = None, **options: Any
) -> tuple[Revoked, Propagation]:
    """Revokes a token by its id or its digest, and returns when every edge rejects it.

    Args:
        request: the request that revokes it.
        token_id: the token's public id.
        digest: the token's digest.
        options: further fields of `RevokeToken`.

    Raises:
        ProblemError: the tokens service rejects it.
    """
    revoked, propagation = await change(
        request,
        REVOKE_TOKEN,
        RevokeToken(
            id=token_id,
            digest=digest,
            revisions=revisions(request),
            actor=actor(request),
            idempotency_key=idempotency_key(request),
            **options,
        ),
    )
    if revoked.deleted:
        verifier_of(request).recorder.observe(catalogue.PROPAGATION_SECONDS, propagation.seconds)
    return revoked, propagation


def revocation(revoked: Revoked, propagation: Propagation) -> Revocation:
    """The response to a revocation."""
    return Revocation(
        deleted=revoked.deleted,
        covered=revoked.covered,
        descendants=revoked.descendants,
        own_chain=revoked.own_chain,
        living_descendants=revoked.living_descendants,
        settled=True,
        edges=propagation.edges,
        seconds=propagation.seconds,
    )


async def _account_faults(request: HttpRequest, body: dict[str, Any]) -> list[FieldError]:
    return await upstream.account_faults(request, body.get("account"))


@post("/v1/tokens", requires=Scope("api:tokens:write", account=AccountIn.BODY), more_faults=_account_faults)
async def create(request: HttpRequest, data: JSONBody[NewToken] = NO_FIELDS) -> Response[TokenWithSecret]:
    """Create a token. The secret is returned only once."""
    return await create_token(request, data, status=201)


@get("/v1/tokens", requires=Scope("api:tokens:read", account=AccountIn.QUERY))
async def list_tokens(
    request: HttpRequest,
    *,
    page: Page = 0,
    page_size: PageSize = 20,
    search: Annotated[
        str | None,
        QueryParameter(
            name="query",
            description="only tokens whose id, description or account contains this text, or whose `hint` or EmailEngine id it is",
        ),
    ] = None,
    account: Annotated[str | None, QueryParameter(description="only tokens bound to this account")] = None,
    in_state: Annotated[
        Literal[TokenState, ""],  # not None, which "null" would be read as
        QueryParameter(
            name="state", description="only tokens in this state; without it all except revoked ones"
        ),
    ] = "",
    granted: Annotated[
        str | None,
        QueryParameter(
            name="scope",
            description="only tokens with this scope or one below it: `orders` also finds `orders:read`",
        ),
    ] = None,
    created_by: Annotated[
        str | None,
        QueryParameter(name="createdBy", description="only tokens created by the token with this id"),
    ] = None,
    unused_since: Annotated[
        datetime | None,
        QueryParameter(
            name="unusedSince",
            description="only tokens neither used nor created since this time, such as 2027-01-31T00:00:00Z",
        ),
    ] = None,
    order: Annotated[
        TokenOrder,
        QueryParameter(
            description="`created`: newest first; `used`: most recently used first; `expires`: next to expire first, then "
            "tokens that never expire, then expired ones, most recent first; `description`: alphabetically"
        ),
    ] = "created",
    after: After = None,
) -> TokenPage:
    """List tokens, by default newest first.

    Page numbers shift when tokens are created or revoked meanwhile. To read every token exactly once, use the cursor:
    send `next` of each response as `after` of the next request, with the same filters, until `next` is null.
    """
    if unused_since is not None and unused_since.tzinfo is None:
        raise ProblemError(
            "bad_request", errors=(FieldError(field="unusedSince", message="must have a time zone"),)
        )
    query = ListTokens(
        page=page,
        page_size=page_size,
        query=search,
        account=account,
        state=in_state or None,
        scope=granted,
        created_by=created_by,
        unused_since=unused_since,
        order=order,
        after=after,
        actor=actor(request),
    )
    return await ask(request, LIST_TOKENS, query)


@get("/v1/tokens/{token_id:str}", requires=Scope("api:tokens:read", account=AccountIn.TOKEN))
async def show(request: HttpRequest, token_id: TokenIdOrDigest) -> Response[Token]:
    """Get a token, including a revoked one. Its ETag is its revision."""
    public_id, key = _named(token_id)
    query = GetToken(id=public_id, key=key, revoked=True, actor=actor(request))
    return _record(await ask(request, GET_TOKEN, query))


@patch(
    "/v1/tokens/{token_id:str}",
    requires=Scope("api:tokens:write", account=AccountIn.TOKEN, alternative="api:tokens:delete"),
    json_types=("application/json", "application/merge-patch+json"),
    codes=("stale",),
)
async def edit(request: HttpRequest, token_id: TokenId, data: JSONBody[TokenUpdate]) -> Response[EditedToken]:
    """Update a token.

    The body is a JSON merge patch (RFC 7396), applied at every depth: an absent member keeps its value, null removes it.
    Neither the current nor the new version of the token may exceed the caller's own token. Setting ``disabled`` to true
    needs scope ``api:tokens:delete`` and disables the whole rotation chain; setting it to false needs scope
    ``api:tokens:write``. With If-Match, the token is updated only if it still has that revision.
    """
    edited, _ = await change(
        request,
        EDIT_TOKEN,
        EditToken(
            id=token_id,
            changes=data,
            revisions=revisions(request),
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return _record(edited)


@post(
    "/v1/tokens/{token_id:str}/rotate",
    requires=Scope("api:tokens:write", account=AccountIn.TOKEN),
    codes=("stale",),
)
async def rotate(
    request: HttpRequest, token_id: TokenId, data: JSONBody[Rotation] = NO_GRACE
) -> Response[TokenWithSecret]:
    """Rotate a token: create its successor. The old secret stays valid for at most the grace period."""
    return await rotate_token(request, token_id, data.grace)


@delete(
    "/v1/tokens/{token_id:str}",
    requires=Scope("api:tokens:delete", account=AccountIn.TOKEN),
    codes=("stale",),
    status_code=200,
)
async def revoke(
    request: HttpRequest,
    token_id: TokenId,
    *,
    only: Annotated[
        Literal["predecessors", ""],
        QueryParameter(
            description="`predecessors` revokes only the older secrets and so ends their grace period"
        ),
    ] = "",
    descendants: Annotated[
        bool,
        QueryParameter(description="also revoke every token created with it, directly or indirectly"),
    ] = False,
    dry_run: Annotated[
        bool,
        QueryParameter(
            name="dryRun", description="only list what would be revoked, without changing anything"
        ),
    ] = False,
) -> Revocation:
    """Revoke a token and its rotation chain permanently. When this returns, every edge rejects them."""
    return await revoke_token(
        request, token_id=token_id, only=only or None, descendants=descendants, dry_run=dry_run
    )


@get("/v1/tokens/{token_id:str}/log", requires=Scope("api:tokens:read", account=AccountIn.TOKEN))
async def log(request: HttpRequest, token_id: TokenIdOrDigest, after: After = None) -> TokenLog:
    """Get the log of a token: its latest changes with the old and new values, and its rejected requests.

    For older entries, send `next` of the previous response as `after`.
    """
    public_id, key = _named(token_id)
    return await ask(request, GET_LOG, GetLog(id=public_id, key=key, after=after, actor=actor(request)))


def _named(name: str) -> tuple[str | None, str | None]:
    """The public id and the key of a token, one of which is None. EmailEngine's id is a digest that authenticates the
    token over NATS, so only its hash is sent on.
    """
    return (None, notice_key(bytes.fromhex(name))) if token_format.is_hex(name) else (name, None)


@delete(
    "/v1/tokens/account/{account:str}",
    requires=Scope("api:tokens:delete", account=AccountIn.PATH),
    status_code=200,
)
async def revoke_of_account(request: HttpRequest, account: Account) -> AccountRevocation:
    """Revoke all tokens of an account. The account itself is kept."""
    revoked, propagation = await change(
        request,
        REVOKE_ALL,
        RevokeAll(account=account, actor=actor(request), idempotency_key=idempotency_key(request)),
    )
    return AccountRevocation(
        **msgspec.structs.asdict(revoked), settled=True, edges=propagation.edges, seconds=propagation.seconds
    )


# The request's own token


@get("/v1/self", requires=SELF)
async def show_self(request: HttpRequest) -> Response[Token]:
    """Get the current token."""
    # The cached token may be older than its last use.
    own = GetToken(id=token_of(request).id, actor=actor(request))
    return _record(await ask(request, GET_TOKEN, own))


@post("/v1/self/rotate", requires=SELF)
async def rotate_self(request: HttpRequest, data: JSONBody[Rotation] = NO_GRACE) -> Response[TokenWithSecret]:
    """Rotate the current token."""
    return await rotate_token(request, token_of(request).id, data.grace)


@delete("/v1/self", requires=SELF, status_code=200)
async def revoke_self(request: HttpRequest) -> Revocation:
    """Revoke the current token."""
    return await revoke_token(request, token_id=token_of(request).id)


def _record(token: T) -> Response[T]:
    return Response(token, headers={**NO_STORE, "etag": etag(token)})


def _shown(created: Creation, value: str, status: int) -> Response[TokenWithSecret]:
    created_token = created.reply
    if created_token is None:
        return Response(UnknownOutcome(token=value), status_code=202, headers=NO_STORE)  # type: ignore[arg-type]  # as the document says
    record = msgspec.structs.asdict(created_token.token)
    if created_token.replayed:
        return Response(
            TokenWithSecret(code="already_created", **record),
            status_code=200,
            headers={**NO_STORE, "etag": etag(created_token.token)},
        )
    headers = {
        **NO_STORE,
        "location": f"/v1/tokens/{created_token.token.id}",
        "etag": etag(created_token.token),
    }
    settled = created.propagation is not None
    return Response(
        TokenWithSecret(token=value, settled=settled, **record), status_code=status, headers=headers
    )


HANDLERS: list[Any] = [
    create,
    list_tokens,
    show,
    edit,
    rotate,
    revoke,
    log,
    revoke_of_account,
    show_self,
    rotate_self,
    revoke_self,
]

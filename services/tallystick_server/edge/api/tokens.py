"""Access tokens: make, list, show, edit, rotate, revoke."""

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
    """A new token, with its secret for the only time.

    Args:
        token: the secret. Left out when the request repeats an earlier one with the same Idempotency-Key: nobody
            kept it.
        code: ``already_created`` in that case.
        settled: whether every edge has confirmed the change; false means that an edge may accept the old secret, or
            reject the new one, until its lease ends.
    """

    token: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    settled: bool | UnsetType = UNSET


class UnknownOutcome(msgspec.Struct, kw_only=True):
    """The secret of a token that may exist: a part of Tallystick was away before it could confirm.

    Args:
        token: the secret. Try it: if it is valid, the token exists.
        committed: always ``unknown``.
    """

    token: str
    committed: Literal["unknown"] = "unknown"


class Revocation(msgspec.Struct, rename="camel"):
    """What a revocation covers; the same again when it is repeated.

    Args:
        deleted: whether the tokens are revoked; not by a dry run.
        covered: the ids of the revoked tokens of the rotation chain, oldest first.
        descendants: the ids of the descendants that were revoked with it.
        own_chain: the ids among these that belong to the caller's own chain.
        living_descendants: how many tokens created with the covered ones, directly or not, are still valid.
        settled: no edge accepts these tokens any more.
        edges: how many edges have acknowledged that.
        seconds: how long it took.
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
    """All tokens of an account are rejected everywhere.

    Args:
        tokens: how many were revoked.
        living_descendants: how many tokens created with these, directly or not, are still valid.
        settled: no edge accepts these tokens any more.
        edges: how many edges have acknowledged that.
        seconds: how long it took.
    """

    account: str
    tokens: int
    living_descendants: int
    settled: bool
    edges: int
    seconds: float


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``grace``: for how many seconds the old secret lives on."""

    grace: int = 0


NO_GRACE = Rotation()
NO_FIELDS = NewToken()


async def make(request: HttpRequest, wanted: NewToken, *, status: int) -> Response[TokenWithSecret]:
    secret = token_format.new_secret()
    created = await upstream.create(
        request,
        CREATE_TOKEN,
        CreateToken(
            token=wanted,
            digest=secret.digest,
            hint=secret.hint,
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return _shown(created, secret.value, status)


async def renew(request: HttpRequest, token_id: str, grace: int) -> Response[TokenWithSecret]:
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


async def end(
    request: HttpRequest, *, token_id: str | None = None, digest: str | None = None, **options: Any
) -> Revocation:
    """Revokes a token. ``options``: of `RevokeToken`."""
    return revocation(*await revoke_everywhere(request, token_id=token_id, digest=digest, **options))


async def revoke_everywhere(
    request: HttpRequest, *, token_id: str | None = None, digest: str | None = None, **options: Any
) -> tuple[Revoked, Propagation]:
    """Revokes a token, named by its id or its digest, and returns when no edge accepts it.

    Args:
        request: on whose behalf.
        token_id: the token's public id.
        digest: the token's digest.
        options: further fields of `RevokeToken`.

    Raises:
        ProblemError: the tokens service rejects it.
    """
    revoked, everywhere = await change(
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
        verifier_of(request).recorder.observe(catalogue.PROPAGATION_SECONDS, everywhere.seconds)
    return revoked, everywhere


def revocation(revoked: Revoked, everywhere: Propagation) -> Revocation:
    """What HTTP answers to a revocation."""
    return Revocation(
        deleted=revoked.deleted,
        covered=revoked.covered,
        descendants=revoked.descendants,
        own_chain=revoked.own_chain,
        living_descendants=revoked.living_descendants,
        settled=True,
        edges=everywhere.edges,
        seconds=everywhere.seconds,
    )


async def _account_faults(request: HttpRequest, body: dict[str, Any]) -> list[FieldError]:
    return await upstream.account_faults(request, body.get("account"))


@post("/v1/tokens", requires=Scope("api:tokens:write", account=AccountIn.BODY), more_faults=_account_faults)
async def create(request: HttpRequest, data: JSONBody[NewToken] = NO_FIELDS) -> Response[TokenWithSecret]:
    """Makes a token and shows its secret, once."""
    return await make(request, data, status=201)


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
            description="only those with this in id, description or account, with this `hint`, or with EmailEngine's id",
        ),
    ] = None,
    account: Annotated[str | None, QueryParameter(description="only those bound to this account")] = None,
    in_state: Annotated[
        Literal[TokenState, ""],  # not None, which "null" would be read as
        QueryParameter(name="state", description="only those in this state; without it all but revoked ones"),
    ] = "",
    granted: Annotated[
        str | None,
        QueryParameter(
            name="scope",
            description="only those that were given this scope or one below it: `orders` finds `orders:read` too",
        ),
    ] = None,
    created_by: Annotated[
        str | None,
        QueryParameter(name="createdBy", description="only those that the token with this id created"),
    ] = None,
    unused_since: Annotated[
        datetime | None,
        QueryParameter(
            name="unusedSince",
            description="only those that were neither used nor created since this time, as in 2027-01-31T00:00:00Z",
        ),
    ] = None,
    order: Annotated[
        TokenOrder,
        QueryParameter(
            description="`created`: newest first; `used`: last used first; `expires`: next to expire first, then tokens that never "
            "expire, then expired ones, the latest first; `description`"
        ),
    ] = "created",
    after: After = None,
) -> TokenPage:
    """Lists tokens, newest first unless `order` says otherwise.

    Pages move when tokens are created or revoked in between. To see every token once, follow the cursors: send `next` of
    each answer as `after` of the next request, with the same filters, until it is null.
    """
    if unused_since is not None and unused_since.tzinfo is None:
        raise ProblemError(
            "bad_request", errors=(FieldError(field="unusedSince", message="a time with its zone"),)
        )
    wanted = ListTokens(
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
    return await ask(request, LIST_TOKENS, wanted)


@get("/v1/tokens/{token_id:str}", requires=Scope("api:tokens:read", account=AccountIn.TOKEN))
async def show(request: HttpRequest, token_id: TokenIdOrDigest) -> Response[Token]:
    """Shows one token, a revoked one too. Its ETag is its revision."""
    public_id, key = _named(token_id)
    wanted = GetToken(id=public_id, key=key, revoked=True, actor=actor(request))
    return _record(await ask(request, GET_TOKEN, wanted))


@patch(
    "/v1/tokens/{token_id:str}",
    requires=Scope("api:tokens:write", account=AccountIn.TOKEN, alternative="api:tokens:delete"),
    json_types=("application/json", "application/merge-patch+json"),
    codes=("stale",),
)
async def edit(request: HttpRequest, token_id: TokenId, data: JSONBody[TokenUpdate]) -> Response[EditedToken]:
    """Changes a token.

    The body is merged into the record as RFC 7396 does, at every depth: an absent member keeps its value, null removes
    it. What the token was and what it becomes must not exceed the caller's own token. ``disabled`` needs scope
    ``api:tokens:delete`` to become true, which covers the whole rotation chain, and ``api:tokens:write`` to become false.
    With If-Match the change is made only if the token still has that revision.
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
    """Makes the token's successor; the old secret lives on for the grace period at most."""
    return await renew(request, token_id, data.grace)


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
            description="`predecessors` revokes only the older secrets: it ends their grace period"
        ),
    ] = "",
    descendants: Annotated[
        bool,
        QueryParameter(description="revoke every token that was created with it, directly or not, as well"),
    ] = False,
    dry_run: Annotated[
        bool, QueryParameter(name="dryRun", description="change nothing, and list what would be revoked")
    ] = False,
) -> Revocation:
    """Revokes a token and its rotation chain for good. Once this returns they are rejected everywhere."""
    return await end(request, token_id=token_id, only=only or None, descendants=descendants, dry_run=dry_run)


@get("/v1/tokens/{token_id:str}/log", requires=Scope("api:tokens:read", account=AccountIn.TOKEN))
async def log(request: HttpRequest, token_id: TokenIdOrDigest, after: After = None) -> TokenLog:
    """The latest changes of a token with what they changed, and which of its requests were rejected.

    With `after`, the `next` of the answer before, the entries that came before those.
    """
    public_id, key = _named(token_id)
    return await ask(request, GET_LOG, GetLog(id=public_id, key=key, after=after, actor=actor(request)))


def _named(name: str) -> tuple[str | None, str | None]:
    """The public id and the key of a token, of which one is given. EmailEngine's id is a digest, with which one could act
    for the token, so only its hash is sent on.
    """
    return (None, notice_key(bytes.fromhex(name))) if token_format.is_hex(name) else (name, None)


@delete(
    "/v1/tokens/account/{account:str}",
    requires=Scope("api:tokens:delete", account=AccountIn.PATH),
    status_code=200,
)
async def revoke_of_account(request: HttpRequest, account: Account) -> AccountRevocation:
    """Revokes all tokens of an account, which itself stays."""
    revoked, everywhere = await change(
        request,
        REVOKE_ALL,
        RevokeAll(account=account, actor=actor(request), idempotency_key=idempotency_key(request)),
    )
    return AccountRevocation(
        **msgspec.structs.asdict(revoked), settled=True, edges=everywhere.edges, seconds=everywhere.seconds
    )


# With the token itself


@get("/v1/self", requires=SELF)
async def show_self(request: HttpRequest) -> Response[Token]:
    """What am I?"""
    # What let the request in may be older than its last use.
    own = GetToken(id=token_of(request).id, actor=actor(request))
    return _record(await ask(request, GET_TOKEN, own))


@post("/v1/self/rotate", requires=SELF)
async def rotate_self(request: HttpRequest, data: JSONBody[Rotation] = NO_GRACE) -> Response[TokenWithSecret]:
    """Renew me."""
    return await renew(request, token_of(request).id, data.grace)


@delete("/v1/self", requires=SELF, status_code=200)
async def revoke_self(request: HttpRequest) -> Revocation:
    """Revoke me."""
    return await end(request, token_id=token_of(request).id)


def _record(token: T) -> Response[T]:
    return Response(token, headers={**NO_STORE, "etag": etag(token)})


def _shown(created: Creation, value: str, status: int) -> Response[TokenWithSecret]:
    made = created.made
    if made is None:
        return Response(UnknownOutcome(token=value), status_code=202, headers=NO_STORE)  # type: ignore[arg-type]  # as the document says
    record = msgspec.structs.asdict(made.token)
    if made.replayed:
        return Response(
            TokenWithSecret(code="already_created", **record),
            status_code=200,
            headers={**NO_STORE, "etag": etag(made.token)},
        )
    headers = {**NO_STORE, "location": f"/v1/tokens/{made.token.id}", "etag": etag(made.token)}
    settled = created.everywhere is not None
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

"""The routes with which EmailEngine's clients manage tokens. They accept its request bodies and ids, and return its
responses with additional members; docs/tokens.md lists the differences.
"""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Response, delete, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, UnsetType

from tallystick.coherence import propagation
from tallystick.contracts import record_fields, validation
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import Token
from tallystick.contracts.tokens import LIST_TOKENS, ListTokens, Revoked, TokenPage
from tallystick.tokens import format as token_format
from tallystick_server.edge.api.emailengine_form import EmailEngineToken, form_problems, new_token
from tallystick_server.edge.api.parameters import Account
from tallystick_server.edge.api.tokens import TokenWithSecret, create_token, revocation, revoke_and_wait
from tallystick_server.edge.api.upstream import account_faults, actor, ask
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.authorization.requirements import AccountIn, Scope
from tallystick_server.edge.http.errors import ProblemError

AS_EMAILENGINE: dict[str, Any] = {"other_parameters": "ignored"}
"""EmailEngine accepts requests with unknown query parameters."""
NO_FIELDS = EmailEngineToken()
MAX_LISTED = 1000
PART_SIZES = (MAX_LISTED, 500, 250, 125, 25, 5, 1)
"""How many tokens a part of a list holds. Each divides the one before, so a smaller part may follow larger ones."""
MAX_PARTS = 24
"""Requests for one list. A part is a NATS message, so this limits the response to 24 MB."""


class Deletion(msgspec.Struct, rename="camel"):
    """Whether this request revoked a token. The other members are present only if it did.

    Args:
        deleted: false if the token does not exist, or if it and its rotation chain were already revoked.
        covered: the ids of the revoked tokens of the rotation chain, oldest first.
        living_descendants: how many tokens created with the covered ones, directly or not, are still valid.
        settled: whether every edge rejects these tokens.
        edges: the number of edges that acknowledged the revocation.
        seconds: how long the propagation took, in seconds.
    """

    deleted: bool
    covered: tuple[str, ...] | UnsetType = UNSET
    living_descendants: int | UnsetType = UNSET
    settled: bool | UnsetType = UNSET
    edges: int | UnsetType = UNSET
    seconds: float | UnsetType = UNSET


class AccountTokens(msgspec.Struct):
    """All tokens of an account, newest first.

    Args:
        total: the number of tokens of the account.
        truncated: whether the list is incomplete. `GET /v1/tokens?account=` returns all tokens by page.
    """

    account: str
    total: int
    truncated: bool
    tokens: tuple[Token, ...]


async def _other_faults(request: HttpRequest, body: dict[str, Any]) -> list[FieldError]:
    """The faults of a body besides those of its types."""
    form = msgspec.convert(record_fields.valid(body, EmailEngineToken), EmailEngineToken)
    return [*form_problems(form, datetime.now(UTC)), *await account_faults(request, form.account)]


@post(
    "/v1/token",
    requires=Scope("api:tokens:write", account=AccountIn.BODY),
    more_faults=_other_faults,
    **AS_EMAILENGINE,
    status_code=200,
)
async def create(
    request: HttpRequest, data: JSONBody[EmailEngineToken] = NO_FIELDS
) -> Response[TokenWithSecret]:
    """Create a token from EmailEngine's request body. The secret is shown once.

    A body that Tallystick cannot express exactly is rejected: the token never allows more than it would at EmailEngine.
    """
    now = datetime.now(UTC)
    try:
        token = new_token(data, now)
    except ProblemError as error:
        further = [*form_problems(data, now), *await account_faults(request, data.account)]
        faults = validation.with_others(error.errors, further)
        raise ProblemError("bad_request", errors=tuple(faults)) from None
    try:
        return await create_token(request, token, status=200)
    except ProblemError as error:
        # Only the account was rejected: it does not exist.
        if error.code == "bad_request" and [fault.field for fault in error.errors] == ["account"]:
            raise ProblemError("not_found", "account not found", errors=error.errors) from None
        raise


@delete(
    # Of every form, since an opaque token may hold a slash.
    "/v1/token/{token:path}",
    requires=Scope("api:tokens:delete", account=AccountIn.TOKEN),
    codes=("stale",),
    **AS_EMAILENGINE,
    status_code=200,
)
async def revoke(
    request: HttpRequest,
    token: Annotated[
        str,
        PathParameter(
            description="the token's public id, EmailEngine's id of an imported token, or the token itself"
        ),
    ],
) -> Deletion:
    """Revoke a token and its rotation chain permanently. When this returns, every edge rejects them.

    Prefer an id: a token in the path may end up in the logs of proxies. 64 hexadecimal digits may be a token or
    EmailEngine's id of another token. If they are both, nothing is revoked and the response is 409; use the public id.
    """
    del token  # the framework has joined its slashes
    name = _named_in_path(request)
    revoked = await _revoke(request, name, _digest(name))
    if revoked is None and name.startswith("tok_"):
        # An imported token may begin like a public id.
        revoked = await _revoke(request, name, token_format.digest(name))
    if revoked is None or not revoked[0].changed:
        return Deletion(deleted=False)
    response = revocation(*revoked)
    return Deletion(
        deleted=response.deleted,
        covered=response.covered,
        living_descendants=response.living_descendants,
        settled=response.settled,
        edges=response.edges,
        seconds=response.seconds,
    )


def _named_in_path(request: HttpRequest) -> str:
    """The last segment of the path as it was sent, decoded once.

    Raises:
        ProblemError: it is missing, or another segment follows it.
    """
    segment = request.scope["raw_path"].removeprefix(b"/v1/token/")
    if not segment or b"/" in segment:
        raise ProblemError("not_found")
    return str(unquote_to_bytes(segment), "latin-1")


async def _revoke(
    request: HttpRequest, name: str, digest: str | None
) -> tuple[Revoked, propagation.Propagation] | None:
    """Revokes the token with this digest, or without one the token with this id; None if it does not exist."""
    try:
        return await revoke_and_wait(
            request,
            token_id=name if digest is None else None,
            digest=digest,
            # The SHA-256 of 64 hexadecimal digits is both the digest of such a token and the key of such an id.
            or_key=True if token_format.is_hex(name) else None,
        )
    except ProblemError as error:
        if error.code == "not_found":
            return None
        raise


def _digest(name: str) -> str | None:
    """The digest of the token that a client names, or its key if the name is EmailEngine's id; None where the name has to
    be a public id.
    """
    if name.startswith("tok_") and not token_format.is_ours(name):
        return None
    return token_format.digest(name)


@get(
    "/v1/tokens/account/{account:str}",
    requires=Scope("api:tokens:read", account=AccountIn.PATH),
    **AS_EMAILENGINE,
)
async def list_of_account(request: HttpRequest, account: Account) -> AccountTokens:
    """List up to 1,000 tokens of an account, newest first, in one response."""
    sizes = iter(PART_SIZES)
    size, total = next(sizes), 0
    tokens: list[Token] = []
    for _ in range(MAX_PARTS):
        part = await _part(request, account, len(tokens) // size, size)
        if part is None:
            size = next(sizes)
            continue
        if tokens and part.total != total:
            tokens = []  # a token was added or revoked meanwhile, so the parts are inconsistent
            total = part.total
            continue
        tokens += part.tokens
        total = part.total
        if len(tokens) >= min(total, MAX_LISTED) or not part.tokens:
            break
    return AccountTokens(
        account=account, total=total, truncated=len(tokens) < total, tokens=tuple(tokens[:MAX_LISTED])
    )


async def _part(request: HttpRequest, account: str, page: int, size: int) -> TokenPage | None:
    """A part of an account's list; None if it exceeds a NATS message."""
    query = ListTokens(page=page, page_size=size, account=account, actor=actor(request))
    try:
        return await ask(request, LIST_TOKENS, query)
    except ProblemError as error:
        if size > 1 and [fault.field for fault in error.errors] == ["pageSize"]:
            return None
        raise


HANDLERS: list[Any] = [create, revoke, list_of_account]

"""The pages of access tokens: the list, the form for a new token, and the pages of one token."""

import asyncio
import math
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, get_args
from urllib.parse import parse_qsl, urlencode

import msgspec
from litestar.params import QueryParameter
from litestar.plugins.htmx import HTMXRequest

from tallystick.coherence.propagation import Creation
from tallystick.contracts.messages import MAX_PAGE, FieldError
from tallystick.contracts.records import NewToken, Token
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    FIND_REJECTED_REQUESTS,
    GET_LOG,
    GET_TOKEN,
    GET_USE,
    LIST_TOKENS,
    MAX_USE_HOURS,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    CreateToken,
    EditToken,
    FindRejectedRequests,
    GetLog,
    GetToken,
    GetUse,
    ListTokens,
    RevokeToken,
    RotateToken,
    TokenOrder,
    TokenPage,
    TokenState,
    TokenUpdate,
)
from tallystick.metrics import catalogue
from tallystick.tokens import format as token_format
from tallystick_server.edge.api.parameters import TokenId
from tallystick_server.edge.api.upstream import account_faults, actor, ask, change, create
from tallystick_server.edge.authentication.context import HttpRequest, verifier_of
from tallystick_server.edge.dashboard import forms, sessions
from tallystick_server.edge.dashboard.flash import Flash
from tallystick_server.edge.dashboard.forms import Form
from tallystick_server.edge.dashboard.pages import (
    Handlers,
    Page,
    changes,
    done,
    page,
    redirect,
    shows,
    split_url,
)
from tallystick_server.edge.dashboard.sessions import is_encrypted
from tallystick_server.edge.http.errors import ProblemError

PAGE_SIZE = 25
PARTS = 5
"""The number of replies into which a page is split if one reply cannot hold it. Even the largest tokens fit."""
GRACES = ((0, "Expire now"), (3600, "1 hour"), (86400, "1 day"), (604800, "1 week"))
STATES = tuple((state, state.replace("_", " ").capitalize()) for state in get_args(TokenState))
ORDERS = (
    ("created", "Newest"),
    ("used", "Last used"),
    ("expires", "Expiring soon"),
    ("description", "Description"),
)
Text = Annotated[str, QueryParameter(max_length=256)]


@shows("/admin/tokens")
async def list_tokens(
    request: HTMXRequest,
    *,
    search: Annotated[str, QueryParameter(name="query", max_length=256)] = "",
    granted: Annotated[str, QueryParameter(name="scope", max_length=256)] = "",
    account: Text = "",
    in_state: Annotated[str, QueryParameter(name="state", max_length=32)] = "",
    order: Text = "created",
    at: Annotated[int, QueryParameter(name="page", ge=0, le=MAX_PAGE)] = 0,
) -> Page:
    """The list of all tokens, with search and filters."""
    filters: dict[str, Any] = {
        "query": _without_secret(search.strip()) or None,
        "scope": granted.strip() or None,
        "account": account.strip() or None,
        "state": in_state if in_state in get_args(TokenState) else None,
        "order": order if order in get_args(TokenOrder) else "created",
    }
    listing = await _listing(
        request, ListTokens(page=at, page_size=PAGE_SIZE, actor=actor(request), **filters)
    )
    active_filters = {name: value for name, value in filters.items() if value}
    if at >= listing.pages > 0:
        return redirect(f"/admin/tokens?{urlencode({**active_filters, 'page': listing.pages - 1})}")
    usage = await ask(
        request, GET_USE, GetUse(ids=tuple(token.id for token in listing.tokens), actor=actor(request))
    )
    # When the user goes back, htmx needs the whole page again.
    is_part = bool(request.htmx) and not request.htmx.history_restore_request
    response = page(
        request,
        "tokens/list.html" if is_part else "tokens/page.html",
        listing=listing,
        uses=usage.uses,
        filters={name: value or "" for name, value in filters.items()},
        secret=token_format.LOOKS_LIKE_ONE,
        is_part=is_part,
        states=STATES,
        orders=ORDERS,
    )
    if is_part and _differs_in_search_only(request):
        # While the user types, letters add no entries to the browser's history.
        response.headers = {**response.headers, "hx-replace-url": f"/admin/tokens?{request.url.query}"}
    return response


def _differs_in_search_only(request: HttpRequest) -> bool:
    """Whether the page in the browser differs from this one only in the search text."""
    before, after = (
        {name: value for name, value in parse_qsl(query) if name != "query"}
        for query in (split_url(request.headers.get("hx-current-url", "")).query, request.url.query)
    )
    return {"order": "created", **before} == {"order": "created", **after}


def _without_secret(search: str) -> str:
    """The search text. A secret is replaced by its digest, or if it is mistyped, by its first characters."""
    if re.fullmatch(token_format.LOOKS_LIKE_ONE, search) is None:
        return search
    return token_format.digest(search) or search[: token_format.HINT_LENGTH]


async def _listing(request: HttpRequest, query: ListTokens) -> TokenPage:
    """A page of the list, requested in parts if one reply cannot hold it."""
    try:
        return await ask(request, LIST_TOKENS, query)
    except ProblemError as error:
        if [fault.field for fault in error.errors] != ["pageSize"]:
            raise
    replace = msgspec.structs.replace
    first, size = query.page * PARTS, PAGE_SIZE // PARTS
    parts = [
        await ask(request, LIST_TOKENS, replace(query, page=number, page_size=size))
        for number in range(first, first + PARTS)
    ]
    total = parts[0].total
    return TokenPage(
        total=total,
        page=query.page,
        pages=math.ceil(total / PAGE_SIZE),
        tokens=tuple(token for part in parts for token in part.tokens),
    )


@shows("/admin/tokens/new")
async def show_create_form(request: HttpRequest, account: Text = "") -> Page:
    """The form for a new token."""
    return _form(request, forms.empty(account=account, key=secrets.token_urlsafe(16)))


@changes("/admin/tokens/new")
async def create_token(request: HttpRequest) -> Page:
    """Creates a token and shows its secret once. If the form is sent again, no second token is created."""
    form = await sessions.form(request)
    filled = forms.read(form, datetime.now(UTC))
    if filled.problems:
        account_problems = await account_faults(request, filled.token.account)
        return _form(request, form, (*filled.problems, *account_problems))
    secret = token_format.new_secret()
    try:
        created = await create(
            request,
            CREATE_TOKEN,
            CreateToken(
                token=filled.token,
                digest=secret.digest,
                hint=secret.hint,
                actor=actor(request),
                idempotency_key=form.get("key") or None,
            ),
        )
    except ProblemError as error:
        if error.code == "conflict":
            return page(
                request, "tokens/created.html", token=None, secret="", settled=True, rotated=None, base=""
            )
        return _form(request, form, _problems(error))
    return _reveal(request, created, secret.value)


@shows("/admin/tokens/{token_id:str}")
async def show(request: HttpRequest, token_id: TokenId) -> Page:
    """The page of one token: its details, its usage and its log."""
    token, log, usage, previous = await asyncio.gather(
        ask(request, GET_TOKEN, GetToken(id=token_id, revoked=True, actor=actor(request))),
        ask(request, GET_LOG, GetLog(id=token_id, actor=actor(request))),
        ask(request, GET_USE, GetUse(ids=(token_id,), hours=MAX_USE_HOURS, actor=actor(request))),
        ask(request, LIST_TOKENS, ListTokens(rotated_to=token_id, page_size=1, actor=actor(request))),
    )
    return page(
        request,
        "tokens/token.html",
        token=token,
        log=log,
        uses=usage.uses.get(token_id, (0,) * MAX_USE_HOURS),
        previous=previous.tokens[0] if previous.tokens else None,
    )


@shows("/admin/tokens/{token_id:str}/edit")
async def show_edit_form(request: HttpRequest, token_id: TokenId) -> Page:
    """The form for an existing token."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return _form(request, forms.of(token), token=token)


@changes("/admin/tokens/{token_id:str}/edit")
async def edit(request: HttpRequest, token_id: TokenId) -> Page:
    """Updates a token, unless it has changed since the form was opened."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    form = await sessions.form(request)
    filled = forms.read(form, datetime.now(UTC), token)
    if form.get("revision") != str(token.revision):
        return _stale(request, form, filled.token, token)
    if filled.problems:
        return _form(request, form, filled.problems, token=token)
    try:
        return await _update(
            request,
            token_id,
            forms.changes(token, filled.token),
            "changed",
            revisions=(token.revision,),
        )
    except ProblemError as error:
        if error.current is not None:
            return _stale(request, form, filled.token, error.current)
        return _form(request, form, _problems(error), token=token)


@shows("/admin/tokens/{token_id:str}/disable")
async def confirm_disable(request: HttpRequest, token_id: TokenId) -> Page:
    """Asks for confirmation, since the sessions of the token end."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return page(request, "tokens/disable.html", token=token)


@changes("/admin/tokens/{token_id:str}/disable")
async def disable(request: HttpRequest, token_id: TokenId) -> Page:
    """Disables a token with its rotation chain."""
    return await _update(request, token_id, TokenUpdate(disabled=True), "disabled")


@changes("/admin/tokens/{token_id:str}/enable")
async def enable(request: HttpRequest, token_id: TokenId) -> Page:
    """Enables a token."""
    return await _update(request, token_id, TokenUpdate(disabled=False), "enabled")


@shows("/admin/tokens/{token_id:str}/rotate")
async def show_rotate_form(request: HttpRequest, token_id: TokenId) -> Page:
    """Asks for the grace period of the old secret."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return page(request, "tokens/rotate.html", token=token, graces=GRACES, key=secrets.token_urlsafe(16))


@changes("/admin/tokens/{token_id:str}/rotate")
async def rotate(request: HttpRequest, token_id: TokenId) -> Page:
    """Creates the token's successor and shows its secret once."""
    form = await sessions.form(request)
    grace = form.get("grace", "")
    if grace not in {str(seconds) for seconds, _ in GRACES}:
        raise ProblemError("bad_request", "grace: choose one of the options")
    secret = token_format.new_secret()
    created = await create(
        request,
        ROTATE_TOKEN,
        RotateToken(
            id=token_id,
            grace=int(grace),
            digest=secret.digest,
            hint=secret.hint,
            actor=actor(request),
            idempotency_key=form.get("key") or None,
        ),
    )
    try:
        rotated = await ask(request, GET_TOKEN, GetToken(id=token_id, revoked=True, actor=actor(request)))
    except ProblemError:  # the secret must be shown in any case
        rotated = None
    return _reveal(request, created, secret.value, rotated=rotated)


@shows("/admin/tokens/{token_id:str}/revoke")
async def confirm_revoke(request: HttpRequest, token_id: TokenId) -> Page:
    """Asks for confirmation, and shows what else will be revoked."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return page(request, "tokens/revoke.html", token=token, revoked=None, propagation=None)


@changes("/admin/tokens/{token_id:str}/revoke")
async def revoke(request: HttpRequest, token_id: TokenId) -> Page:
    """Revokes a token with its rotation chain, and its descendants if the form says so."""
    form = await sessions.form(request)
    return await _revoke(request, token_id, descendants=form.get("descendants") == "true")


@changes("/admin/tokens/{token_id:str}/end-grace")
async def end_grace(request: HttpRequest, token_id: TokenId) -> Page:
    """Revokes the older secrets that the token replaced."""
    return await _revoke(request, token_id, only="predecessors")


async def _revoke(request: HttpRequest, token_id: str, **options: Any) -> Page:
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, revoked=True, actor=actor(request)))
    revoked, propagation = await change(
        request, REVOKE_TOKEN, RevokeToken(id=token_id, actor=actor(request), **options)
    )
    verifier_of(request).recorder.observe(catalogue.PROPAGATION_SECONDS, propagation.seconds)
    return page(
        request,
        "tokens/revoke.html",
        token=token,
        revoked=revoked,
        propagation=propagation,
        only_predecessors=options.get("only") is not None,
    )


@shows("/admin/refusals")
async def find_rejections(
    request: HttpRequest, request_id: Annotated[str, QueryParameter(max_length=128)] = ""
) -> Page:
    """Why was this request rejected?"""
    request_id = request_id.strip()
    reply = (
        await ask(
            request, FIND_REJECTED_REQUESTS, FindRejectedRequests(request_id=request_id, actor=actor(request))
        )
        if request_id
        else None
    )
    return page(
        request,
        "rejected_requests.html",
        searched_id=request_id,
        rejected_requests=reply.refusals if reply else (),
    )


async def _update(
    request: HttpRequest,
    token_id: str,
    update: TokenUpdate,
    done_what: str,
    *,
    revisions: tuple[int, ...] | None = None,
) -> Page:
    _, propagation = await change(
        request,
        EDIT_TOKEN,
        EditToken(id=token_id, changes=update, revisions=revisions, actor=actor(request)),
    )
    return done(request, f"/admin/tokens/{token_id}", Flash.of(done_what, propagation))


def _stale(request: HttpRequest, form: Form, edited: NewToken, current: Token) -> Page:
    """Shows both versions of a token that has changed since its form was opened. Nothing is written."""
    return page(
        request,
        "tokens/stale.html",
        status=409,
        form=form,
        token=current,
        fields=forms.differences(current, edited),
    )


def _form(
    request: HttpRequest, form: Form, problems: tuple[FieldError, ...] = (), token: Token | None = None
) -> Page:
    messages = forms.by_field(problems, form)
    first_invalid = next((field for field in messages if field), "")
    return page(
        request,
        "tokens/form.html",
        status=400 if problems else 200,
        form=form,
        problems=messages,
        focus=first_invalid or ("" if token else "description"),
        token=token,
        suggested=forms.SUGGESTED,
        expiries=forms.EXPIRIES,
        windows=forms.WINDOWS,
    )


def _problems(error: ProblemError) -> tuple[FieldError, ...]:
    """The faults of a form's fields.

    Raises:
        ProblemError: the error is not about the form's fields.
    """
    if error.code not in {"bad_request", "exceeds_authority", "conflict"}:
        raise error
    return error.errors or (FieldError(field="", message=error.detail),)


def _reveal(request: HttpRequest, created: Creation, secret: str, rotated: Token | None = None) -> Page:
    reply = created.reply
    scheme = "https" if is_encrypted(request) else "http"
    return page(
        request,
        "tokens/created.html",
        token=reply.token if reply else None,
        secret="" if reply and reply.replayed else secret,
        settled=created.propagation is not None,
        rotated=rotated,
        base=f"{scheme}://{request.headers['host']}",
    )


HANDLERS: Handlers = [
    list_tokens, show_create_form, create_token, show, show_edit_form, edit, confirm_disable, disable, enable, show_rotate_form, rotate, confirm_revoke, revoke, end_grace, find_rejections,
]  # fmt: skip

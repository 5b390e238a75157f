"""Access tokens: the list, making one, and one token's pages."""

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
"""In how many answers a page comes that one cannot hold: the largest tokens there may be fit these."""
GRACES = ((0, "ends at once"), (3600, "one hour"), (86400, "one day"), (604800, "one week"))
STATES = tuple((state, state.replace("_", " ")) for state in get_args(TokenState))
ORDERS = (
    ("created", "newest first"),
    ("used", "last used first"),
    ("expires", "next to expire"),
    ("description", "by description"),
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
    """Every token there is, to search and filter."""
    wanted: dict[str, Any] = {
        "query": _without_secret(search.strip()) or None,
        "scope": granted.strip() or None,
        "account": account.strip() or None,
        "state": in_state if in_state in get_args(TokenState) else None,
        "order": order if order in get_args(TokenOrder) else "created",
    }
    listing = await _listing(
        request, ListTokens(page=at, page_size=PAGE_SIZE, actor=actor(request), **wanted)
    )
    given = {name: value for name, value in wanted.items() if value}
    if at >= listing.pages > 0:
        return redirect(f"/admin/tokens?{urlencode({**given, 'page': listing.pages - 1})}")
    used = await ask(
        request, GET_USE, GetUse(ids=tuple(token.id for token in listing.tokens), actor=actor(request))
    )
    # Going back, htmx wants the whole page again.
    part = bool(request.htmx) and not request.htmx.history_restore_request
    shown = page(
        request,
        "tokens/list.html" if part else "tokens/page.html",
        listing=listing,
        uses=used.uses,
        wanted={name: value or "" for name, value in wanted.items()},
        secret=token_format.LOOKS_LIKE_ONE,
        is_part=part,
        states=STATES,
        orders=ORDERS,
    )
    if part and _differs_in_search_only(request):
        # Not each letter is a page to go back to.
        shown.headers = {**shown.headers, "hx-replace-url": f"/admin/tokens?{request.url.query}"}
    return shown


def _differs_in_search_only(request: HttpRequest) -> bool:
    """Whether the page in the browser is this one but for what is searched for."""
    before, after = (
        {name: value for name, value in parse_qsl(query) if name != "query"}
        for query in (split_url(request.headers.get("hx-current-url", "")).query, request.url.query)
    )
    return {"order": "created", **before} == {"order": "created", **after}


def _without_secret(search: str) -> str:
    """What to search for: of a secret its digest, or its first characters where it is mistyped."""
    if re.fullmatch(token_format.LOOKS_LIKE_ONE, search) is None:
        return search
    return token_format.digest(search) or search[: token_format.HINT_LENGTH]


async def _listing(request: HttpRequest, wanted: ListTokens) -> TokenPage:
    """A page of the list, in parts where it is more than one answer holds."""
    try:
        return await ask(request, LIST_TOKENS, wanted)
    except ProblemError as error:
        if [each.field for each in error.errors] != ["pageSize"]:
            raise
    replace = msgspec.structs.replace
    first, size = wanted.page * PARTS, PAGE_SIZE // PARTS
    parts = [
        await ask(request, LIST_TOKENS, replace(wanted, page=number, page_size=size))
        for number in range(first, first + PARTS)
    ]
    total = parts[0].total
    return TokenPage(
        total=total,
        page=wanted.page,
        pages=math.ceil(total / PAGE_SIZE),
        tokens=tuple(token for part in parts for token in part.tokens),
    )


@shows("/admin/tokens/new")
async def ask_new(request: HttpRequest, account: Text = "") -> Page:
    """The form for a new token."""
    return _form(request, forms.empty(account=account, key=secrets.token_urlsafe(16)))


@changes("/admin/tokens/new")
async def make(request: HttpRequest) -> Page:
    """Makes a token and shows its secret, once: sent again, the form makes no second one and shows nothing."""
    sent = await sessions.form(request)
    filled = forms.read(sent, datetime.now(UTC))
    if filled.problems:
        unknown = await account_faults(request, filled.token.account)
        return _form(request, sent, (*filled.problems, *unknown))
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
                idempotency_key=sent.get("key") or None,
            ),
        )
    except ProblemError as error:
        if error.code == "conflict":
            return page(
                request, "tokens/made.html", made=None, secret="", settled=True, rotated=None, base=""
            )
        return _form(request, sent, _problems(error))
    return _reveal(request, created, secret.value)


@shows("/admin/tokens/{token_id:str}")
async def show(request: HttpRequest, token_id: TokenId) -> Page:
    """One token: what it is, how it is used, and what happened to it."""
    token, log, used, before = await asyncio.gather(
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
        uses=used.uses.get(token_id, (0,) * MAX_USE_HOURS),
        before=before.tokens[0] if before.tokens else None,
    )


@shows("/admin/tokens/{token_id:str}/edit")
async def ask_edit(request: HttpRequest, token_id: TokenId) -> Page:
    """The form for an existing one."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return _form(request, forms.of(token), token=token)


@changes("/admin/tokens/{token_id:str}/edit")
async def edit(request: HttpRequest, token_id: TokenId) -> Page:
    """Changes it, if nobody else did since the form was opened."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    sent = await sessions.form(request)
    filled = forms.read(sent, datetime.now(UTC), token)
    if sent.get("revision") != str(token.revision):
        return _stale(request, sent, filled.token, token)
    if filled.problems:
        return _form(request, sent, filled.problems, token=token)
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
            return _stale(request, sent, filled.token, error.current)
        return _form(request, sent, _problems(error), token=token)


@shows("/admin/tokens/{token_id:str}/disable")
async def ask_disable(request: HttpRequest, token_id: TokenId) -> Page:
    """Asks for confirmation: sessions of this token end."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return page(request, "tokens/disable.html", token=token)


@changes("/admin/tokens/{token_id:str}/disable")
async def disable(request: HttpRequest, token_id: TokenId) -> Page:
    """Has its rotation chain rejected until it is enabled again."""
    return await _update(request, token_id, TokenUpdate(disabled=True), "disabled")


@changes("/admin/tokens/{token_id:str}/enable")
async def enable(request: HttpRequest, token_id: TokenId) -> Page:
    """Makes it valid again."""
    return await _update(request, token_id, TokenUpdate(disabled=False), "enabled")


@shows("/admin/tokens/{token_id:str}/rotate")
async def ask_rotate(request: HttpRequest, token_id: TokenId) -> Page:
    """Asks for how long the old secret shall live on."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return page(request, "tokens/rotate.html", token=token, graces=GRACES, key=secrets.token_urlsafe(16))


@changes("/admin/tokens/{token_id:str}/rotate")
async def rotate(request: HttpRequest, token_id: TokenId) -> Page:
    """Makes its successor and shows that one's secret, once."""
    sent = await sessions.form(request)
    grace = sent.get("grace", "")
    if grace not in {str(seconds) for seconds, _ in GRACES}:
        raise ProblemError("bad_request", "grace: one of the choices")
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
            idempotency_key=sent.get("key") or None,
        ),
    )
    try:
        old = await ask(request, GET_TOKEN, GetToken(id=token_id, revoked=True, actor=actor(request)))
    except ProblemError:  # the secret has to be shown all the same
        old = None
    return _reveal(request, created, secret.value, rotated=old)


@shows("/admin/tokens/{token_id:str}/revoke")
async def ask_revoke(request: HttpRequest, token_id: TokenId) -> Page:
    """Asks for confirmation, and says what goes with it."""
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, actor=actor(request)))
    return page(request, "tokens/revoke.html", token=token, revoked=None, everywhere=None)


@changes("/admin/tokens/{token_id:str}/revoke")
async def revoke(request: HttpRequest, token_id: TokenId) -> Page:
    """Revokes its rotation chain, with its descendants if the form says so."""
    sent = await sessions.form(request)
    return await _revoke(request, token_id, descendants=sent.get("descendants") == "true")


@changes("/admin/tokens/{token_id:str}/end-grace")
async def end_grace(request: HttpRequest, token_id: TokenId) -> Page:
    """Revokes the older secrets that this token replaced."""
    return await _revoke(request, token_id, only="predecessors")


async def _revoke(request: HttpRequest, token_id: str, **options: Any) -> Page:
    token = await ask(request, GET_TOKEN, GetToken(id=token_id, revoked=True, actor=actor(request)))
    revoked, everywhere = await change(
        request, REVOKE_TOKEN, RevokeToken(id=token_id, actor=actor(request), **options)
    )
    verifier_of(request).recorder.observe(catalogue.PROPAGATION_SECONDS, everywhere.seconds)
    return page(
        request,
        "tokens/revoke.html",
        token=token,
        revoked=revoked,
        everywhere=everywhere,
        only_predecessors=options.get("only") is not None,
    )


@shows("/admin/refusals")
async def why(request: HttpRequest, request_id: Annotated[str, QueryParameter(max_length=128)] = "") -> Page:
    """Why was this request rejected?"""
    asked = request_id.strip()
    found = (
        await ask(
            request, FIND_REJECTED_REQUESTS, FindRejectedRequests(request_id=asked, actor=actor(request))
        )
        if asked
        else None
    )
    return page(request, "refusals.html", asked=asked, refusals=found.refusals if found else ())


async def _update(
    request: HttpRequest,
    token_id: str,
    changed: TokenUpdate,
    what: str,
    *,
    revisions: tuple[int, ...] | None = None,
) -> Page:
    _, everywhere = await change(
        request,
        EDIT_TOKEN,
        EditToken(id=token_id, changes=changed, revisions=revisions, actor=actor(request)),
    )
    return done(request, f"/admin/tokens/{token_id}", Flash.of(what, everywhere))


def _stale(request: HttpRequest, sent: Form, wanted: NewToken, current: Token) -> Page:
    """Shows both versions of a token that somebody else has changed since the form was opened; nothing is written."""
    return page(
        request,
        "tokens/stale.html",
        status=409,
        form=sent,
        token=current,
        fields=forms.differences(current, wanted),
    )


def _form(
    request: HttpRequest, form: Form, problems: tuple[FieldError, ...] = (), token: Token | None = None
) -> Page:
    shown = forms.by_field(problems, form)
    first_wrong = next((field for field in shown if field), "")
    return page(
        request,
        "tokens/form.html",
        status=400 if problems else 200,
        form=form,
        problems=shown,
        focus=first_wrong or ("" if token else "description"),
        token=token,
        suggested=forms.SUGGESTED,
        expiries=forms.EXPIRIES,
        windows=forms.WINDOWS,
    )


def _problems(error: ProblemError) -> tuple[FieldError, ...]:
    """What was wrong with a form's fields.

    Raises:
        ProblemError: it was something else.
    """
    if error.code not in {"bad_request", "exceeds_authority", "conflict"}:
        raise error
    return error.errors or (FieldError(field="", message=error.detail),)


def _reveal(request: HttpRequest, created: Creation, secret: str, rotated: Token | None = None) -> Page:
    made = created.made
    scheme = "https" if is_encrypted(request) else "http"
    return page(
        request,
        "tokens/made.html",
        made=made.token if made else None,
        secret="" if made and made.replayed else secret,
        settled=created.everywhere is not None,
        rotated=rotated,
        base=f"{scheme}://{request.headers['host']}",
    )


HANDLERS: Handlers = [
    list_tokens, ask_new, make, show, ask_edit, edit, ask_disable, disable, enable, ask_rotate, rotate, ask_revoke, revoke, end_grace, why,
]  # fmt: skip

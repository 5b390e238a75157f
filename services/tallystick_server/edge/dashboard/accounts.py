"""The pages of accounts: the list, and adding and deleting accounts."""

from typing import Annotated
from urllib.parse import urlencode

from litestar.params import QueryParameter

from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    GET_ACCOUNT,
    LIST_ACCOUNTS,
    AddAccount,
    DeleteAccount,
    GetAccount,
    ListAccounts,
)
from tallystick.contracts.messages import MAX_PAGE, FieldError
from tallystick.contracts.tokens import LIST_TOKENS, ListTokens
from tallystick.metrics import catalogue
from tallystick_server.edge.api.parameters import Account
from tallystick_server.edge.api.upstream import actor, ask, change
from tallystick_server.edge.authentication.context import HttpRequest, verifier_of
from tallystick_server.edge.dashboard import sessions
from tallystick_server.edge.dashboard.flash import Flash
from tallystick_server.edge.dashboard.pages import Handlers, Page, changes, done, page, redirect, shows
from tallystick_server.edge.http.errors import ProblemError

PAGE_SIZE = 25


@shows("/admin/accounts")
async def list_accounts(
    request: HttpRequest,
    search: Annotated[str, QueryParameter(name="query", max_length=256)] = "",
    at: Annotated[int, QueryParameter(name="page", ge=0, le=MAX_PAGE)] = 0,
) -> Page:
    """The list of all accounts."""
    return await _list(request, search, at)


@changes("/admin/accounts")
async def add(request: HttpRequest) -> Page:
    """Adds an account."""
    form = await sessions.form(request)
    account = form.get("account", "").strip()
    try:
        added = await ask(
            request,
            ADD_ACCOUNT,
            AddAccount(account=account, name=form.get("name", "").strip(), actor=actor(request)),
        )
    except ProblemError as error:
        if error.code != "bad_request":
            raise
        return await _list(request, "", 0, form=form, problems=error.errors)
    return done(request, "/admin/accounts", Flash("added" if added.state == "new" else "existing"))


@shows("/admin/accounts/{account:str}/delete")
async def confirm_delete(request: HttpRequest, account: Account) -> Page:
    """Asks for confirmation, and shows which tokens will be revoked."""
    record = await ask(request, GET_ACCOUNT, GetAccount(account=account, actor=actor(request)))
    tokens = await ask(request, LIST_TOKENS, ListTokens(account=account, page_size=5, actor=actor(request)))
    return page(
        request, "accounts/delete.html", account=record, tokens=tokens, deleted=None, propagation=None
    )


@changes("/admin/accounts/{account:str}/delete")
async def delete(request: HttpRequest, account: Account) -> Page:
    """Deletes an account and revokes its tokens."""
    deleted, propagation = await change(
        request, DELETE_ACCOUNT, DeleteAccount(account=account, actor=actor(request))
    )
    verifier_of(request).recorder.observe(catalogue.PROPAGATION_SECONDS, propagation.seconds)
    return page(
        request, "accounts/delete.html", account=None, tokens=None, deleted=deleted, propagation=propagation
    )


async def _list(
    request: HttpRequest,
    search: str,
    at: int,
    *,
    form: dict[str, str] | None = None,
    problems: tuple[FieldError, ...] = (),
) -> Page:
    query = ListAccounts(page=at, page_size=PAGE_SIZE, query=search or None, actor=actor(request))
    listing = await ask(request, LIST_ACCOUNTS, query)
    if at >= listing.pages > 0:
        return redirect(f"/admin/accounts?{urlencode({'query': search, 'page': listing.pages - 1})}")
    return page(
        request,
        "accounts/page.html",
        status=400 if problems else 200,
        listing=listing,
        query=search,
        form=form or {},
        problems={problem.field: problem.message for problem in problems},
    )


HANDLERS: Handlers = [list_accounts, add, confirm_delete, delete]

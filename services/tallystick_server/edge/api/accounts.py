"""Accounts that tokens can be bound to."""

from typing import Annotated, Any

from litestar import delete, get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct

from tallystick.contracts import accounts as c, records
from tallystick_server.edge.api.parameters import Account, After, Page, PageSize
from tallystick_server.edge.api.upstream import actor, ask, change, idempotency_key
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.authorization.requirements import AccountIn, Scope


class NewAccount(Struct, forbid_unknown_fields=True):
    account: str
    name: str = ""


@post("/v1/account", requires=Scope("api:accounts:write", account=AccountIn.BODY), status_code=200)
async def add(request: HttpRequest, data: JSONBody[NewAccount]) -> c.AddedAccount:
    """Add an account. An existing account is left unchanged, and `state` says so."""
    return await ask(
        request,
        c.ADD_ACCOUNT,
        c.AddAccount(
            account=data.account,
            name=data.name,
            actor=actor(request),
            idempotency_key=idempotency_key(request),
        ),
    )


@get("/v1/accounts", requires=Scope("api:accounts:read"))
async def list_accounts(
    request: HttpRequest,
    *,
    page: Page = 0,
    page_size: PageSize = 20,
    search: Annotated[
        str | None,
        QueryParameter(name="query", description="only accounts whose id or name contains this text"),
    ] = None,
    after: After = None,
) -> c.AccountPage:
    """List accounts by name."""
    query = c.ListAccounts(page=page, page_size=page_size, query=search, after=after, actor=actor(request))
    return await ask(request, c.LIST_ACCOUNTS, query)


@get("/v1/account/{account:str}", requires=Scope("api:accounts:read", account=AccountIn.PATH))
async def show(request: HttpRequest, account: Account) -> records.Account:
    """Get an account."""
    return await ask(request, c.GET_ACCOUNT, c.GetAccount(account=account, actor=actor(request)))


@get("/v1/account/{account:str}/log", requires=Scope("api:accounts:read", account=AccountIn.PATH))
async def log(request: HttpRequest, account: Account, after: After = None) -> c.AccountLog:
    """Get the log of an account: when it was added and deleted, and rejected attempts. Includes deleted accounts."""
    return await ask(
        request, c.GET_ACCOUNT_LOG, c.GetAccountLog(account=account, after=after, actor=actor(request))
    )


@delete(
    "/v1/account/{account:str}",
    requires=Scope("api:accounts:delete", account=AccountIn.PATH),
    status_code=200,
)
async def remove(request: HttpRequest, account: Account) -> c.AccountDeleted:
    """Delete an account and revoke its tokens."""
    deleted, _ = await change(
        request,
        c.DELETE_ACCOUNT,
        c.DeleteAccount(account=account, actor=actor(request), idempotency_key=idempotency_key(request)),
    )
    return deleted


HANDLERS: list[Any] = [add, list_accounts, show, log, remove]

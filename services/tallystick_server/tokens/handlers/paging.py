"""What the operations that answer pages have in common."""

from typing import Any

import msgspec

from tallystick.contracts.accounts import (
    ListAccounts,
)
from tallystick.contracts.messages import MAX_PAGE, MAX_PAGE_SIZE, FieldError
from tallystick.contracts.tokens import (
    ListTokens,
)
from tallystick.tokens import rules
from tallystick_server.tokens.authority import Rejected
from tallystick_server.tokens.handlers.replies import bad_request
from tallystick_server.tokens.store import cursors
from tallystick_server.tokens.store.cursors import LogPlace, NotACursor, Place
from tallystick_server.tokens.store.queries import FIRST


def place_of(request: ListTokens | ListAccounts) -> Place | None:
    """Where the page of a cursor begins.

    Raises:
        Rejected: the cursor is not valid.
    """
    try:
        return cursors.place(request)
    except NotACursor as error:
        raise Rejected(bad_request(FieldError(field="after", message=str(error)))) from None


def log_place(after: str | None) -> LogPlace:
    """Before which entries the page of a log begins.

    Raises:
        Rejected: the cursor is not valid.
    """
    try:
        return FIRST if after is None else cursors.decode(after, LogPlace)
    except NotACursor as error:
        raise Rejected(bad_request(FieldError(field="after", message=str(error)))) from None


def listing_problems(request: ListTokens | ListAccounts) -> list[FieldError]:
    problems = _paging_problems(request)
    for field in ("query", "account", "scope", "rotated_to", "created_by"):
        text: str | None = getattr(request, field, None)
        if text is not None and (len(text) > rules.MAX_DESCRIPTION or "\0" in text):
            name = next(info for info in msgspec.structs.fields(request) if info.name == field).encode_name
            problems.append(
                FieldError(field=name, message=f"over {rules.MAX_DESCRIPTION} characters, or a NUL")
            )
    return problems


def _paging_problems(request: Any) -> list[FieldError]:
    problems = []
    if not 0 <= request.page <= MAX_PAGE:
        problems.append(FieldError(field="page", message=f"0 to {MAX_PAGE}"))
    if request.page and request.after is not None:
        problems.append(FieldError(field="page", message="not with after, which says where the page begins"))
    if not 1 <= request.page_size <= MAX_PAGE_SIZE:
        problems.append(FieldError(field="pageSize", message=f"1 to {MAX_PAGE_SIZE}"))
    return problems

"""Short constructors of commands, for programs that are written by hand."""

from typing import Any

from tests.authority.model import Caller, Command, Grant
from tests.authority.programs import CAST, OPERATOR

GRACE_S = 600
ALICE = Command("add_account", target="alice")


def by(name: str, **fields: Any) -> Caller:
    return Caller(token=name, **fields)


def create(name: str, grant: Grant | None = None, caller: Caller = OPERATOR, **fields: Any) -> Command:
    """Creates a token of the cast, or one with the scope ``orders`` unless a grant is passed."""
    return Command("create", caller, new=name, grant=grant or CAST.get(name, Grant(("orders",))), **fields)


def rotate(name: str, new: str, caller: Caller = OPERATOR, grace: int = GRACE_S, **fields: Any) -> Command:
    return Command("rotate", caller, target=name, new=new, grace=grace, **fields)


def edit(name: str, patch: dict[str, Any], caller: Caller = OPERATOR, **fields: Any) -> Command:
    return Command("edit", caller, target=name, patch=patch, **fields)


def disable(name: str, caller: Caller = OPERATOR) -> Command:
    return edit(name, {"disabled": True}, caller)


def enable(name: str, caller: Caller = OPERATOR) -> Command:
    return edit(name, {"disabled": False}, caller)


def revoke(name: str, caller: Caller = OPERATOR, **fields: Any) -> Command:
    return Command("revoke", caller, target=name, **fields)


def sign_in(name: str, session: str, **fields: Any) -> Command:
    return Command("sign_in", by(name, **fields), new=session)


def resume(session: str) -> Command:
    return Command("resume", target=session)

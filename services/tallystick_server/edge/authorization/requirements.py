"""What a route requires of its requests, as values that it declares: ``requires=Scope("metrics")``."""

from dataclasses import dataclass
from enum import Enum


class AccountIn(Enum):
    """Where a request names the account that it is about. An account-bound token is for its own account only."""

    PATH = "path"
    QUERY = "query"
    BODY = "body"
    TOKEN = "token"  # noqa: S105  # a place
    """It names a token, whose account the tokens service knows."""


@dataclass(frozen=True, slots=True)
class Public:
    """No token."""


@dataclass(frozen=True, slots=True)
class AnyToken:
    """A valid token with any scopes.

    Args:
        account: where the account is named; without it, an account-bound token is rejected.
    """

    account: AccountIn | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """A token that covers a scope.

    Args:
        name: the scope.
        account: where the account is named; without it, an account-bound token is rejected.
        alternative: another scope that is sufficient; the tokens service then decides by what the request changes.
    """

    name: str
    account: AccountIn | None = None
    alternative: str | None = None


@dataclass(frozen=True, slots=True)
class ScopeInQuery:
    """A token that covers the scope that the query names; the handler checks it, since it knows the question."""


@dataclass(frozen=True, slots=True)
class Session:
    """A dashboard session, whose token covers a scope.

    Args:
        name: the scope.
    """

    name: str


Requirement = Public | AnyToken | Scope | ScopeInQuery | Session

PUBLIC = Public()
SELF = AnyToken(AccountIn.TOKEN)
"""A route about the request's own token: any token will do, an account-bound one too."""

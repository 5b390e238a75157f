"""The requirements that routes declare, as values: ``requires=Scope("metrics")``."""

from dataclasses import dataclass
from enum import Enum


class AccountIn(Enum):
    """Where a request names its account. An account-bound token is accepted for its own account only."""

    PATH = "path"
    QUERY = "query"
    BODY = "body"
    TOKEN = "token"  # noqa: S105  # a place
    """The request names a token; the tokens service checks its account."""


@dataclass(frozen=True, slots=True)
class Public:
    """No token is required."""


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
        alternative: another sufficient scope; the tokens service then decides by the fields that the request changes.
    """

    name: str
    account: AccountIn | None = None
    alternative: str | None = None


@dataclass(frozen=True, slots=True)
class ScopeInQuery:
    """A token that covers the scope in the query. The handler checks it."""


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
"""A route about the request's own token. It accepts any token, including account-bound ones."""

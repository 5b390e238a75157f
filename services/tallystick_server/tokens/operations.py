"""Every administrative operation: the scope it requires, its bounds, and the audit rows and events that it writes. HTTP,
NATS, the dashboard, the command line and self-service apply the same rule.

python -m tallystick_server.tokens.operations        prints the table in docs/security-model.md
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

READ = "api:tokens:read"
WRITE = "api:tokens:write"
DELETE = "api:tokens:delete"
DASHBOARD = "admin"
"""The scope of the dashboard, which shows tokens and accounts."""


class Rule(NamedTuple):
    """What one operation requires.

    Args:
        name: the operation.
        scopes: the acting token must cover one of them. None: only an operator may do this.
        is_self_service: a token needs no scope to do this to itself.
        bound: what an account-bound token may do, and how far any token may go.
        checked: what else is checked in the transaction.
        audit: the actions in the audit table, one row for each token changed; those about tokens and accounts are
            announced as events of the same type.
        ways: the HTTP routes, dashboard pages and commands that run it.
        is_bound_to_itself: an account-bound token may do this to itself and to no other token.
    """

    name: str
    scopes: Sequence[str] | None
    bound: str
    checked: str
    audit: Sequence[str]
    ways: Sequence[str]
    is_self_service: bool = False
    is_bound_to_itself: bool = False

    @property
    def rejected_action(self) -> str:
        """The action in the audit of an attempt that was rejected, such as ``token.revoke.rejected``."""
        return f"{self.audit[0].partition('.')[0]}.{self.name.split()[0]}.rejected"


CREATE = Rule(
    "create",
    [WRITE],
    "its own account, and only with `api:tokens` or `api:tokens:write` itself; not an imported token",
    "attenuation; the account exists; the bound on tokens per creator",
    ["token.created"],
    ["POST /v1/tokens", "POST /v1/token", "/admin/tokens/new", "tokens create"],
)
EDIT = Rule(
    "edit",
    [WRITE],
    "itself",
    "revision; attenuation before and after; not rotated",
    ["token.updated"],
    ["PATCH /v1/tokens/{token_id}", "/admin/tokens/{id}/edit", "tokens edit"],
    is_bound_to_itself=True,
)
DISABLE = Rule(
    "disable",
    [DELETE],
    "its own account",
    "revision; covers the chain",
    ["token.disabled"],
    ["PATCH /v1/tokens/{token_id}", "/admin/tokens/{id}/disable", "tokens edit --disable"],
)
ENABLE = Rule(
    "enable",
    [WRITE],
    "itself",
    "revision; attenuation for each token that the same disable covered",
    ["token.enabled"],
    ["PATCH /v1/tokens/{token_id}", "/admin/tokens/{id}/enable", "tokens edit --enable"],
    is_bound_to_itself=True,
)
ROTATE = Rule(
    "rotate",
    [WRITE],
    "itself",
    "revision; attenuation; not rotated, not expired; of itself: the grace and the number of living secrets",
    ["token.rotated", "token.created"],
    [
        "POST /v1/tokens/{token_id}/rotate",
        "POST /v1/self/rotate",
        "/admin/tokens/{id}/rotate",
        "tokens rotate",
    ],
    is_self_service=True,
    is_bound_to_itself=True,
)
REVOKE = Rule(
    "revoke",
    [DELETE],
    "its own account",
    "revision; covers the chain; of itself: its predecessors, and its successors by self-rotation",
    ["token.revoked"],
    [
        "DELETE /v1/tokens/{token_id}",
        "DELETE /v1/token/{token}",
        "DELETE /v1/self",
        "POST /oauth2/revoke",
        "/admin/tokens/{id}/revoke",
        "tokens revoke",
    ],
    is_self_service=True,
)
REVOKE_DESCENDANTS = Rule(
    "revoke with descendants",
    [DELETE],
    "its own account, descendants included",
    "as revoke, and every token created with the covered ones, directly or not",
    ["token.revoked"],
    ["DELETE /v1/tokens/{token_id}?descendants=true", "tokens revoke --with-descendants"],
)
REVOKE_ALL = Rule(
    "revoke all of an account",
    [DELETE],
    "its own account",
    "the account exists",
    ["token.revoked"],
    ["DELETE /v1/tokens/account/{account}", "tokens revoke --account"],
)
SHOW = Rule(
    "show a token, its log",
    [READ, DASHBOARD],
    "its own account",
    "",
    [],
    [
        "GET /v1/tokens/{token_id}",
        "GET /v1/tokens/{token_id}/log",
        "GET /v1/self",
        "/admin/tokens/{id}",
        "tokens show",
        "tokens log",
    ],
    is_self_service=True,
)
LIST = Rule(
    "list tokens",
    [READ, DASHBOARD],
    "its own account",
    "",
    [],
    ["GET /v1/tokens", "GET /v1/tokens/account/{account}", "/admin/tokens", "tokens list"],
)
SEARCH = Rule(
    "find rejected requests, show use",
    [READ, DASHBOARD],
    "not at all",
    "",
    [],
    ["/admin/refusals", "/admin/tokens"],
)
ADD_ACCOUNT = Rule(
    "add an account",
    ["api:accounts:write"],
    "its own account",
    "",
    ["account.added"],
    ["POST /v1/account", "/admin/accounts", "accounts add"],
)
SHOW_ACCOUNT = Rule(
    "show an account",
    ["api:accounts:read", DASHBOARD],
    "its own account",
    "",
    [],
    [
        "GET /v1/account/{account}",
        "GET /v1/account/{account}/log",
        "/admin/accounts/{account}/delete",
        "accounts show",
        "accounts log",
    ],
)
LIST_ACCOUNTS = Rule(
    "list accounts",
    ["api:accounts:read", DASHBOARD],
    "not at all",
    "",
    [],
    ["GET /v1/accounts", "/admin/accounts", "accounts list"],
)
DELETE_ACCOUNT = Rule(
    "delete an account",
    ["api:accounts:delete"],
    "its own account",
    "the account exists; revokes its tokens",
    ["account.deleted", "token.revoked"],
    ["DELETE /v1/account/{account}", "/admin/accounts/{account}/delete", "accounts delete"],
)
SIGN_IN = Rule(
    "sign in to the dashboard",
    [DASHBOARD],
    "not at all",
    "restrictions of the token; a link has not been used",
    ["session.started"],
    ["/admin/sign-in"],
)
IMPORT = Rule(
    "import tokens",
    None,
    "",
    "every record; accounts exist or are created",
    ["token.created", "account.added"],
    ["tokens import", "TALLYSTICK_PREPARED_TOKEN"],
)
EXPORT = Rule("export a token", None, "", "", [], ["tokens export"])
MAKE_LINK = Rule(
    "make a sign-in link", None, "", "the token is active", ["session.link_made"], ["tokens login-link", "up"]
)

RULES: Sequence[Rule] = (
    CREATE,
    EDIT,
    DISABLE,
    ENABLE,
    ROTATE,
    REVOKE,
    REVOKE_DESCENDANTS,
    REVOKE_ALL,
    SHOW,
    LIST,
    SEARCH,
    ADD_ACCOUNT,
    SHOW_ACCOUNT,
    LIST_ACCOUNTS,
    DELETE_ACCOUNT,
    SIGN_IN,
    IMPORT,
    EXPORT,
    MAKE_LINK,
)


def table() -> str:
    """The rules, in Markdown."""
    lines = [
        "| operation | routes, pages, commands | scope | an account-bound token | checked in the transaction | audit |",
        "|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        scopes = " or ".join(f"`{scope}`" for scope in rule.scopes) if rule.scopes else "operators only"
        if rule.is_self_service:
            scopes += "; none for itself, at `/v1/self`"
        cells = [
            rule.name,
            ", ".join(f"`{way}`" for way in rule.ways),
            scopes,
            rule.bound,
            rule.checked,
            ", ".join(f"`{action}`" for action in rule.audit),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())

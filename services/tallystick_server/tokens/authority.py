"""Authorization of administrative operations. Pure: the caller passes the facts, read in the transaction that makes the
change. `tallystick_server.tokens.operations` lists what each operation requires.
"""

from collections.abc import Iterable

from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import NewToken
from tallystick.tokens.access import AccessRequest, check_access
from tallystick.tokens.scopes import covers
from tallystick_server.tokens.attenuation import exceeds
from tallystick_server.tokens.operations import WRITE, Rule
from tallystick_server.tokens.store.rows import StoredToken

MAX_LIVING_SECRETS = 3
"""Maximum number of valid secrets in a chain after a self-rotation."""


class Rejected(Exception):
    """Rolls a transaction back, with the rejection.

    Args:
        failure: the reply.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class Authority:
    """The permissions of a request.

    Args:
        actor: who makes the request, as the edge or the operator reports.
        holder: the token of the actor's credential; None for an operator, who may do everything.

    Raises:
        Rejected: the token is not active.
    """

    def __init__(self, actor: Actor, holder: StoredToken | None) -> None:
        if actor.name is None and (holder is None or not holder.is_active):
            raise Rejected(Failure(code="invalid_token"))
        self.actor = actor
        self.holder = holder

    @property
    def name(self) -> str:
        """The actor's name in the audit."""
        return self.holder.token.id if self.holder else self.actor.name or ""

    def is_holder(self, target: StoredToken | None) -> bool:
        """Whether this token is the acting one."""
        return target is not None and self.holder is not None and self.holder.token.id == target.token.id

    def require(self, rule: Rule, *, account: str | None = None, of_itself: bool = False) -> None:
        """Checks scope, account, address and referrer, in this order.

        Args:
            rule: the operation.
            account: the account of its target; None if it has none.
            of_itself: whether the token acts on itself.

        Raises:
            Rejected: one of these checks failed.
        """
        if self.holder is None:
            return
        if rule.scopes is None:
            raise Rejected(Failure(code="exceeds_authority", message="only an operator may do this"))
        token = self.holder.token
        scope = next((scope for scope in rule.scopes if covers(token.scopes, scope)), rule.scopes[0])
        access = AccessRequest(
            None if of_itself and rule.is_self_service else scope,
            account,
            any_account=of_itself,
            address=self.actor.address,
            referrer=self.actor.referrer,
        )
        if code := check_access(token, access):
            raise Rejected(Failure(code=code, scope=scope if code == "insufficient_scope" else None))

    def require_grant(self, *tokens: NewToken) -> None:
        """Checks that none of these tokens has more authority than the acting one.

        Raises:
            Rejected: one has.
        """
        if self.holder is None:
            return
        excess = [error for token in tokens for error in exceeds(self.holder.token, token)]
        if excess:
            raise Rejected(
                Failure(
                    code="exceeds_authority",
                    message="a token cannot give what it does not have",
                    errors=tuple(dict.fromkeys(excess)),
                )
            )

    def require_right_to_create(self) -> None:
        """Checks that an account-bound token has an explicit scope to create tokens: tokens that it creates survive its
        revocation.

        Raises:
            Rejected: it has none.
        """
        if self.holder is None or self.holder.token.account is None:
            return
        if self.holder.is_imported or not {"api:tokens", WRITE} & set(self.holder.token.scopes):
            raise Rejected(Failure(code="insufficient_scope", scope=WRITE))

    def require_not_replaced(self, changed: Iterable[StoredToken]) -> None:
        """Checks that a token in its grace period leaves its chain alone: an attacker with an old secret must not lock out
        the owner of the new one.

        Args:
            changed: the tokens to change.

        Raises:
            Rejected: one of them belongs to the chain of the acting token.
        """
        holder = self.holder
        if holder is None or holder.token.rotated_to is None:
            return
        if any(token.chain == holder.chain for token in changed):
            raise Rejected(
                Failure(
                    code="exceeds_authority",
                    message="this token was replaced: it may not change the tokens of its rotation chain",
                )
            )

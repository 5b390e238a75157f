"""Judges a token for a resource server (RFC 7662), by the same rules as `edge.authorization.guard` judges a request."""

from typing import NamedTuple

import msgspec

from tallystick.coherence.cache import Unknown
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import Restrictions, Token
from tallystick.errors import Refused
from tallystick.tokens import addresses, scopes
from tallystick.tokens.access import Demand, judge
from tallystick.tokens.format import digest
from tallystick.tokens.scopes import covers
from tallystick_server.edge.authorization.guard import Gate, Scope

SHOW = "show"
"""The value of the form field ``restrictions`` with which the caller checks restrictions itself."""


class Question(NamedTuple):
    """What a resource server asks about a token.

    Args:
        scopes: the scopes that the token must cover, all of them.
        account: the account that the resource server's request names.
        address: the address of the resource server's client.
        referrer: the Referer header of the resource server's client.
        show: the caller checks the restrictions for which it gives no value.
    """

    scopes: tuple[str, ...] = ()
    account: str | None = None
    address: str | None = None
    referrer: str | None = None
    show: bool = False

    @property
    def names_request(self) -> bool:
        """Whether the question is about a request, and not only about the token."""
        return bool(self.scopes) or (self.account, self.address, self.referrer) != (None, None, None)


def read_question(form: dict[str, str]) -> Question:
    """The question in a form's fields.

    Raises:
        Refused: a value is invalid. An empty ``account`` or ``referrer`` is valid: the request had none.
    """
    scope, restrictions = form.get("scope"), form.get("restrictions")
    address = addresses.address(form["address"]) if "address" in form else None
    required = tuple(scope.split(" ")) if scope is not None else ()
    errors = []
    if len(required) > scopes.MAX_COUNT or not all(map(scopes.is_scope, required)):
        message = f"must be 1 to {scopes.MAX_COUNT} scopes, separated by one space"
        errors.append(FieldError(field="scope", message=message))
    if "address" in form and address is None:
        errors.append(FieldError(field="address", message="must be an IP address"))
    if restrictions not in {None, SHOW}:
        errors.append(FieldError(field="restrictions", message=f"must be {SHOW} or absent"))
    if errors:
        raise Refused("bad_request", errors=tuple(errors))
    return Question(
        required,
        form.get("account"),
        # Without a zone, which may be of any length.
        str(address) if address is not None else None,
        form.get("referrer"),
        show=restrictions == SHOW,
    )


def rejection(token: Token, question: Question) -> str | None:
    """The first rule that rejects the token, the rate limit aside; None if there is none.

    A restriction for which the question gives no value rejects the token, unless the caller checks it. The account is
    required where scopes are.
    """
    if question.show:
        limits = token.restrictions
        checked = Restrictions(
            addresses=None if question.address is None else limits.addresses,
            referrers=None if question.referrer is None else limits.referrers,
        )
        token = msgspec.structs.replace(token, restrictions=checked)
    if not all(covers(token.scopes, scope) for scope in question.scopes):
        return "insufficient_scope"
    demand = Demand(
        scope=None,
        account=question.account,
        any_account=not question.scopes and question.account is None,
        address=question.address,
        referrer=question.referrer,
    )
    return judge(token, demand)


async def introspect(gate: Gate, scope: Scope, value: str, question: Question) -> Token | None:
    """The token if it is active, and None if it is not, for whatever reason.

    A question about a request counts as a use of the token: it uses up one request of its rate limit, and a rejection
    appears in the token's log.

    Raises:
        Refused: this cannot be decided now.
    """
    if digest(value) is None:
        return None
    known = await gate.checker.check(value)
    if isinstance(known, Unknown):
        if question.names_request and known.refused is not None:
            _note(gate, scope, known.refused.id, known.refused.reason, question.address)
        return None
    token = known.token
    refusal = rejection(token, question)
    if not question.names_request:
        is_unchecked = token.restrictions.rate_limit is not None and not question.show
        return None if refusal or is_unchecked else token
    refusal = refusal or await _spend(gate, token)
    if refusal is not None:
        _note(gate, scope, token.id, refusal, question.address)
        return None
    gate.usage.used(token.id, question.address)
    return token


async def _spend(gate: Gate, token: Token) -> str | None:
    """Uses up one request of the token's rate limit, if it has one."""
    try:
        quota = await gate.quotas.spend(token)
    except Refused as refused:
        # The token was revoked in between. For the caller that is not an error: its own token is another one.
        if refused.code == "invalid_token":
            return refused.code
        raise
    return "rate_limited" if quota is not None and not quota.granted else None


def _note(gate: Gate, scope: Scope, token: str, reason: str, address: str | None) -> None:
    """For the token's log."""
    if gate.usage.refused(token, reason):
        request_id = scope["state"]["request_id"]
        gate.usage.note(token, reason, address, scope["path_template"], request_id)

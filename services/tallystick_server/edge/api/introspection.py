"""Authorizes a token for a resource server (RFC 7662), by the same rules as a request to the edge."""

from typing import NamedTuple

import msgspec

from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import Restrictions, Token
from tallystick.errors import AuthError, DenyReason
from tallystick.tokens import addresses, scopes
from tallystick.tokens.access import AccessRequest, check_access
from tallystick.tokens.scopes import covers
from tallystick.verifier import Verifier
from tallystick_server.edge.authentication.context import HttpRequest, context_of, verifier_of
from tallystick_server.edge.http.errors import ProblemError

SHOW = "show"
"""The value of the form field ``restrictions`` with which the caller checks restrictions itself."""


class Question(NamedTuple):
    """A resource server's question about a token.

    Args:
        scopes: the scopes that the token must cover, all of them.
        account: the account that the resource server's request names.
        address: the address of the resource server's client.
        referrer: the Referer header of the resource server's client.
        show: whether the caller checks the restrictions for which it gives no value.
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
        ProblemError: a value is invalid. An empty ``account`` or ``referrer`` is valid, and means that the request has no account or referrer.
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
        raise ProblemError("bad_request", errors=tuple(errors))
    return Question(
        required,
        form.get("account"),
        # Without the zone of an IPv6 address, which may have any length.
        str(address) if address is not None else None,
        form.get("referrer"),
        show=restrictions == SHOW,
    )


def rejection(token: Token, question: Question) -> DenyReason | None:
    """The first rule that rejects the token, apart from the rate limit; None if none does.

    A restriction for which the question gives no value rejects the token, unless the caller checks it. If the question
    has scopes, an account-bound token also needs its account.
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
    access = AccessRequest(
        scope=None,
        account=question.account,
        any_account=not question.scopes and question.account is None,
        address=question.address,
        referrer=question.referrer,
    )
    return check_access(token, access)


async def introspect(request: HttpRequest, value: str, question: Question) -> Token | None:
    """The token if it is active, else None.

    A question about a request counts as a use of the token: it uses up one request of its rate limit, and a rejection
    appears in the token's log.

    Raises:
        Unavailable: the tokens service does not reply.
    """
    verifier = verifier_of(request)
    try:
        token = await _active(verifier, value, question)
    except AuthError as error:
        if question.names_request and error.token_id is not None:
            route = request.scope["path_template"]
            verifier.usage.record_rejection(error, question.address, route, context_of(request).request_id)
        return None
    if question.names_request:
        verifier.usage.record_accepted(token.id, question.address)
    return token


async def _active(verifier: Verifier, value: str, question: Question) -> Token:
    """The token.

    Raises:
        AuthError: it is not active.
        Unavailable: the tokens service does not reply.
    """
    token = (await verifier.authenticate(value)).token
    if reason := rejection(token, question):
        raise AuthError(reason, token_id=token.id)
    if not question.names_request:
        if token.restrictions.rate_limit is not None and not question.show:
            raise AuthError("rate_limited", token_id=token.id)  # it cannot be checked
        return token
    try:
        quota = await verifier.limiter.spend(token)
    except AuthError as error:  # the token was revoked in between
        raise AuthError(error.reason, token_id=token.id) from None
    if quota is not None and not quota.granted:
        raise AuthError("rate_limited", token_id=token.id)
    return token

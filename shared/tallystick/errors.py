"""The library's exceptions."""

from typing import Literal

from tallystick.contracts.quotas import Quota

DenyReason = Literal[
    "missing_token",
    "invalid_token",
    "invalid_request",
    "insufficient_scope",
    "account_mismatch",
    "address_not_allowed",
    "referrer_not_allowed",
    "rate_limited",
]
"""Why a request is rejected, as its client may learn it. The names are those of RFC 6750 where it has one."""


class Unavailable(Exception):
    """A dependency did not answer in time. The text is shown to the operator."""


class Overloaded(Unavailable):
    """Too many lookups are already waiting for the tokens service."""


class AuthError(Exception):
    """A request is rejected for its credential.

    Args:
        reason: why, as the client may learn it.
        detail: the fault of this request; it never repeats the request's content.
        token_id: the public id of its token, if that exists or existed.
        log_reason: why, as the token's log states it: ``revoked`` where the client gets ``invalid_token``.
        scope: the scope that the token does not cover, of ``insufficient_scope``.
        address: the client's address, of ``address_not_allowed``.
        quota: the state of the token's rate limit, of ``rate_limited``.
    """

    def __init__(
        self,
        reason: DenyReason,
        detail: str = "",
        *,
        token_id: str | None = None,
        log_reason: str | None = None,
        scope: str | None = None,
        address: str | None = None,
        quota: Quota | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason: DenyReason = reason
        self.detail = detail
        self.token_id = token_id
        self.log_reason = log_reason or reason
        self.scope = scope
        self.address = address
        self.quota = quota

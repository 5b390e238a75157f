"""Verifying tokens, and reporting their use."""

from typing import Annotated, Literal

from msgspec import Meta

from tallystick.contracts.messages import Ack, Digest, Message, Time
from tallystick.contracts.operation import Operation
from tallystick.contracts.quotas import Quota
from tallystick.contracts.records import Token


class VerifyToken(Message, frozen=True):
    """With ``scope``, the scope and every restriction are checked; omitted fields count as absent. Without ``scope``,
    the address and the referrer are checked, and the account only if it is given. Both consume one request of the rate
    limit. With only ``digest``, the token alone is checked and nothing is consumed.
    """

    digest: Digest
    scope: str | None = None
    account: str | None = None
    address: str | None = None
    referrer: str | None = None


class Verdict(Message, frozen=True):
    """Whether a token is valid now, and the facts to decide about a request.

    Args:
        code: ``active``; ``invalid_token`` for unknown, revoked, disabled, expired and not yet valid alike; or,
            if the request named more than the digest, the first of ``insufficient_scope``, ``account_mismatch``,
            ``address_not_allowed``, ``referrer_not_allowed`` and ``rate_limited`` that applies.
        token: the record of a valid token.
        expires_in: the remaining seconds by PostgreSQL's clock; None if the token does not expire.
        rev: the token's revision; every change increments it.
        quota: the state of the rate limit, if it was checked.
        refused: the id of a token that exists and is invalid, and the reason: for its log, never for the client.
    """

    code: Literal[
        "active",
        "invalid_token",
        "insufficient_scope",
        "account_mismatch",
        "address_not_allowed",
        "referrer_not_allowed",
        "rate_limited",
    ]
    token: Token | None = None
    expires_in: float | None = None
    rev: int = 0
    quota: Quota | None = None
    refused: "RejectedToken | None" = None


class RejectedToken(Message, frozen=True):
    """An invalid token that exists, and why it is invalid.

    Args:
        id: the token.
        reason: the first that applies.
        replaced: whether an expired token was rotated and its grace period is over. This is a separate field, since an
            edge of an earlier version cannot decode a new reason.
    """

    id: str
    reason: Literal["revoked", "disabled", "expired", "not_yet_valid"]
    replaced: bool = False

    @property
    def log_reason(self) -> str:
        """The reason for the token's log and the metrics."""
        return "replaced" if self.replaced and self.reason == "expired" else self.reason


class VerifyMany(Message, frozen=True):
    requests: Annotated[tuple[VerifyToken, ...], Meta(max_length=256)]


class Verdicts(Message, frozen=True):
    verdicts: tuple[Verdict, ...]


class TokenUsage(Message, frozen=True):
    """How often a token was used since the last report, and when and from where last."""

    id: str
    count: int
    time: Time
    ip: str | None


class RejectedRequest(Message, frozen=True):
    """A rejected request, by route template."""

    id: str
    time: Time
    reason: str
    address: str | None
    route: str
    request_id: str | None = None


class ReportUse(Message, frozen=True):
    uses: tuple[TokenUsage, ...]
    refusals: tuple[RejectedRequest, ...]


VERIFY = Operation("tallystick.v1.tokens.verify", VerifyToken, Verdict)
VERIFY_MANY = Operation("tallystick.v1.tokens.verify_many", VerifyMany, Verdicts)
REPORT_USE = Operation("tallystick.v1.edge.tokens.report_use", ReportUse, Ack)

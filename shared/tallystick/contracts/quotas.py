"""Rate limits, taken and returned as quotas."""

from typing import Annotated

from msgspec import Meta

from tallystick.contracts.messages import Message
from tallystick.contracts.operation import Operation


class Quota(Message, frozen=True):
    """What is left of a token's rate limit.

    Args:
        granted: how many requests may be made now; 0 when the window is used up.
        limit: requests in a window.
        remaining: the requests left in this window.
        window: its length in seconds.
        resets_in: seconds until the next one, by PostgreSQL's clock.
        family: the tokens that share the limit; with ``starts`` it names the window in a `ReturnQuota`.
        starts: when the window started, in Unix seconds by PostgreSQL's clock.
        returned: how many unspent requests of the take before were given back with this one.
    """

    granted: int
    limit: int
    remaining: int
    window: int
    resets_in: float
    family: str | None = None
    starts: int | None = None
    returned: int = 0


Holder = Annotated[str, Meta(pattern="^holder_[0-9a-z]{26}$")]
"""The quota that one edge process holds of one token's limit. Its id is secret to that process."""
Requests = Annotated[int, Meta(ge=0, le=1_000_000)]
TakeNumber = Annotated[int, Meta(ge=1, le=2**53)]


class TakeQuota(Message, frozen=True):
    """Takes requests out of the current window of a token's limit. A take with a holder is idempotent: repeated under
    its number, it gets the same quota.

    Args:
        id: the token.
        wanted: how many requests are expected soon. Near the end of the limit fewer are handed out.
        waiting: how many requests wait for this take; as many are handed out if they are left.
        holder: who takes. Without it nothing can be given back or recalled.
        take: the number of this take; the holder's next one is higher by one.
        unspent: how many requests of the take before are given back.
    """

    id: str
    wanted: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    holder: Holder | None = None
    take: TakeNumber = 1
    unspent: Requests = 0


class ReturnQuota(Message, frozen=True):
    """Gives back the unspent part of a holder's latest take. It is idempotent: it counts once, in its own window, and
    never for more than the take handed out.

    Args:
        family: the tokens that share the limit.
        holder: who took it.
        take: the number of that take.
        window: the length of the window in seconds.
        starts: when that window started, as in the `Quota`.
        unspent: how many requests are given back.
    """

    family: str
    holder: Holder
    take: TakeNumber
    window: int
    starts: int
    unspent: Requests = 0


class ReturnedQuota(Message, frozen=True):
    """How many requests of the take were given back: 0 if its window is over."""

    counted: int


class RecallQuota(Message, frozen=True):
    """A notice that a window is handed out in full. Every edge returns its unspent quota of the window, and from then
    on takes only what requests wait for.

    Args:
        family: the tokens that share the limit.
        window: the length of the window in seconds.
        starts: when it started, in Unix seconds by PostgreSQL's clock.
        limit: the limit that was reached; quotas of a higher one stay.
    """

    family: str
    window: int
    starts: int
    limit: int


TAKE_QUOTA = Operation("tallystick.v1.edge.tokens.take_quota", TakeQuota, Quota, mutates=True)
RETURN_QUOTA = Operation("tallystick.v1.edge.tokens.return_quota", ReturnQuota, ReturnedQuota, mutates=True)
RECALLED = "tallystick.v1.edge.notice.recalled"
"""Where the tokens service publishes `RecallQuota` to every edge, once for each window that is handed out in full."""

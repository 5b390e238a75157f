"""The part of a token's rate limit that this edge holds. It has no clock, sends no message and never awaits.

No window admits more than its limit, and no quota is lost while all services respond. That rests on these rules and on
those of `tallystick_server.tokens.store.limits`. `tests/tallystick/coherence/test_quota_model.py` shows that each is needed:

- A quota is spent only until its window ends, measured from before the take was requested.
- A quota is spent only for a token that was looked up before the take was requested. After an edit of the limit the
  token is looked up again, so an older quota is returned first.
- A returned quota is no longer spent, from before the message is sent.
- A take without a reply is repeated under its own number, and then gets the same quota.
- A recall also applies to a quota that arrives after it: only as much as pending requests need is kept. An older notice
  never replaces a newer one.
"""

from tallystick.contracts.quotas import Quota, RecallQuota, ReturnQuota, TakeQuota
from tallystick.contracts.records import Token
from tallystick.tokens.ids import new_id

PREFETCH_S = 0.1
"""How long a quota should last at the current rate: a larger one is more likely to be left unspent."""
MAX_WANTED = 10_000
_NEVER = float("-inf")


def latest_recall(latest: RecallQuota | None, notice: RecallQuota) -> RecallQuota:
    """The later of two recalls of the same family and window length; notices arrive in any order."""
    if latest is not None and (latest.starts, latest.limit) > (notice.starts, notice.limit):
        return latest
    return notice


class HeldQuota:
    """Args:
    token: the token, as it was last looked up.
    now: the current time in seconds, on a monotonic clock.
    """

    __slots__ = (
        "ends",
        "holder",
        "known_since",
        "left",
        "lost",
        "pending_since",
        "quota",
        "requested_at",
        "returned",
        "returning",
        "returning_from",
        "returns",
        "take",
        "token",
        "waiting",
    )

    def __init__(self, token: Token, now: float) -> None:
        self.holder = new_id("holder_")
        self.take = 0
        """The number of the latest take; each new one is higher by one."""
        self.token = token
        self.known_since = now
        self.waiting = 0
        """The number of requests that wait for a take."""
        self.pending_since: float | None = None
        """When the latest take was first requested; None once it was answered."""
        self.quota: Quota | None = None
        self.left = 0
        self.returning = 0
        """How much was returned and is not acknowledged yet."""
        self.returning_from = 0
        """The number of the take that was returned last."""
        self.returns = False
        """Whether the tokens service still accepts a return of the latest take."""
        self.requested_at = _NEVER
        """When the take that brought the quota was first requested."""
        self.ends = _NEVER
        self.lost = 0
        """Requests handed out that can no longer be made, until they are counted."""
        self.returned = 0
        """Requests taken back by the tokens service, until they are counted."""

    def update(self, token: Token, now: float) -> None:
        """Replaces the token after a new lookup: the quota may be from before an edit of its limit."""
        if token is not self.token:
            self.token = token
            self.known_since = now

    def spend(self, now: float) -> Quota | None:
        """Consumes one request; ``granted`` is 0 if the window is exhausted. None if a take is needed."""
        if self.quota is None or now >= self.ends or self.requested_at < self.known_since:
            return None
        if self.left:
            granted = 1
            self.left -= 1
        elif self.quota.granted:
            return None
        else:
            granted = 0
        return Quota(
            granted=granted,
            limit=self.quota.limit,
            remaining=self.quota.remaining + self.left,
            window=self.quota.window,
            resets_in=self.ends - now,
        )

    # Taking

    def start_take(self, now: float) -> TakeQuota:
        """The take to request now: a new one, or the latest one again if it has no reply."""
        wanted = self.wanted(now)
        if self.pending_since is None:
            self._end_quota()
            self.take += 1
            self.pending_since = now
        return TakeQuota(
            id=self.token.id,
            wanted=max(wanted, self.waiting),
            waiting=max(1, self.waiting),
            holder=self.holder,
            take=self.take,
            unspent=self.returning,
        )

    def wanted(self, now: float) -> int:
        """The number of requests expected soon, from the rate of the last ones."""
        if self.quota is None:
            return 1
        spent = self.quota.granted - self.left - self.returning
        soon = spent / max(now - self.requested_at, 0.001) * PREFETCH_S
        return max(1, min(int(soon), 8 * max(spent, 1), MAX_WANTED))

    def complete_take(
        self, quota: Quota, requested: float, now: float, recall: RecallQuota | None
    ) -> ReturnQuota | None:
        """Holds the quota that a take brought.

        Args:
            quota: the answer.
            requested: when it was requested, this time.
            now: the current time.
            recall: the latest recall of the token's family.

        Returns:
            The return that a recall requires at once; None if it requires none.
        """
        self.settle_return(self.take - 1, quota.returned)
        self.requested_at = requested if self.pending_since is None else self.pending_since
        self.pending_since = None
        self.quota, self.left = quota, quota.granted
        self.returns = quota.family is not None and quota.granted > 0
        self.ends = requested + quota.resets_in
        keep = self.waiting if now < self.ends else 0
        if recall is not None and self.is_recalled(recall) and self.left > keep:
            return self.give_back(keep=keep)
        return None

    def cancel_take(self) -> None:
        """Cancels the pending take: the token no longer exists."""
        self.pending_since = None

    # Giving back

    def is_recalled(self, recall: RecallQuota) -> bool:
        quota = self.quota
        return (
            quota is not None
            and (quota.family, quota.window, quota.starts) == (recall.family, recall.window, recall.starts)
            and quota.limit <= recall.limit
        )

    def give_back(self, *, keep: int = 0) -> ReturnQuota | None:
        """Stops spending what is left, except ``keep``, and returns the message to send. None if the tokens service does not
        accept a return. A return of 0 tells it not to wait for this holder.
        """
        quota = self.quota
        if quota is None or quota.family is None or quota.starts is None or not self.returns:
            return None
        self.returns = False
        self.returning, self.returning_from = max(0, self.left - keep), self.take
        self.left -= self.returning
        return ReturnQuota(
            family=quota.family,
            holder=self.holder,
            take=self.take,
            window=quota.window,
            starts=quota.starts,
            unspent=self.returning,
        )

    def settle_return(self, take: int, counted: int) -> None:
        """Records how much of a return the tokens service counted; the rest is lost."""
        if take != self.returning_from:
            return
        self.returned += min(counted, self.returning)
        self.lost += max(0, self.returning - counted)
        self.returning = 0

    def end_window(self, now: float) -> None:
        """Counts what is left as lost, once the window has ended."""
        if now >= self.ends:
            self.lost += self.left + self.returning
            self.left = self.returning = 0
            self.returns = False

    def _end_quota(self) -> None:
        """Prepares a new take, which also returns what is left of the latest one."""
        if self.returns:  # the tokens service decides whether its window has ended
            self.returning, self.returning_from = self.left, self.take
        else:
            self.lost += self.left
        self.left = 0
        self.returns = False

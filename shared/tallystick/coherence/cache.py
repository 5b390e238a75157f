"""The cache of tokens, and whether it may be used now. It has no clock, sends no message and never awaits.

A revoked token is rejected everywhere once the revoke call has returned. That rests on these rules, each of which
`tests/tallystick/coherence/test_invalidation_model.py` shows to be needed:

- A change deletes the cached token, and detaches every pending lookup of it: the answer may be from before the change,
  so it is neither cached nor given to later requests.
- The cache and pending lookups are used only while the lease lasts. A lease counts from before it was requested, and
  only once every change up to the one it names has been applied.
- Changes are acknowledged as far as they were applied without a gap.
"""

from asyncio import Future
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from tallystick.coherence.notices import notice_key
from tallystick.contracts.propagation import TokenChange
from tallystick.contracts.records import Token
from tallystick.contracts.verification import RejectedToken, Verdict

V = TypeVar("V")

Key = bytes
"""A token's SHA-256 digest."""

MAX_OUT_OF_ORDER = 10_000
"""Changes that may wait for an earlier one. More are treated as lost, and fetched."""


class CachedToken:
    """A valid token. It expires at `ends`, in seconds on the caller's clock."""

    __slots__ = ("admitted", "check_results", "ends", "token")

    def __init__(self, token: Token, ends: float) -> None:
        self.token = token
        self.ends = ends
        self.admitted: set[str] = set()
        """Scopes of routes that it covers without any further check; never a scope that a request names."""
        self.check_results: dict[bytes, Any] = {}
        """Results of forward-auth checks, by query string."""


class NegativeEntry(NamedTuple):
    """An invalid token, until `ends`. If the token exists, `refused` has its id and the reason."""

    refused: RejectedToken | None
    ends: float


CacheEntry = CachedToken | NegativeEntry


class PendingLookup:
    """A lookup of one token that has not been answered yet.

    Args:
        key: the token.
        began: a time before the request was sent.
    """

    __slots__ = ("began", "joined", "key")

    def __init__(self, key: Key, began: float) -> None:
        self.key = key
        self.began = began
        self.joined: list[Future[CacheEntry | None]] = []
        """Requests that share the answer."""


class Cache:
    """Args:
    size: the maximum number of valid tokens. The least recently used ones are dropped first.
    negative_size: the maximum number of invalid tokens. They have a table of their own, so that a flood of them drops no
        valid one.
    negative_s: how long an invalid token stays cached, in seconds.
    """

    def __init__(self, size: int, negative_size: int, negative_s: float = 1.0) -> None:
        self._size = size
        self._negative_size = negative_size
        self._negative_s = negative_s
        self._entries: OrderedDict[Key, CachedToken] = OrderedDict()
        self._negative: OrderedDict[Key, NegativeEntry] = OrderedDict()
        self._pending: dict[Key, PendingLookup] = {}
        self._by_notice: dict[str, Key] = {}
        """Cached tokens and pending lookups, by the key that change notices name them with."""
        self._lease_ends = float("-inf")
        self._out_of_order: set[int] = set()
        self.applied_seq: int | None = None
        """The change up to which all were applied without a gap; None before the first lease."""
        self.latest_seq = 0
        """The highest change that this cache has been told of."""

    def __len__(self) -> int:
        return len(self._entries)

    # Cached tokens

    def get(self, key: Key, now: float) -> CachedToken | None:
        """The token, if it is cached as valid."""
        if now >= self._lease_ends:
            return None
        entry = self._entries.get(key)
        if entry is None or now >= entry.ends:
            return None
        self._entries.move_to_end(key)
        return entry

    def negative(self, key: Key, now: float) -> NegativeEntry | None:
        """The token, if it is cached as invalid."""
        if now >= self._lease_ends:
            return None
        unknown = self._negative.get(key)
        return unknown if unknown is not None and now < unknown.ends else None

    def has_lease(self, now: float) -> bool:
        """Whether the cache may be used."""
        return now < self._lease_ends

    # Lookups

    def pending(self, key: Key, now: float) -> PendingLookup | None:
        """A pending lookup whose answer may be used for a request that arrives now."""
        return self._pending.get(key) if now < self._lease_ends else None

    def start(self, key: Key, now: float) -> PendingLookup:
        """Starts a lookup. No later request shares an older lookup of the same token."""
        lookup = self._pending[key] = PendingLookup(key, now)
        self._by_notice[notice_key(key)] = key
        return lookup

    def complete(self, lookup: PendingLookup, verdict: Verdict | None) -> CacheEntry | None:
        """Completes a lookup, and caches the answer unless a change arrived in between.

        Args:
            lookup: the lookup.
            verdict: the answer; None if none arrived.

        Returns:
            The token for those who share the lookup; None if no answer arrived.
        """
        is_current = self._pending.get(lookup.key) is lookup
        if is_current:
            del self._pending[lookup.key]
        if verdict is None:
            if is_current:
                self._drop_notice_key(lookup.key)
            return None
        if verdict.token is None:
            negative_entry = NegativeEntry(verdict.refused, lookup.began + self._negative_s)
            # It becomes valid by time alone, without a change notice.
            if is_current and not (verdict.refused and verdict.refused.reason == "not_yet_valid"):
                self._keep(self._negative, lookup.key, negative_entry, self._negative_size)
            elif is_current:
                self._drop_notice_key(lookup.key)
            return negative_entry
        expires_in = verdict.expires_in
        entry = CachedToken(verdict.token, float("inf") if expires_in is None else lookup.began + expires_in)
        if is_current:
            self._keep(self._entries, lookup.key, entry, self._size)
        return entry

    # Changes

    def apply_changes(self, changes: Iterable[TokenChange], latest: int) -> None:
        """Deletes what the changes invalidate. Changes may arrive twice, late, or in any order.

        Args:
            changes: the changes.
            latest: the highest change that exists.
        """
        for change in changes:
            key = self._by_notice.get(change.key)
            if key is not None:
                self._forget(key)
                self._drop_notice_key(key)
            if (
                self.applied_seq is not None
                and change.seq > self.applied_seq
                and len(self._out_of_order) < MAX_OUT_OF_ORDER
            ):
                self._out_of_order.add(change.seq)
        self.latest_seq = max(self.latest_seq, latest)
        while self.applied_seq is not None and self.applied_seq + 1 in self._out_of_order:
            self.applied_seq += 1
            self._out_of_order.discard(self.applied_seq)

    def restart(self, seq: int) -> None:
        """Empties the cache. `seq` is a committed change: every later lookup is answered after it."""
        self._entries.clear()
        self._negative.clear()
        self._pending.clear()
        self._by_notice.clear()
        self._out_of_order.clear()
        self.applied_seq = seq
        self.latest_seq = max(self.latest_seq, seq)

    # The lease

    def renew_lease(self, seq: int, ends: float) -> bool:
        """Takes or extends the lease. False if the changes up to `seq` have not all been applied."""
        if self.applied_seq is None or self.applied_seq < seq:
            return False
        self._lease_ends = max(self._lease_ends, ends)
        return True

    def end_lease(self) -> None:
        """Stops using the cache, until the next lease."""
        self._lease_ends = float("-inf")
        self.applied_seq = None
        self.latest_seq = 0

    def _forget(self, key: Key) -> None:
        self._entries.pop(key, None)
        self._negative.pop(key, None)
        self._pending.pop(key, None)

    def _keep(self, table: OrderedDict[Key, V], key: Key, value: V, size: int) -> None:
        table[key] = value
        table.move_to_end(key)
        if len(table) > size:
            dropped, _ = table.popitem(last=False)
            self._drop_notice_key(dropped)

    def _drop_notice_key(self, key: Key) -> None:
        """Where nothing is known of a token any more."""
        if key not in self._entries and key not in self._negative and key not in self._pending:
            self._by_notice.pop(notice_key(key), None)

"""What this edge knows about tokens, and whether it may rely on it now: no clock, no message, no await.

The promise that a revoked token is refused everywhere once the revoke call has returned rests on these rules, each
of which `tests/tallystick/coherence/test_invalidation_model.py` shows to be needed:

- A change deletes what is known of its token, and cuts off every question about it that is under way: its answer
  may be from before the change, so it is neither kept nor given to requests that come later.
- What is known, and questions under way, are relied on only while a lease lives. It counts from before it was
  asked for, and only once every change up to the one it names has been followed.
- Changes are acknowledged as far as they were followed without a hole.
"""

from asyncio import Future
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from tallystick.coherence.notices import notice_key
from tallystick.contracts.propagation import Changed
from tallystick.contracts.records import Token
from tallystick.contracts.verification import RefusedToken, Verdict

V = TypeVar("V")

Key = bytes
"""A token's SHA-256 digest."""

MAX_AHEAD = 10_000
"""Changes remembered that came before an earlier one; more are as good as lost."""


class CachedToken:
    """A token that is honoured, until `ends` (seconds on the caller's clock) at the latest."""

    __slots__ = ("admitted", "answers", "ends", "token")

    def __init__(self, token: Token, ends: float) -> None:
        self.token = token
        self.ends = ends
        self.admitted: set[str] = set()
        """Scopes of routes it was admitted to, and will be for as long as it stays what it is; never a scope that a
        request names.
        """
        self.answers: dict[bytes, Any] = {}
        """What was answered about it to proxies, by their question."""


class NegativeEntry(NamedTuple):
    """A token that is not honoured; `refused` says which and why, where there is such a token."""

    refused: RefusedToken | None
    ends: float


Known = CachedToken | NegativeEntry


class Flight:
    """A question about one token that is under way.

    Args:
        key: which token.
        began: before it was asked.
    """

    __slots__ = ("began", "joined", "key")

    def __init__(self, key: Key, began: float) -> None:
        self.key = key
        self.began = began
        self.joined: list[Future[Known | None]] = []
        """Requests that wait for the same answer."""


class Cache:
    """Args:
    size: how many honoured tokens are kept at most; the least recently used ones go first.
    unknown_size: how many others, apart, so that a flood of those drives out no good one.
    unknown_s: how long a refusal is kept, in seconds.
    """

    def __init__(self, size: int, unknown_size: int, unknown_s: float = 1.0) -> None:
        self._size = size
        self._unknown_size = unknown_size
        self._unknown_s = unknown_s
        self._entries: OrderedDict[Key, CachedToken] = OrderedDict()
        self._unknown: OrderedDict[Key, NegativeEntry] = OrderedDict()
        self._flights: dict[Key, Flight] = {}
        self._by_notice: dict[str, Key] = {}
        """The tokens that are known or asked about, by the key that notices of changes name them with."""
        self._lease_ends = float("-inf")
        self._ahead: set[int] = set()
        self.followed: int | None = None
        """Up to which change everything was followed without a hole; None before the first lease."""
        self.heard = 0
        """The highest change heard of."""

    def __len__(self) -> int:
        return len(self._entries)

    # What is known

    def get(self, key: Key, now: float) -> CachedToken | None:
        """A token that is honoured now, as far as this may be relied on."""
        if now >= self._lease_ends:
            return None
        entry = self._entries.get(key)
        if entry is None or now >= entry.ends:
            return None
        self._entries.move_to_end(key)
        return entry

    def refused(self, key: Key, now: float) -> NegativeEntry | None:
        """A token that is not honoured."""
        if now >= self._lease_ends:
            return None
        unknown = self._unknown.get(key)
        return unknown if unknown is not None and now < unknown.ends else None

    def alive(self, now: float) -> bool:
        """Whether there is a lease."""
        return now < self._lease_ends

    # Questions under way

    def flight(self, key: Key, now: float) -> Flight | None:
        """A question whose answer is good enough for a request that comes now."""
        return self._flights.get(key) if now < self._lease_ends else None

    def begin(self, key: Key, now: float) -> Flight:
        """A new question; an older one about the same token is not joined any more."""
        flight = self._flights[key] = Flight(key, now)
        self._by_notice[notice_key(key)] = key
        return flight

    def land(self, flight: Flight, verdict: Verdict | None) -> Known | None:
        """What the answer says to those who asked, kept for others unless a change came in between. None: there
        was no answer.
        """
        kept = self._flights.get(flight.key) is flight
        if kept:
            del self._flights[flight.key]
        if verdict is None:
            if kept:
                self._drop_notice_key(flight.key)
            return None
        if verdict.token is None:
            unknown = NegativeEntry(verdict.refused, flight.began + self._unknown_s)
            # It becomes valid by itself, without a change that would tell.
            if kept and not (verdict.refused and verdict.refused.reason == "not_yet_valid"):
                self._keep(self._unknown, flight.key, unknown, self._unknown_size)
            elif kept:
                self._drop_notice_key(flight.key)
            return unknown
        lasts = verdict.expires_in
        entry = CachedToken(verdict.token, float("inf") if lasts is None else flight.began + lasts)
        if kept:
            self._keep(self._entries, flight.key, entry, self._size)
        return entry

    # What changed

    def follow(self, changes: Iterable[Changed], latest: int) -> None:
        """Forgets what is out of date. Changes may come twice, late, or in any order."""
        for change in changes:
            key = self._by_notice.get(change.key)
            if key is not None:
                self._forget(key)
                self._drop_notice_key(key)
            if self.followed is not None and change.seq > self.followed and len(self._ahead) < MAX_AHEAD:
                self._ahead.add(change.seq)
        self.heard = max(self.heard, latest)
        while self.followed is not None and self.followed + 1 in self._ahead:
            self.followed += 1
            self._ahead.discard(self.followed)

    def forget_all(self, seq: int) -> None:
        """Starts anew from a change that is committed: whatever is asked from now on is answered after it."""
        self._entries.clear()
        self._unknown.clear()
        self._flights.clear()
        self._by_notice.clear()
        self._ahead.clear()
        self.followed = seq
        self.heard = max(self.heard, seq)

    # Whether it may be relied on

    def lease(self, seq: int, ends: float) -> bool:
        """Takes a lease that names a change; answers whether everything up to that was followed."""
        if self.followed is None or self.followed < seq:
            return False
        self._lease_ends = max(self._lease_ends, ends)
        return True

    def end_lease(self) -> None:
        """Relies on nothing any more."""
        self._lease_ends = float("-inf")
        self.followed = None
        self.heard = 0

    def _forget(self, key: Key) -> None:
        self._entries.pop(key, None)
        self._unknown.pop(key, None)
        self._flights.pop(key, None)

    def _keep(self, known: OrderedDict[Key, V], key: Key, value: V, size: int) -> None:
        known[key] = value
        known.move_to_end(key)
        if len(known) > size:
            dropped, _ = known.popitem(last=False)
            self._drop_notice_key(dropped)

    def _drop_notice_key(self, key: Key) -> None:
        """Where nothing is known of a token any more."""
        if key not in self._entries and key not in self._unknown and key not in self._flights:
            self._by_notice.pop(notice_key(key), None)

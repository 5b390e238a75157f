"""Every interleaving of one revocation with requests, another change, a lease and its renewal, on the edge's real
cache: no request that starts after the revocation returned is let in. And every rule is needed: each one taken out
lets such a request through somewhere.

What is modelled: PostgreSQL (what is committed is seen by whoever reads later), replicas that may stop between any
two steps, messages that get lost, come twice, late and in any order, and time. The edge's side follows
`tallystick.coherence.invalidation`, the other one `tallystick_server.tokens.leases`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest

from tallystick.coherence.cache import Cache, CachedToken, CacheEntry, PendingLookup
from tallystick.coherence.notices import notice_key
from tallystick.contracts.propagation import TokenChange
from tallystick.contracts.verification import Verdict
from tests.support.examples import TOKEN

LEASE = 1
"""How long a lease lasts, in ticks."""
END = 3
"""When the model's time stops: long enough for a lease to be granted late, to run out, and to be renewed."""
KEY, OTHER = bytes(32), bytes([1] * 32)
HONOURED, REVOKED = Verdict(code="active", token=TOKEN), Verdict(code="invalid_token")
CHANGES = (TokenChange(seq=1, key=notice_key(KEY), rev=2), TokenChange(seq=2, key=notice_key(OTHER), rev=2))


class Rules(NamedTuple):
    """What the two sides do, each rule as it is; a test takes out one at a time."""

    cache: type[Cache] = Cache
    row_before_reading: bool = True
    commit_before_looking: bool = True
    waits_for_acknowledgement: bool = True
    counts_from_before_asking: bool = True
    follows_before_relying: bool = True
    acknowledges_without_holes: bool = True


RULES = Rules._fields[1:]


class Request(NamedTuple):
    """``late``: it started after the revocation had returned. ``asks``: the question it waits for."""

    late: bool
    asks: PendingLookup | None
    owns: bool = False
    verdict: Verdict | None = None
    """What PostgreSQL said to its question."""


class Renewal(NamedTuple):
    asked: int
    step: int = 0
    seq: int | None = None


Action = Callable[["World"], None]


class World:
    """One state. Actions copy it; what is in it is never changed in place but the cache, which is copied too."""

    def __init__(self, rules: Rules, *, changes: int, renewals: int) -> None:
        self.rules = rules
        self.changes = changes
        self.renewals = renewals
        self.now = 0
        self.cache = rules.cache(10, 10, 0)
        self.cache.restart(0)
        self.cache.renew_lease(0, LEASE)
        self.row: int | None = 0  # when the edge's lease was granted last
        self.committed = 0
        self.looked: int | None = None  # until when the revoker waits for the lease it saw; -1 for none
        self.returned = False
        # Changes whose notice may be delivered, once for each time it stands here.
        self.notices: tuple[int, ...] = ()
        self.sent = 0  # the highest acknowledgement the edge has sent
        self.heard = 0  # the highest one that reached the revoker
        self.requests: tuple[Request | None, ...] = (None, None)
        self.renewal: Renewal | None = None
        self.wrong = False

    def copy(self) -> "World":
        # By hand, which is several times as fast as `copy.copy`.
        other = object.__new__(World)
        other.__dict__.update(self.__dict__)
        cache = other.cache = object.__new__(type(self.cache))
        cache.__dict__.update(self.cache.__dict__)
        for name in ("_entries", "_negative", "_pending", "_by_notice", "_out_of_order"):
            setattr(cache, name, getattr(cache, name).copy())
        return other

    def key(self) -> tuple[object, ...]:
        cache = self.cache
        return (
            self.now,
            self.row,
            self.committed,
            self.looked,
            self.returned,
            self.notices,
            self.sent,
            self.heard,
            tuple(
                request
                and (
                    request.late,
                    self.owner(request.asks),
                    request.owns,
                    request.verdict is HONOURED,
                    request.verdict is None,
                )
                for request in self.requests
            ),
            self.renewal,
            self.renewals,
            self.changes,
            bool(cache._entries),
            tuple((self.owner(lookup), lookup.began) for lookup in cache._pending.values()),
            cache._lease_ends,
            frozenset(cache._out_of_order),
            cache.applied_seq,
            cache.latest_seq,
        )

    def owner(self, lookup: PendingLookup | None) -> int | None:
        """The place of the request that asks this question."""
        for index, request in enumerate(self.requests):
            if request is not None and request.owns and request.asks is lookup:
                return index
        return None

    # What may happen next

    def next(self) -> Iterator["World"]:
        for action in self.actions():
            world = self.copy()
            action(world)
            yield world

    def actions(self) -> Iterator[Action]:
        last = self.requests[1]
        if last is not None and last.asks is None:
            return  # answered, so there is nothing left to go wrong
        if self.now < END:
            yield World.tick
        yield from self.revoker_actions()
        for seq in sorted(set(self.notices)):
            yield partial(World.deliver, seq=seq)
        if self.heard < self.sent:
            yield World.hear
        if self.renewal is None and self.renewals:
            yield World.ask_for_lease
        if self.renewal is not None:
            yield World.renew
        yield from self.request_actions()

    def request_actions(self) -> Iterator[Action]:
        for index, request in enumerate(self.requests):
            if request is None:
                # One before the revocation has returned, one after: what may be wrong takes no more.
                if self.returned == (index == 1):
                    yield partial(World.start, index=index)
            elif request.owns and request.verdict is None:
                yield partial(World.read, index=index)
            elif request.owns:
                yield partial(World.land, index=index)

    def tick(self) -> None:
        self.now += 1

    # The replica that revokes, and one that changes another token after that

    def revoker_actions(self) -> Iterator[Action]:
        if self.committed == 0 and (self.looked is not None or self.rules.commit_before_looking):
            yield World.commit
        if self.looked is None and (self.committed or not self.rules.commit_before_looking):
            yield World.look
        if 0 < self.committed < self.changes:
            yield World.commit
        if self.committed and self.looked is not None and not self.returned:
            over = self.looked <= self.now or not self.rules.waits_for_acknowledgement
            if over or self.heard >= 1:
                yield World.return_

    def commit(self) -> None:
        self.committed += 1
        twice = (self.committed,) * (2 if self.committed == 1 else 1)
        self.notices = tuple(sorted((*self.notices, *twice)))

    def look(self) -> None:
        self.looked = -1 if self.row is None else self.now + LEASE

    def return_(self) -> None:
        self.returned = True

    def hear(self) -> None:
        self.heard = self.sent

    # The edge

    def deliver(self, seq: int) -> None:
        notices = list(self.notices)
        notices.remove(seq)
        self.notices = tuple(notices)
        self.cache.apply_changes([CHANGES[seq - 1]], seq)
        self.acknowledge()

    def acknowledge(self) -> None:
        followed = self.cache.applied_seq if self.rules.acknowledges_without_holes else self.cache.latest_seq
        self.sent = max(self.sent, followed or 0)

    def start(self, index: int) -> None:
        late = self.returned
        request = Request(late, None)
        if self.cache.get(KEY, self.now):
            self.answer(late, HONOURED)
        elif self.cache.negative(KEY, self.now) is None:
            joined = self.cache.pending(KEY, self.now)
            lookup = joined or self.cache.start(KEY, self.now)
            request = Request(late, lookup, owns=joined is None)
        self.requests = (*self.requests[:index], request, *self.requests[index + 1 :])

    def read(self, index: int) -> None:
        """A replica reads what PostgreSQL has committed by now."""
        request = self.requests[index]
        assert request is not None
        verdict = REVOKED if self.committed else HONOURED
        self.requests = (
            *self.requests[:index],
            request._replace(verdict=verdict),
            *self.requests[index + 1 :],
        )

    def land(self, index: int) -> None:
        owner = self.requests[index]
        assert owner is not None
        assert owner.asks is not None
        self.cache.complete(owner.asks, owner.verdict)
        for request in self.requests:
            if request is not None and request.asks is owner.asks:
                self.answer(request.late, owner.verdict)
        self.requests = tuple(
            Request(request.late, None) if request is not None and request.asks is owner.asks else request
            for request in self.requests
        )

    def answer(self, late: bool, verdict: Verdict | None) -> None:
        self.wrong |= late and verdict is HONOURED

    # A lease: asked for, granted by a replica in two steps, taken

    def ask_for_lease(self) -> None:
        self.renewal = Renewal(self.now)
        self.renewals -= 1

    def renew(self) -> None:
        renewal = self.renewal
        assert renewal is not None
        writes = (0 if self.rules.row_before_reading else 1) == renewal.step
        if renewal.step < 2:
            if writes:
                self.row = self.now
            seq = renewal.seq if writes else self.committed
            self.renewal = renewal._replace(step=renewal.step + 1, seq=seq)
            return
        assert renewal.seq is not None
        asked = renewal.asked if self.rules.counts_from_before_asking else self.now
        if not self.rules.follows_before_relying:
            self.cache._lease_ends = asked + LEASE
        elif not self.cache.renew_lease(renewal.seq, asked + LEASE):
            self.cache.restart(renewal.seq)
            self.cache.renew_lease(renewal.seq, asked + LEASE)
        self.acknowledge()
        self.renewal = None


def explore(rules: Rules) -> tuple[bool, int]:
    """Whether a request was ever let in that should not have been, and how many states were looked at, one of each
    beginning in turn.
    """
    with_lease = World(rules, changes=1, renewals=1)
    without_lease = World(rules, changes=1, renewals=1)
    without_lease.cache.end_lease()
    without_lease.cache.restart(0)
    without_lease.row = None
    visited: set[tuple[object, ...]] = set()
    beginnings = [[World(rules, changes=2, renewals=0)], [without_lease], [with_lease]]
    while beginnings:
        for waiting in list(beginnings):
            world = waiting.pop()
            if world.wrong:
                return True, len(visited)
            key = world.key()
            if key not in visited:
                visited.add(key)
                waiting.extend(world.next())
            if not waiting:
                beginnings.remove(waiting)
    return False, len(visited)


def test_no_interleaving_lets_a_revoked_token_in():
    wrong, states = explore(Rules())
    assert not wrong
    assert states > 10_000


class KeepsWhatChanged(Cache):
    def _forget(self, key: bytes) -> None:
        self._pending.pop(key, None)


class KeepsLookups(Cache):
    """A question asked before a change is neither cut off from later requests nor from the cache."""

    def _forget(self, key: bytes) -> None:
        self._entries.pop(key, None)


class FillsLate(Cache):
    """Deletes on a change, fills on any answer."""

    def complete(self, lookup: PendingLookup, verdict: Verdict | None) -> CacheEntry | None:
        self._pending.setdefault(lookup.key, lookup)
        return super().complete(lookup, verdict)


class JoinsLate(Cache):
    """Never fills from a question that a change cut off, but lets later requests join it."""

    def _forget(self, key: bytes) -> None:
        self._entries.pop(key, None)
        if key in self._pending:
            self._cut_off = (self._pending[key], key)

    def complete(self, lookup: PendingLookup, verdict: Verdict | None) -> CacheEntry | None:
        landed = super().complete(lookup, verdict)
        if getattr(self, "_cut_off", (None, b""))[0] is lookup:
            self._entries.pop(lookup.key, None)
        return landed


class ReliesForEver(Cache):
    def get(self, key: bytes, now: float) -> CachedToken | None:
        return super().get(key, min(now, self._lease_ends - 1))


class JoinsForEver(Cache):
    def pending(self, key: bytes, now: float) -> PendingLookup | None:
        return super().pending(key, min(now, self._lease_ends - 1))


@pytest.mark.parametrize(
    "rules",
    [
        *(
            Rules(cache=cache)
            for cache in (KeepsWhatChanged, KeepsLookups, FillsLate, JoinsLate, ReliesForEver, JoinsForEver)
        ),
        *(Rules._make([Cache, *(field != rule for field in RULES)]) for rule in RULES),
    ],
    ids=lambda rules: (
        rules.cache.__name__
        if rules.cache is not Cache
        else next(name for name, value in rules._asdict().items() if value is False)
    ),
)
def test_each_rule_is_needed(rules: Rules):
    wrong, _ = explore(rules)
    assert wrong

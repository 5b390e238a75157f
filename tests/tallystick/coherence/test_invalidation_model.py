"""Every interleaving of one revocation with requests, another change, a lease and its renewal, on the edge's real
cache: no request that starts after the revocation has returned is accepted. And every rule is needed: without any one of
them, some interleaving accepts such a request.

The model has PostgreSQL (a commit is visible to later reads), replicas that may stop between any two steps, messages that
are lost, duplicated, late and reordered, and time. The edge's side follows `tallystick.coherence.invalidation`, the
service's side `tallystick_server.tokens.leases`.
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
"""The duration of a lease in ticks."""
END = 3
"""The end of time in the model: late enough for a lease to be granted late, to expire, and to be renewed."""
KEY, OTHER = bytes(32), bytes([1] * 32)
ACTIVE, REVOKED = Verdict(code="active", token=TOKEN), Verdict(code="invalid_token")
CHANGES = (TokenChange(seq=1, key=notice_key(KEY), rev=2), TokenChange(seq=2, key=notice_key(OTHER), rev=2))


class Rules(NamedTuple):
    """The rules of both sides; a test removes one at a time."""

    cache: type[Cache] = Cache
    writes_row_before_reading: bool = True
    commits_before_reading_lease: bool = True
    waits_for_acknowledgement: bool = True
    counts_from_request: bool = True
    applies_changes_before_relying: bool = True
    acknowledges_without_gaps: bool = True


RULES = Rules._fields[1:]


class Request(NamedTuple):
    """``late``: it started after the revocation had returned. ``lookup``: the lookup that it waits for."""

    late: bool
    lookup: PendingLookup | None
    owns: bool = False
    verdict: Verdict | None = None
    """The verdict that its lookup read from PostgreSQL."""


class Renewal(NamedTuple):
    requested_at: int
    step: int = 0
    seq: int | None = None


Action = Callable[["World"], None]


class World:
    """One state. Actions copy it; only the cache is modified in place, and it is copied too."""

    def __init__(self, rules: Rules, *, changes: int, renewals: int) -> None:
        self.rules = rules
        self.changes = changes
        self.renewals = renewals
        self.now = 0
        self.cache = rules.cache(10, 10, 0)
        self.cache.restart(0)
        self.cache.renew_lease(0, LEASE)
        self.row: int | None = 0  # when the edge's lease was last granted
        self.committed = 0
        self.waits_until: int | None = None  # when the lease that the revoker read ends; -1 for no lease
        self.returned = False
        # Changes whose notice may be delivered, one element for each delivery.
        self.notices: tuple[int, ...] = ()
        self.sent_ack = 0  # the highest acknowledgement that the edge has sent
        self.received_ack = 0  # the highest one that has reached the revoker
        self.requests: tuple[Request | None, ...] = (None, None)
        self.renewal: Renewal | None = None
        self.violated = False

    def copy(self) -> "World":
        # Written by hand: several times as fast as `copy.copy`.
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
            self.waits_until,
            self.returned,
            self.notices,
            self.sent_ack,
            self.received_ack,
            tuple(
                request
                and (
                    request.late,
                    self.owner(request.lookup),
                    request.owns,
                    request.verdict is ACTIVE,
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
        """The index of the request that owns this lookup."""
        for index, request in enumerate(self.requests):
            if request is not None and request.owns and request.lookup is lookup:
                return index
        return None

    # Possible actions

    def next(self) -> Iterator["World"]:
        for action in self.actions():
            world = self.copy()
            action(world)
            yield world

    def actions(self) -> Iterator[Action]:
        last = self.requests[1]
        if last is not None and last.lookup is None:
            return  # it has its response, so no violation can follow
        if self.now < END:
            yield World.tick
        yield from self.revoker_actions()
        for seq in sorted(set(self.notices)):
            yield partial(World.deliver, seq=seq)
        if self.received_ack < self.sent_ack:
            yield World.receive_ack
        if self.renewal is None and self.renewals:
            yield World.request_lease
        if self.renewal is not None:
            yield World.renew
        yield from self.request_actions()

    def request_actions(self) -> Iterator[Action]:
        for index, request in enumerate(self.requests):
            if request is None:
                # One before the revocation has returned, and one after: a violation needs no more.
                if self.returned == (index == 1):
                    yield partial(World.start, index=index)
            elif request.owns and request.verdict is None:
                yield partial(World.read, index=index)
            elif request.owns:
                yield partial(World.complete, index=index)

    def tick(self) -> None:
        self.now += 1

    # The replica that revokes, and one that changes another token after that

    def revoker_actions(self) -> Iterator[Action]:
        if self.committed == 0 and (self.waits_until is not None or self.rules.commits_before_reading_lease):
            yield World.commit
        if self.waits_until is None and (self.committed or not self.rules.commits_before_reading_lease):
            yield World.read_lease
        if 0 < self.committed < self.changes:
            yield World.commit
        if self.committed and self.waits_until is not None and not self.returned:
            is_lease_over = self.waits_until <= self.now or not self.rules.waits_for_acknowledgement
            if is_lease_over or self.received_ack >= 1:
                yield World.return_

    def commit(self) -> None:
        self.committed += 1
        twice = (self.committed,) * (2 if self.committed == 1 else 1)
        self.notices = tuple(sorted((*self.notices, *twice)))

    def read_lease(self) -> None:
        self.waits_until = -1 if self.row is None else self.now + LEASE

    def return_(self) -> None:
        self.returned = True

    def receive_ack(self) -> None:
        self.received_ack = self.sent_ack

    # The edge

    def deliver(self, seq: int) -> None:
        notices = list(self.notices)
        notices.remove(seq)
        self.notices = tuple(notices)
        self.cache.apply_changes([CHANGES[seq - 1]], seq)
        self.acknowledge()

    def acknowledge(self) -> None:
        acknowledged = (
            self.cache.applied_seq if self.rules.acknowledges_without_gaps else self.cache.latest_seq
        )
        self.sent_ack = max(self.sent_ack, acknowledged or 0)

    def start(self, index: int) -> None:
        late = self.returned
        request = Request(late, None)
        if self.cache.get(KEY, self.now):
            self.respond(late, ACTIVE)
        elif self.cache.negative(KEY, self.now) is None:
            pending = self.cache.pending(KEY, self.now)
            lookup = pending or self.cache.start(KEY, self.now)
            request = Request(late, lookup, owns=pending is None)
        self.requests = (*self.requests[:index], request, *self.requests[index + 1 :])

    def read(self, index: int) -> None:
        """A replica reads the state that PostgreSQL has committed by now."""
        request = self.requests[index]
        assert request is not None
        verdict = REVOKED if self.committed else ACTIVE
        self.requests = (
            *self.requests[:index],
            request._replace(verdict=verdict),
            *self.requests[index + 1 :],
        )

    def complete(self, index: int) -> None:
        owner = self.requests[index]
        assert owner is not None
        assert owner.lookup is not None
        self.cache.complete(owner.lookup, owner.verdict)
        for request in self.requests:
            if request is not None and request.lookup is owner.lookup:
                self.respond(request.late, owner.verdict)
        self.requests = tuple(
            Request(request.late, None) if request is not None and request.lookup is owner.lookup else request
            for request in self.requests
        )

    def respond(self, late: bool, verdict: Verdict | None) -> None:
        self.violated |= late and verdict is ACTIVE

    # A lease: requested, granted by a replica in two steps, received

    def request_lease(self) -> None:
        self.renewal = Renewal(self.now)
        self.renewals -= 1

    def renew(self) -> None:
        renewal = self.renewal
        assert renewal is not None
        writes = (0 if self.rules.writes_row_before_reading else 1) == renewal.step
        if renewal.step < 2:
            if writes:
                self.row = self.now
            seq = renewal.seq if writes else self.committed
            self.renewal = renewal._replace(step=renewal.step + 1, seq=seq)
            return
        assert renewal.seq is not None
        requested_at = renewal.requested_at if self.rules.counts_from_request else self.now
        if not self.rules.applies_changes_before_relying:
            self.cache._lease_ends = requested_at + LEASE
        elif not self.cache.renew_lease(renewal.seq, requested_at + LEASE):
            self.cache.restart(renewal.seq)
            self.cache.renew_lease(renewal.seq, requested_at + LEASE)
        self.acknowledge()
        self.renewal = None


def explore(rules: Rules) -> tuple[bool, int]:
    """Whether a request was ever accepted that must not be, and how many states were visited: one from each initial state
    in turn.
    """
    with_lease = World(rules, changes=1, renewals=1)
    without_lease = World(rules, changes=1, renewals=1)
    without_lease.cache.end_lease()
    without_lease.cache.restart(0)
    without_lease.row = None
    visited: set[tuple[object, ...]] = set()
    stacks = [[World(rules, changes=2, renewals=0)], [without_lease], [with_lease]]
    while stacks:
        for stack in list(stacks):
            world = stack.pop()
            if world.violated:
                return True, len(visited)
            key = world.key()
            if key not in visited:
                visited.add(key)
                stack.extend(world.next())
            if not stack:
                stacks.remove(stack)
    return False, len(visited)


def test_no_interleaving_accepts_a_revoked_token():
    violated, states = explore(Rules())
    assert not violated
    assert states > 10_000


class KeepsChangedTokens(Cache):
    def _forget(self, key: bytes) -> None:
        self._pending.pop(key, None)


class KeepsPendingLookups(Cache):
    """A lookup from before a change is cut off neither from later requests nor from the cache."""

    def _forget(self, key: bytes) -> None:
        self._entries.pop(key, None)


class FillsFromCutOffLookups(Cache):
    """Deletes on a change, and fills from any reply."""

    def complete(self, lookup: PendingLookup, verdict: Verdict | None) -> CacheEntry | None:
        self._pending.setdefault(lookup.key, lookup)
        return super().complete(lookup, verdict)


class JoinsCutOffLookups(Cache):
    """Never fills from a lookup that a change has cut off, but lets later requests join it."""

    def _forget(self, key: bytes) -> None:
        self._entries.pop(key, None)
        if key in self._pending:
            self._cut_off = (self._pending[key], key)

    def complete(self, lookup: PendingLookup, verdict: Verdict | None) -> CacheEntry | None:
        entry = super().complete(lookup, verdict)
        if getattr(self, "_cut_off", (None, b""))[0] is lookup:
            self._entries.pop(lookup.key, None)
        return entry


class IgnoresLeaseInGet(Cache):
    def get(self, key: bytes, now: float) -> CachedToken | None:
        return super().get(key, min(now, self._lease_ends - 1))


class IgnoresLeaseInPending(Cache):
    def pending(self, key: bytes, now: float) -> PendingLookup | None:
        return super().pending(key, min(now, self._lease_ends - 1))


@pytest.mark.parametrize(
    "rules",
    [
        *(
            Rules(cache=cache)
            for cache in (
                KeepsChangedTokens,
                KeepsPendingLookups,
                FillsFromCutOffLookups,
                JoinsCutOffLookups,
                IgnoresLeaseInGet,
                IgnoresLeaseInPending,
            )
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
    violated, _ = explore(rules)
    assert violated

"""Every interleaving of takes, returns, a recall, an edit of the limit, a window's end and an edge's death, on the
edge's real `HeldQuota`: no window admits more than its limit; while all edges reply, exactly the limit is admitted
before the first request is rejected; and no quota is lost without being counted. And every rule is needed: without any
one of them, some interleaving violates one of the three.

The model has PostgreSQL (each call of `tallystick_server.tokens.store.limits` is atomic), two edges, messages that are
lost, duplicated, late and reordered, and time. A token and its successor are two holders of one family, as two edges
are.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec
import pytest

from tallystick.coherence.held_quota import HeldQuota, latest_recall
from tallystick.contracts.quotas import Quota, RecallQuota, ReturnQuota, TakeQuota
from tallystick.contracts.records import Token
from tests.support.examples import TOKEN

EDGES = (0, 1)
END = 2
"""The end of time: after two windows of one tick."""
STEP = 2**-20
"""The duration of an action in ticks: no two actions happen at the same time."""
TOKENS = tuple(msgspec.structs.replace(TOKEN, description=str(version)) for version in range(4))
"""The token after each edit."""


class PrefetchingQuota(HeldQuota):
    """Takes two at a time, so that there is quota to return."""

    def __init__(self) -> None:
        super().__init__(TOKENS[0], 0)
        self.holder = "holder_" + "0" * 26

    def wanted(self, now: float) -> int:  # noqa: ARG002
        return 2

    def copy(self) -> "PrefetchingQuota":
        """A copy, several times as fast as `copy.copy`."""
        other = object.__new__(type(self))
        for name in HeldQuota.__slots__:
            setattr(other, name, getattr(self, name))
        return other


class Rules(NamedTuple):
    """The rules of both sides; a test removes one at a time."""

    held: type[PrefetchingQuota] = PrefetchingQuota
    repeats_takes: bool = True
    stores_rejections: bool = True
    counts_returns_once: bool = True
    counts_returns_in_their_window: bool = True
    recalls_before_rejecting: bool = True
    waits_for_recall: bool = True
    grants_only_waiting_after_recall: bool = True
    reads_limit_under_lock: bool = True
    keeps_the_latest_recall: bool = True


RULES = Rules._fields[1:]


class Case(NamedTuple):
    """Args:
    limits: the limit, and the values that it is edited to, in order.
    requests: how many requests arrive, at any edge.
    copies: how many messages are duplicated.
    losses: how many messages are lost.
    deaths: how many edges die.
    windows: how many windows there are.
    slow: whether edges may reply to a recall after it has ended.
    """

    limits: tuple[int, ...]
    requests: int
    copies: int = 0
    losses: int = 0
    deaths: int = 0
    windows: int = 1
    slow: bool = False

    @property
    def all_reply(self) -> bool:
        """Whether exactly the limit must be admitted."""
        return not self.losses and not self.deaths and not self.slow and len(self.limits) == 1


LOWERED = Case((2, 1), requests=3)
TWO_WINDOWS = Case((2,), requests=3, windows=2)
TWO_WINDOWS_AND_A_LOSS = Case((2,), requests=2, losses=1, windows=2)
DUPLICATES = Case((2,), requests=2, copies=1, slow=True)
UNDISTURBED = Case((3,), requests=4)
CASES = (
    UNDISTURBED,
    Case((2,), requests=3, deaths=1),
    Case((2,), requests=3, losses=1),
    DUPLICATES,
    Case((1, 2), requests=2),
    Case((2,), requests=4, copies=1),
    LOWERED,
)
LONG_CASES = (TWO_WINDOWS_AND_A_LOSS, TWO_WINDOWS)
"""These take most of the time: `tests/e2e/test_quota_model.py` explores all of them."""


class Holder(NamedTuple):
    """A row of ``quota_holder``."""

    take: int
    starts: int
    granted: int
    limit: int
    remaining: int
    closed: bool
    returned: int


class Row(NamedTuple):
    """A row of ``rate_window``."""

    starts: int = 0
    used: int = 0
    recalled: int = -1
    recalled_limit: int = 0


class Take(NamedTuple):
    edge: int
    request: TakeQuota


class TakeReply(NamedTuple):
    edge: int
    take: int
    quota: Quota


class Return(NamedTuple):
    edge: int
    request: ReturnQuota


class ReturnReply(NamedTuple):
    edge: int
    take: int
    counted: int


class Recall(NamedTuple):
    edge: int
    notice: RecallQuota


class Edited(NamedTuple):
    """A notice that the token has changed."""

    edge: int


Message = Take | TakeReply | Return | ReturnReply | Recall | Edited
Action = Callable[["World"], None]


class World:
    """One state. Actions copy it; only the quotas are modified in place, and they are copied too."""

    def __init__(self, rules: Rules, case: Case) -> None:
        self.rules = rules
        self.case = case
        self.now = 0.0
        self.held: list[PrefetchingQuota | None] = [rules.held(), rules.held()]
        self.requested = [0, 0]  # when each edge's take was requested
        self.recalls: list[RecallQuota | None] = [None, None]
        self.known: list[int | None] = [0, 0]  # the edit up to which each edge knows the token
        self.waiting: list[tuple[int, ...]] = [
            (),
            (),
        ]  # for each request, the edit that was in force when it started
        self.committed = 0
        self.in_force = 0
        self.row = Row()
        self.holders: list[Holder | None] = [None, None]
        self.messages: tuple[Message, ...] = ()
        self.late: frozenset[tuple[int, int]] = (
            frozenset()
        )  # takes after a recall, which does not wait for them
        self.admitted = (0, 0)  # by window
        self.requests = case.requests
        self.copies = case.copies
        self.losses = case.losses
        self.deaths = case.deaths
        self.violation = ""

    def copy(self) -> "World":
        other = object.__new__(World)
        other.__dict__.update(self.__dict__)
        for name in ("requested", "recalls", "known", "waiting", "holders"):
            setattr(other, name, list(getattr(self, name)))
        other.held = [held and held.copy() for held in self.held]
        return other

    def key(self) -> tuple[object, ...]:
        return (
            int(self.now),
            tuple(
                held
                and (
                    held.take,
                    held.waiting,
                    held.pending_since is not None and held.pending_since >= held.known_since,
                    held.pending_since is None,
                    held.requested_at >= held.known_since,
                    held.quota and (held.quota.starts, held.quota.limit, held.quota.granted),
                    held.left,
                    held.returning,
                    held.returning_from,
                    held.returns,
                    held.ends,
                    held.token.description,
                )
                for held in self.held
            ),
            tuple(self.requested),
            tuple(recall and (recall.starts, recall.limit) for recall in self.recalls),
            tuple(self.known),
            tuple(self.waiting),
            self.committed,
            self.in_force,
            self.row,
            tuple(self.holders),
            frozenset((message, self.messages.count(message)) for message in self.messages),
            self.late,
            self.admitted,
            self.requests,
            self.copies,
            self.losses,
            self.deaths,
        )

    # Possible actions

    def next(self) -> Iterator["World"]:
        for action in self.actions():
            world = self.copy()
            world.now += STEP
            action(world)
            yield world

    def actions(self) -> Iterator[Action]:
        if self.now < self.case.windows - 1:
            yield World.end_window
        if self.committed + 1 < len(self.case.limits) and self.in_force == self.committed:
            yield World.edit
        if self.committed > self.in_force and not any(
            isinstance(message, Edited) for message in self.messages
        ):
            yield World.finish_edit
        for edge in EDGES:
            yield from self.edge_actions(edge)
        for message in dict.fromkeys(self.messages):
            yield from self.message_actions(message)

    def edge_actions(self, edge: int) -> Iterator[Action]:
        held = self.held[edge]
        if held is None:
            return
        if self.requests:
            yield partial(World.start, edge=edge)
        if held.waiting and not self.is_taking(edge):
            yield partial(World.time_out, edge=edge)
        if self.deaths:
            yield partial(World.die, edge=edge)

    def message_actions(self, message: Message) -> Iterator[Action]:
        match message:
            case Take():
                yield partial(World.handle_take, message=message, may_wait=True)
                if not self.rules.waits_for_recall or self.recall_may_end():
                    yield partial(World.handle_take, message=message, may_wait=False)
            case TakeReply():
                yield partial(World.receive_quota, message=message)
            case Return():
                yield partial(World.handle_return, message=message)
            case ReturnReply():
                yield partial(World.settle_return, message=message)
            case Recall():
                yield partial(World.recall, message=message)
            case Edited():
                yield partial(World.invalidate, message=message)
        # A take whose reply is lost is repeated, perhaps in the next window.
        if self.losses and isinstance(
            message, TakeReply if self.case.windows > 1 else Take | TakeReply | Return
        ):
            yield partial(World.lose, message=message)
        if self.copies and isinstance(message, Take | Return):
            yield partial(World.duplicate, message=message)

    def recall_may_end(self) -> bool:
        """While all edges reply, a recall lasts until they have replied."""
        return not self.case.all_reply or (
            self.row.recalled == int(self.now)
            and not any(
                isinstance(message, Recall)
                or (isinstance(message, TakeReply) and (message.edge, message.take) not in self.late)
                or (isinstance(message, Return) and (message.edge, message.request.take) not in self.late)
                or (isinstance(message, Take) and self.gives_back(message))
                for message in self.messages
            )
        )

    def gives_back(self, take: Take) -> bool:
        holder = self.holders[take.edge]
        return bool(take.request.unspent) and holder is not None and not holder.closed

    def send(self, message: Message) -> None:
        self.messages = (*self.messages, message)

    def duplicate(self, message: Message) -> None:
        self.copies -= 1
        self.messages = (*self.messages, message)

    def receive(self, message: Message) -> None:
        messages = list(self.messages)
        messages.remove(message)
        self.messages = tuple(messages)

    def lose(self, message: Message) -> None:
        self.receive(message)
        self.losses -= 1

    def end_window(self) -> None:
        self.now = float(int(self.now) + 1)

    # An edit of the limit, which returns once each edge has invalidated the token

    def edit(self) -> None:
        self.committed += 1
        for edge in EDGES:
            if self.held[edge] is not None:
                self.messages = (*self.messages, Edited(edge))

    def finish_edit(self) -> None:
        self.in_force = self.committed

    def invalidate(self, message: Edited) -> None:
        self.receive(message)
        self.known[message.edge] = None

    # Edges

    def start(self, edge: int) -> None:
        self.requests -= 1
        held = self.held[edge]
        assert held is not None
        version = self.known[edge]
        if version is None:
            version = self.known[edge] = self.committed
        held.update(TOKENS[version], self.now)
        self.waiting[edge] = (*self.waiting[edge], self.in_force)
        held.waiting += 1
        self.serve(edge)

    def serve(self, edge: int) -> None:
        """Decides about the waiting requests, and takes quota for the rest."""
        held = self.held[edge]
        assert held is not None
        while self.waiting[edge]:
            quota = held.spend(self.now)
            if quota is None:
                if not self.is_taking(edge):
                    self.request_take(edge)
                return
            since, *rest = self.waiting[edge]
            self.waiting[edge] = tuple(rest)
            held.waiting -= 1
            if quota.granted:
                self.admit(since)
            else:
                self.reject()

    def request_take(self, edge: int) -> None:
        held = self.held[edge]
        assert held is not None
        self.requested[edge] = int(self.now)
        self.send(Take(edge, held.start_take(self.now)))

    def time_out(self, edge: int) -> None:
        """No reply has arrived: the waiting requests get 503."""
        held = self.held[edge]
        assert held is not None
        self.waiting[edge] = ()
        held.waiting = 0

    def is_taking(self, edge: int) -> bool:
        held = self.held[edge]
        assert held is not None
        return held.pending_since is not None and any(
            (isinstance(message, Take) and (message.edge, message.request.take) == (edge, held.take))
            or (isinstance(message, TakeReply) and (message.edge, message.take) == (edge, held.take))
            for message in self.messages
        )

    def die(self, edge: int) -> None:
        self.deaths -= 1
        self.held[edge] = None
        self.waiting[edge] = ()
        self.messages = tuple(
            message for message in self.messages if message.edge != edge or isinstance(message, Take | Return)
        )

    def receive_quota(self, message: TakeReply) -> None:
        self.receive(message)
        held = self.held[message.edge]
        if held is None or held.take != message.take:
            return
        if held.pending_since is None:
            # Of two replies only one is used: a quota in the other one would be neither spent nor counted as lost.
            if held.quota is not None and held.quota.granted != message.quota.granted:
                self.violation = "lost and not counted"
            return
        returns = held.complete_take(
            message.quota, self.requested[message.edge], self.now, self.recalls[message.edge]
        )
        if returns is not None:
            self.send(Return(message.edge, returns))
        self.serve(message.edge)

    def recall(self, message: Recall) -> None:
        self.receive(message)
        known = self.recalls[message.edge] if self.rules.keeps_the_latest_recall else None
        self.recalls[message.edge] = latest_recall(known, message.notice)
        held = self.held[message.edge]
        if (
            held is not None
            and held.is_recalled(message.notice)
            and (returns := held.give_back()) is not None
        ):
            self.send(Return(message.edge, returns))

    def settle_return(self, message: ReturnReply) -> None:
        self.receive(message)
        held = self.held[message.edge]
        if held is not None:
            held.settle_return(message.take, message.counted)

    def admit(self, since: int) -> None:
        admitted = list(self.admitted)
        admitted[int(self.now)] += 1
        self.admitted = (admitted[0], admitted[1])
        if admitted[int(self.now)] > max(self.case.limits[since : self.committed + 1]):
            self.violation = "above the limit"

    def reject(self) -> None:
        if not self.case.all_reply:
            return
        # Quota in transit to waiting requests counts as admitted.
        in_transit = sum(
            min(len(self.waiting[reply.edge]), reply.quota.granted)
            for reply in set(self.messages)
            if isinstance(reply, TakeReply) and reply.quota.starts == int(self.now) and self.is_awaited(reply)
        )
        if self.admitted[int(self.now)] + in_transit != self.case.limits[0]:
            self.violation = "below the limit"

    def is_awaited(self, reply: TakeReply) -> bool:
        held = self.held[reply.edge]
        return held is not None and held.pending_since is not None and held.take == reply.take

    # The tokens service

    def handle_take(self, message: Take, may_wait: bool) -> None:
        request = message.request
        limit = self.case.limits[self.committed if self.rules.reads_limit_under_lock else self.in_force]
        previous = self.holders[message.edge]
        if previous is not None and previous.take >= request.take and self.rules.repeats_takes:
            self.receive(message)
            granted = previous.granted if previous.take == request.take else 0
            self.reply(message, previous._replace(granted=granted))
            return
        returned = 0
        if previous is not None:
            unspent = request.unspent if previous.take == request.take - 1 else 0
            returned = previous.returned if previous.closed else self.close(message.edge, previous, unspent)
        row = self.row
        if row.starts < int(self.now):
            row = row._replace(starts=int(self.now), used=0)
        unused = max(0, limit - row.used)
        recalled = row.recalled == row.starts and row.recalled_limit >= limit
        if unused == 0 and may_wait and self.rules.recalls_before_rejecting and self.is_open(row.starts):
            if not recalled:
                row = row._replace(recalled=row.starts, recalled_limit=limit)
                notice = RecallQuota(family="f", window=1, starts=row.starts, limit=limit)
                self.messages = (
                    *self.messages,
                    *(Recall(edge, notice) for edge in EDGES if self.held[edge] is not None),
                )
            self.row = row
            return  # the take is handled again
        self.receive(message)
        prefetched = 0 if recalled and self.rules.grants_only_waiting_after_recall else request.wanted
        granted = min(unused, max(request.waiting, prefetched))
        self.row = row._replace(used=row.used + granted)
        # A quota requested before its window started counts as expired on arrival, and is given back.
        if recalled and self.requested[message.edge] == row.starts:
            self.late |= {(message.edge, request.take)}
        holder = Holder(
            request.take, row.starts, granted, limit, unused - granted, closed=granted == 0, returned=returned
        )
        if granted or self.rules.stores_rejections:
            self.holders[message.edge] = holder
        self.reply(message, holder)

    def reply(self, message: Take, holder: Holder) -> None:
        quota = Quota(
            granted=holder.granted,
            limit=holder.limit,
            remaining=holder.remaining,
            window=1,
            resets_in=max(0, holder.starts + 1 - int(self.now)),
            family="f",
            starts=holder.starts,
            returned=holder.returned,
        )
        if self.held[message.edge] is not None:
            reply = TakeReply(message.edge, message.request.take, quota)
            self.messages = (*self.messages, reply)

    def is_open(self, starts: int) -> bool:
        return any(
            holder is not None and holder.starts == starts and not holder.closed for holder in self.holders
        )

    def close(self, edge: int, holder: Holder, unspent: int) -> int:
        counted = min(unspent, holder.granted)
        in_window = holder.starts == self.row.starts == int(self.now)
        if not in_window and self.rules.counts_returns_in_their_window:
            counted = 0
        if counted:
            self.row = self.row._replace(used=max(0, self.row.used - counted))
        self.holders[edge] = holder._replace(closed=self.rules.counts_returns_once, returned=counted)
        return counted

    def handle_return(self, message: Return) -> None:
        self.receive(message)
        request = message.request
        holder = self.holders[message.edge]
        counted = 0
        if holder is None:
            pass
        elif holder.take == request.take and not holder.closed:
            counted = self.close(message.edge, holder, request.unspent)
        elif request.take <= holder.take <= request.take + 1:
            counted = holder.returned
        if self.held[message.edge] is not None:
            self.messages = (*self.messages, ReturnReply(message.edge, request.take, counted))


def explore(rules: Rules, case: Case) -> tuple[str, int]:
    """The first violation, or an empty string, and how many states were visited."""
    visited: set[tuple[object, ...]] = set()
    stack = [World(rules, case)]
    while stack:
        world = stack.pop()
        if world.violation:
            return world.violation, len(visited)
        key = world.key()
        if key not in visited:
            visited.add(key)
            stack.extend(world.next())
    return "", len(visited)


@pytest.mark.parametrize("case", CASES)
def test_no_interleaving_admits_more_or_less_than_the_limit(case: Case):
    violation, states = explore(Rules(), case)
    assert not violation
    assert states > 500


class SpendsAfterTheWindow(PrefetchingQuota):
    """Counts the window from the reply, not from before the request."""

    def complete_take(
        self,
        quota: Quota,
        requested: float,  # noqa: ARG002
        now: float,
        recall: RecallQuota | None,
    ) -> ReturnQuota | None:
        return super().complete_take(quota, now, now, recall)


class KeepsQuotaOverEdits(PrefetchingQuota):
    def update(self, token: Token, now: float) -> None:  # noqa: ARG002
        self.token = token


class SpendsReturnedQuota(PrefetchingQuota):
    def give_back(self, *, keep: int = 0) -> ReturnQuota | None:
        left = self.left
        returns = super().give_back(keep=keep)
        self.left = left
        return returns


class IgnoresEarlierRecall(PrefetchingQuota):
    def complete_take(
        self,
        quota: Quota,
        requested: float,
        now: float,
        recall: RecallQuota | None,  # noqa: ARG002
    ) -> ReturnQuota | None:
        return super().complete_take(quota, requested, now, None)


@pytest.mark.parametrize(
    ("rules", "case"),
    [
        (Rules(held=SpendsAfterTheWindow), TWO_WINDOWS),
        (Rules(held=KeepsQuotaOverEdits), LOWERED),
        (Rules(held=SpendsReturnedQuota), UNDISTURBED),
        (Rules(held=IgnoresEarlierRecall), UNDISTURBED),
        (Rules(repeats_takes=False), DUPLICATES),
        (Rules(stores_rejections=False), DUPLICATES),
        (Rules(counts_returns_once=False), UNDISTURBED),
        (Rules(counts_returns_in_their_window=False), TWO_WINDOWS),
        (Rules(recalls_before_rejecting=False), UNDISTURBED),
        (Rules(waits_for_recall=False), UNDISTURBED),
        (Rules(grants_only_waiting_after_recall=False), TWO_WINDOWS),
        (Rules(reads_limit_under_lock=False), LOWERED),
        (Rules(keeps_the_latest_recall=False), TWO_WINDOWS),
    ],
    ids=[
        "SpendsAfterTheWindow",
        "KeepsQuotaOverEdits",
        "SpendsReturnedQuota",
        "IgnoresEarlierRecall",
        *RULES,
    ],
)
def test_each_rule_is_needed(rules: Rules, case: Case):
    """Without the rule, the case has a violation."""
    violation, _ = explore(rules, case)
    assert violation

"""Changes on their way to every edge, and the leases on which the edges rely."""

from typing import Annotated

from msgspec import Meta

from tallystick.contracts.messages import Ack, Digest, Message
from tallystick.contracts.operation import Operation


class TokenChange(Message, frozen=True):
    """A token changed or was created.

    Args:
        seq: the change's place among all changes; they follow each other without holes, in the order of commits.
        key: SHA-256 of the token's digest, in hex. An edge finds the token in its cache by it, while an edge that was
            never shown the token does not learn the digest, with which it could act for it.
        rev: the token's new revision.
    """

    seq: int
    key: Digest
    rev: int


class ChangeNotice(Message, frozen=True):
    """Changes in order, and the highest ``seq`` there is. As a notice to the edges it may hold none: then it only
    tells them what they ought to know. ``changes`` is always there: an acknowledgement of JetStream, which holds a
    ``seq`` too, is no notice.
    """

    seq: int
    changes: tuple[TokenChange, ...]


class GetChanges(Message, frozen=True):
    """The changes after one. The answer leaves them out where they are too many or kept no longer: the one who asked
    has to forget everything it knows instead.
    """

    after: int


class RenewLease(Message, frozen=True):
    """Asks for the right to rely on a cache.

    Args:
        edge: one edge worker, from its start to its end.
        seq: up to which change it has forgotten what is out of date; None where it knows nothing yet.
    """

    edge: Annotated[str, Meta(pattern="^edge_[0-9a-z]{26}$")]
    seq: int | None = None


class Lease(Message, frozen=True):
    """For how many seconds the cache may be relied on, from before this was asked, by an edge that has forgotten
    everything out of date up to change ``seq``.
    """

    seconds: float
    seq: int


class ReleaseLease(Message, frozen=True):
    edge: Annotated[str, Meta(pattern="^edge_[0-9a-z]{26}$")]


class Acknowledged(Message, frozen=True):
    """An edge has forgotten everything out of date up to change ``seq``."""

    edge: str
    seq: int


class Settle(Message, frozen=True):
    """Waits until a change is true at every edge. ``seq``: which one; None for all that is committed by now."""

    seq: int | None = None


class Settled(Message, frozen=True):
    """Whether it is. If not yet, ask again with the same ``seq``.

    Args:
        seq: the change.
        settled: no edge relies on anything older any more.
        edges: how many edges said so; the others had no lease, or lost it.
    """

    seq: int
    settled: bool
    edges: int


SETTLE = Operation("tallystick.v1.edge.tokens.settle", Settle, Settled)
RENEW_LEASE = Operation("tallystick.v1.edge.tokens.renew_lease", RenewLease, Lease)
RELEASE_LEASE = Operation("tallystick.v1.edge.tokens.release_lease", ReleaseLease, Ack)
GET_CHANGES = Operation("tallystick.v1.edge.tokens.changes", GetChanges, ChangeNotice)
CHANGED = "tallystick.v1.edge.notice.changed"
"""Where `ChangeNotice` is published to every edge, as soon as they are committed."""
ACKNOWLEDGED = "tallystick.v1.edge.notice.acknowledged"
"""Where every edge publishes `Acknowledged` to all replicas of the tokens service."""

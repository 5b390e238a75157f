"""Changes on their way to every edge, and the leases on which the edges rely."""

from typing import Annotated

from msgspec import Meta

from tallystick.contracts.messages import Ack, Digest, Message
from tallystick.contracts.operation import Operation


class TokenChange(Message, frozen=True):
    """A token changed or was created.

    Args:
        seq: the change's number, without gaps, in the order of commits.
        key: SHA-256 of the token's digest, in hex. An edge finds the token in its cache by it. An edge that was never
            shown the token does not learn the digest, with which it could act as the token.
        rev: the token's new revision.
    """

    seq: int
    key: Digest
    rev: int


class ChangeNotice(Message, frozen=True):
    """Changes in order, and the highest ``seq`` that exists. A notice without changes tells the edges only the latest
    ``seq``. ``changes`` is always present: an acknowledgement of JetStream, which has a ``seq`` too, is not a notice.
    """

    seq: int
    changes: tuple[TokenChange, ...]


class GetChanges(Message, frozen=True):
    """Requests the changes after one. The reply is empty if they are too many or no longer retained: the edge then has
    to empty its cache.
    """

    after: int


class RenewLease(Message, frozen=True):
    """Requests or renews a lease on a cache.

    Args:
        edge: the id of an edge worker, from its start to its end.
        seq: the change up to which the worker has applied all changes; None before its first lease.
    """

    edge: Annotated[str, Meta(pattern="^edge_[0-9a-z]{26}$")]
    seq: int | None = None


class Lease(Message, frozen=True):
    """The seconds for which the cache may be used, from before the request was sent, by an edge that has applied every
    change up to ``seq``.
    """

    seconds: float
    seq: int


class ReleaseLease(Message, frozen=True):
    edge: Annotated[str, Meta(pattern="^edge_[0-9a-z]{26}$")]


class Acknowledged(Message, frozen=True):
    """An edge has applied every change up to ``seq``."""

    edge: str
    seq: int


class Settle(Message, frozen=True):
    """Waits until a change has propagated. ``seq``: the change; None for every change that is committed by now."""

    seq: int | None = None


class Settled(Message, frozen=True):
    """Whether the change has propagated. If not yet, repeat the request with the same ``seq``.

    Args:
        seq: the change.
        settled: whether no edge uses anything older any more.
        edges: how many edges acknowledged it; the others have no valid lease.
    """

    seq: int
    settled: bool
    edges: int


SETTLE = Operation("tallystick.v1.edge.tokens.settle", Settle, Settled)
RENEW_LEASE = Operation("tallystick.v1.edge.tokens.renew_lease", RenewLease, Lease)
RELEASE_LEASE = Operation("tallystick.v1.edge.tokens.release_lease", ReleaseLease, Ack)
GET_CHANGES = Operation("tallystick.v1.edge.tokens.changes", GetChanges, ChangeNotice)
CHANGED = "tallystick.v1.edge.notice.changed"
"""Where each `ChangeNotice` is published to every edge, as soon as its changes are committed."""
ACKNOWLEDGED = "tallystick.v1.edge.notice.acknowledged"
"""Where every edge publishes `Acknowledged` to all replicas of the tokens service."""

"""Whether the stream is the one that was counted so far. Pure: compares the stored position with the stream."""

import hashlib
from datetime import datetime
from typing import NamedTuple

from tallystick_server.metrics.events import Message


class Position(NamedTuple):
    """The stored position up to which the stream was counted.

    Args:
        created: when the stream was created.
        seq: the last counted message; 0 if none was.
        digest: of that message. None if none was counted, or only by a version that did not store it.
        holes_until: an operator accepted that messages up to here are missing.
        bare_until: unnumbered events stored up to then were counted before an operator restarted counting.
    """

    created: datetime
    seq: int
    digest: bytes | None
    holes_until: int = 0
    bare_until: datetime | None = None


class ObservedStream(NamedTuple):
    """The stream as NATS holds it.

    Args:
        created: when it was created.
        first_seq: of the oldest message that it holds, or of the next message if it holds none.
        last_seq: of the newest message that it ever stored.
        message: the one at the stored position, if the stream holds it.
    """

    created: datetime
    first_seq: int
    last_seq: int
    message: Message | None = None

    def holds(self, seq: int) -> bool:
        """Whether the stream must hold the message with this sequence."""
        return self.first_seq <= seq <= self.last_seq


def digest(message: Message) -> bytes:
    """Identifies a message: an older copy of the stream reuses sequences for other messages."""
    head = f"{message.seq} {message.stored.isoformat()} {message.subject}\n"
    return hashlib.sha256(head.encode() + message.payload).digest()


def discontinuity(position: Position, observed: ObservedStream) -> str | None:
    """Why counting must not continue from the position; None if it may.

    Messages up to the position may be gone, since they were counted; later ones may not.
    """
    seq, reason = position.seq, None
    if observed.created != position.created:
        reason = (
            f"it was recreated: the stream that was counted was made at {position.created:%Y-%m-%d %H:%M:%S}Z"
        )
    elif observed.last_seq < seq:
        reason = f"it ends at {observed.last_seq} and was counted up to {seq}: an older copy, or truncated"
    elif observed.first_seq > seq + 1:
        reason = (
            f"it begins at {observed.first_seq} and was counted up to {seq}: events were removed uncounted"
        )
    elif not observed.holds(seq) or position.digest is None:
        pass  # the message was removed after it was counted, or was counted by a version that stored no digest
    elif observed.message is None or observed.message.seq != seq:
        reason = f"the message {seq}, which was counted last, is missing"
    elif digest(observed.message) != position.digest:
        reason = f"the message {seq} is not the one that was counted: an older copy that has grown"
    return reason and f"the event stream is not the one that was counted: {reason}"

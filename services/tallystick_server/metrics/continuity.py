"""Whether the stream is the one that was counted so far. Pure: what is remembered against what is there."""

import hashlib
from datetime import datetime
from typing import NamedTuple

from tallystick_server.metrics.events import Message


class Position(NamedTuple):
    """What is remembered of the stream.

    Args:
        created: when the stream was created.
        seq: the last counted message; 0 if none was.
        digest: of that message. None if none was counted, or by a version that did not remember it.
        holes_until: up to here an operator accepted that messages are missing.
        bare_until: unnumbered events stored up to then had been counted before an operator had counting start over.
    """

    created: datetime
    seq: int
    digest: bytes | None
    holes_until: int = 0
    bare_until: datetime | None = None


class Found(NamedTuple):
    """The stream that is there.

    Args:
        created: when it was created.
        first_seq: the oldest message it holds, or the next one's if it holds none.
        last_seq: the newest message it ever stored.
        message: the one at the remembered position, if the stream holds it.
    """

    created: datetime
    first_seq: int
    last_seq: int
    message: Message | None = None

    def holds(self, seq: int) -> bool:
        """Whether a message with this sequence must be there."""
        return self.first_seq <= seq <= self.last_seq


def digest(message: Message) -> bytes:
    """What a message is recognized by: an older copy of the stream reuses sequences for other messages."""
    head = f"{message.seq} {message.stored.isoformat()} {message.subject}\n"
    return hashlib.sha256(head.encode() + message.payload).digest()


def break_of(position: Position, found: Found) -> str | None:
    """Why counting must not go on from the position; None if the stream continues there.

    Messages up to the position may be gone: they were counted. None after it may be.
    """
    seq, reason = position.seq, None
    if found.created != position.created:
        reason = (
            f"it was recreated: the stream that was counted was made at {position.created:%Y-%m-%d %H:%M:%S}Z"
        )
    elif found.last_seq < seq:
        reason = f"it ends at {found.last_seq} and was counted up to {seq}: an older copy, or truncated"
    elif found.first_seq > seq + 1:
        reason = f"it begins at {found.first_seq} and was counted up to {seq}: events were removed uncounted"
    elif not found.holds(seq) or position.digest is None:
        pass  # the message was counted long ago and removed, or by a version that did not remember it
    elif found.message is None or found.message.seq != seq:
        reason = f"the message {seq}, which was counted last, is missing"
    elif digest(found.message) != position.digest:
        reason = f"the message {seq} is not the one that was counted: an older copy that has grown"
    return reason and f"the event stream is not the one that was counted: {reason}"

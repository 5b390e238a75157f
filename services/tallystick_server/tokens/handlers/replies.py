"""Replies that several operations give."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.rpc import batches

R = TypeVar("R", bound=msgspec.Struct)


def bad_request(*errors: FieldError) -> Failure:
    # An import may have more faults than one message holds; then the first ones are reported.
    reported = next(batches.cut(errors, batches.MAX_MESSAGE_BYTES - 1024), [])
    message = "some fields are invalid"
    if len(reported) < len(errors):
        message += f"; {len(errors) - len(reported)} more are left out here"
    return Failure(code="bad_request", message=message, errors=tuple(reported))


def fitting(reply: R, field: str, items: Sequence[Any]) -> R | Failure:
    """The reply, or a rejection that names the largest possible number of items if the reply exceeds a NATS message.

    Args:
        reply: the reply.
        field: the field of the request that sets the number of items.
        items: the items of the reply.
    """
    if batches.fits(reply):
        return reply
    largest = max(len(msgspec.json.encode(item)) for item in items)
    number = max(1, (batches.MAX_MESSAGE_BYTES - 1024) // (largest + 1))
    return bad_request(FieldError(field=field, message=f"more than one answer holds: ask for {number}"))


def not_found() -> Failure:
    return Failure(code="not_found", message="not found")


def conflict(message: str) -> Failure:
    return Failure(code="conflict", message=message)

"""Reads JSON bodies strictly, and tells everything that is wrong with one at once."""

import re
from typing import Any

import msgspec

from tallystick.contracts import validation
from tallystick.contracts.input_limits import too_deep
from tallystick.contracts.messages import FieldError

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def problems(body: bytes, kind: type[msgspec.Struct]) -> list[FieldError]:
    """Everything in a body that does not fit a type, by field; empty when it fits."""
    try:
        raw = _decoded(body)
    except _Unreadable as error:
        return [FieldError(field="", message=str(error))]
    return validation.problems(raw, kind)


class _Unreadable(Exception):
    """A body holds no object that can be read; the text says why."""


def _decoded(body: bytes) -> dict[str, Any]:
    """The body's object.

    Raises:
        _Unreadable: there is none.
    """
    if body.startswith(_BYTE_ORDER_MARKS):
        raise _Unreadable(
            "begins with a byte order mark: send JSON in UTF-8 without one (RFC 8259, section 8.1)"
        )
    if _NUL.search(body):
        raise _Unreadable("a NUL character")
    try:
        raw = msgspec.json.decode(body)
        nested = too_deep(raw)
    except RecursionError:
        nested = True
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _Unreadable("not JSON in UTF-8") from None
    if nested:
        raise _Unreadable("nested too deeply")
    if not isinstance(raw, dict):
        raise _Unreadable("not a JSON object")
    if is_too_large(raw):
        raise _Unreadable("a number beyond 64 bits")
    return raw


def loosely(body: bytes) -> dict[str, Any]:
    """The body's object as far as it can be read; empty where it cannot."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def is_too_large(value: object) -> bool:
    """Whether a number in a decoded value is beyond 64 bits."""
    match value:
        case bool():
            return False
        case int():
            return not -(2**63) <= value < 2**64
        case float():
            return abs(value) >= 2**64 and value.is_integer()
        case list():
            return any(map(is_too_large, value))
        case dict():
            return any(map(is_too_large, value.values()))
    return False

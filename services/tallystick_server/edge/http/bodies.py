"""Reads JSON and form bodies strictly, and reports all faults of a body at once."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from tallystick.contracts import validation
from tallystick.contracts.input_limits import too_deep
from tallystick.contracts.messages import FieldError
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.http.errors import ProblemError
from tallystick_server.edge.http.parameters import unique_fields

FORM = "application/x-www-form-urlencoded"
JSON = ("application/json",)

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def problems(body: bytes, kind: type[msgspec.Struct]) -> list[FieldError]:
    """The faults of a body by field; empty if it fits the type."""
    try:
        raw = _decoded(body)
    except _Unreadable as error:
        return [FieldError(field="", message=str(error))]
    return validation.problems(raw, kind)


class _Unreadable(Exception):
    """The body is not a readable JSON object. The text is the reason."""


def _decoded(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        _Unreadable: the body is not a readable JSON object.
    """
    if body.startswith(_BYTE_ORDER_MARKS):
        raise _Unreadable(
            "must not begin with a byte order mark: send JSON in UTF-8 without one (RFC 8259, section 8.1)"
        )
    if _NUL.search(body):
        raise _Unreadable("must not contain a NUL character")
    try:
        raw = msgspec.json.decode(body)
        nested = too_deep(raw)
    except RecursionError:
        nested = True
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _Unreadable("must be JSON in UTF-8") from None
    if nested:
        raise _Unreadable("nested too deeply")
    if not isinstance(raw, dict):
        raise _Unreadable("must be a JSON object")
    if is_too_large(raw):
        raise _Unreadable("contains a number that does not fit in 64 bits")
    return raw


def loosely(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, unchecked; empty if the body cannot be read."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def is_too_large(value: object) -> bool:
    """Whether a decoded value contains a number that does not fit in 64 bits."""
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


async def check_json(
    request: HttpRequest,
    kind: type[msgspec.Struct],
    media_types: Sequence[str],
    *,
    required: bool,
    more_faults: Callable[[HttpRequest, dict[str, Any]], Awaitable[list[FieldError]]] | None,
) -> None:
    """Checks a JSON body against the type that its handler takes.

    Args:
        request: the request.
        kind: the type.
        media_types: the accepted media types.
        required: whether a body is required.
        more_faults: finds further faults of a body that does not fit.

    Raises:
        ProblemError: the body does not fit.
    """
    # Without a body the handler gets its default. Many clients send the media type even then.
    if not required and not await request.body() and _is_json_or_absent(request):
        return
    _check_media_type(request, media_types)
    if faults := problems(await request.body(), kind):
        if more_faults is not None:
            more = await more_faults(request, loosely(await request.body()))
            faults = validation.with_others(faults, more)
        raise ProblemError("bad_request", errors=tuple(faults))


async def read_form(request: HttpRequest, kind: type[msgspec.Struct]) -> dict[str, str]:
    """The fields of a form body that its type declares.

    Raises:
        ProblemError: the body is not a form, or a declared field is repeated.
    """
    _check_media_type(request, (FORM,))
    declared = [field.encode_name for field in msgspec.structs.fields(kind)]
    return unique_fields(await request.body(), declared)


def _is_json_or_absent(request: HttpRequest) -> bool:
    return _media_types(request) in ([], list(JSON)) and _is_uncoded(request)


def _check_media_type(request: HttpRequest, media_types: Sequence[str]) -> None:
    actual = _media_types(request)
    if len(actual) != 1 or actual[0] not in media_types or not _is_uncoded(request):
        detail = f"the body must be {' or '.join(media_types)}, without a content coding"
        raise ProblemError("unsupported_media_type", detail)


def _media_types(request: HttpRequest) -> list[str]:
    fields = request.headers.getall("content-type", [])
    return [field.partition(";")[0].strip().lower() for field in fields]


def _is_uncoded(request: HttpRequest) -> bool:
    return bool(request.headers.get("content-encoding", "identity") == "identity")

"""Reads JSON bodies strictly, and tells everything that is wrong with one at once."""

import re
from typing import Any

import msgspec

from shared.bad_input import too_deep, without_input
from shared.contracts import FieldError

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def problems(body: bytes, kind: type[msgspec.Struct]) -> list[FieldError]:
    """Everything in a body that does not fit a type, by field; empty when it fits."""
    if _NUL.search(body):
        return [FieldError(field="", message="a NUL character")]
    try:
        raw = msgspec.json.decode(body)
        nested = too_deep(raw)
    except RecursionError:
        nested = True
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return [FieldError(field="", message="not JSON in UTF-8")]
    if nested:
        return [FieldError(field="", message="nested too deeply")]
    if not isinstance(raw, dict):
        return [FieldError(field="", message="not a JSON object")]
    if is_too_large(raw):
        return [FieldError(field="", message="a number beyond 64 bits")]
    return _of_fields(raw, kind)


def loosely(body: bytes) -> dict[str, Any]:
    """The body's object as far as it can be read; empty where it cannot."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _of_fields(raw: dict[str, Any], kind: type[msgspec.Struct]) -> list[FieldError]:
    found = []
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, field in fields.items():
        if name in raw:
            try:
                msgspec.convert(raw[name], field.type, strict=True)
            except msgspec.ValidationError as error:
                found.append(_error(name, without_input(str(error))))
        elif field.required:
            found.append(FieldError(field=name, message="missing"))
    # A name nobody knows may be anything, a token too, so it is not repeated.
    if raw.keys() - fields.keys():
        known = ", ".join(fields)
        found.append(FieldError(field="", message=f"a field that is none of {known}"))
    return found


def _error(name: str, text: str) -> FieldError:
    message, _, path = text.partition(" - at `$")
    if not path.endswith("`"):
        message, path = text, ""
    return FieldError(
        field=name + path.removesuffix("`"),
        message="an unknown field" if "unknown field" in message else message,
    )


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

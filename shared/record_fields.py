"""Checks a token record field by field, so that all its faults are reported at once."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, get_args

import msgspec

from shared.bad_input import without_input
from shared.contracts import FieldError

_PATH = re.compile(r" - at `\$(.*)`$")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}", re.ASCII)


class NotARecord(Exception):
    """The text is not a token record that may be imported.

    Args:
        problems: what is wrong, by field; a text is about the record as a whole. None repeats the record's values.
        expires: the record's expiry, where it can be read all the same.
    """

    def __init__(self, *problems: FieldError | str, expires: datetime | None = None) -> None:
        self.problems = tuple(
            FieldError(field="", message=problem) if isinstance(problem, str) else problem
            for problem in problems
        )
        self.expires = expires
        super().__init__("; ".join(map(describe, self.problems)))


def describe(problem: FieldError) -> str:
    """``field: reason``, or the reason alone where it is about the record as a whole."""
    return f"{problem.field}: {problem.message}" if problem.field else problem.message


def problems(value: Any, kind: type[msgspec.Struct], path: str = "") -> Iterator[FieldError]:
    """What keeps a decoded value from being a struct of this kind: fields that are unknown, missing or of the
    wrong type, at every depth.
    """
    if not isinstance(value, dict):
        yield FieldError(field=path, message="expected an object")
        return
    prefix = f"{path}." if path else ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in value:
        if name not in fields:
            yield FieldError(field=prefix + _shown(name), message=UNKNOWN_FIELD)
    for name, field in fields.items():
        nested = _nested_struct(field.type)
        if name not in value:
            if field.required:
                yield FieldError(field=prefix + name, message="missing")
        elif nested and isinstance(value[name], dict):
            yield from problems(value[name], nested, prefix + name)
        else:
            yield from _wrong_type(value[name], field.type, prefix + name)


UNKNOWN_FIELD = (
    "unknown field, which may narrow the token: update Tallystick, or leave the record out (--skip-rejected)"
)


def _wrong_type(value: Any, kind: Any, path: str) -> Iterator[FieldError]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = without_input(str(error))
        inner = _PATH.search(message)
        yield FieldError(field=path + (inner[1] if inner else ""), message=_PATH.sub("", message))


def _nested_struct(kind: Any) -> type[msgspec.Struct] | None:
    """The struct in ``Struct`` or ``Struct | None``."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _shown(name: Any) -> str:
    """A field's name, where it is safe to print."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "(a name that is not shown)"

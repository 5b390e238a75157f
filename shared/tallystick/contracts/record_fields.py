"""Checks decoded JSON against a type field by field, so that all its faults are reported at once. msgspec stops at the
first; the types are declared once, as its Structs.
"""

import re
from collections.abc import Generator, Iterator
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import UNSET

from tallystick.contracts.input_limits import shown_value, unknown_name, without_input
from tallystick.contracts.messages import FieldError

_PATH = re.compile(r" - at `\$(.*)`$")


class NotARecord(Exception):
    """The text is not a token record that may be imported.

    Args:
        problems: the faults by field; a text is about the record as a whole. None repeats the record's values.
        expires: the record's expiry, where it can be read all the same.
        account: the account that the record names, where it can be read all the same.
    """

    def __init__(
        self,
        *problems: FieldError | str,
        expires: datetime | None = None,
        account: object = None,
    ) -> None:
        self.problems = tuple(
            FieldError(field="", message=problem) if isinstance(problem, str) else problem
            for problem in problems
        )
        self.expires = expires
        self.account = account if isinstance(account, str) else None
        super().__init__("; ".join(map(describe, self.problems)))


def describe(problem: FieldError) -> str:
    """``field: reason``, or the reason alone where it is about the record as a whole."""
    return f"{problem.field}: {problem.message}" if problem.field else problem.message


class Valid(NamedTuple):
    """An object's fields that fit their types, the others left out.

    Args:
        kind: the struct that the object was to be.
        path: where it is.
        fields: its fields, by their names in JSON.
    """

    kind: type[msgspec.Struct]
    path: str
    fields: dict[str, Any]


class Unknown(NamedTuple):
    """A field that its struct does not have.

    Args:
        prefix: where its object is, with a dot after it.
        name: its name, which may be anything.
        kind: the struct.
    """

    prefix: str
    name: Any
    kind: type[msgspec.Struct]

    @property
    def is_forbidden(self) -> bool:
        """Whether a message may not have it. A record may have none."""
        return self.kind.__struct_config__.forbid_unknown_fields

    def error(self, message: str = "") -> FieldError:
        """The fault; without a message it names the nearest known field."""
        known = self.kind.__struct_encode_fields__
        name, text = unknown_name("field", self.name, known)
        return FieldError(field=self.prefix + (name or HIDDEN_NAME), message=message or text)


Findings = Generator[FieldError | Unknown | Valid, None, Any]
"""What is wrong with a value, and each object in it as far as it is right. Returns the value without what is wrong;
UNSET if nothing of it is left.
"""

HIDDEN_NAME = "(a name that is not shown)"
UNKNOWN_FIELD = (
    "unknown field, which may narrow the token: update Tallystick, or leave the record out (--skip-rejected)"
)


def problems(value: Any, kind: type[msgspec.Struct], path: str = "") -> Iterator[FieldError]:
    """What keeps a decoded value from being a record of this kind: fields that are unknown, missing or of the wrong
    type, at every depth.
    """
    for finding in findings(value, kind, path):
        match finding:
            case FieldError():
                yield finding
            case Unknown():
                yield finding.error(UNKNOWN_FIELD)


def valid(value: Any, kind: type[msgspec.Struct]) -> Any:
    """A value without what keeps it from being of this kind; UNSET if nothing of it is left."""
    checking = findings(value, kind)
    while True:
        try:
            next(checking)
        except StopIteration as end:
            return end.value


def findings(value: Any, kind: Any, path: str = "") -> Findings:
    """See `Findings`. The faults come in the order of the declaration, unknown fields after the others."""
    options = _options(kind)
    struct = next((option for option in options if _is_struct(option)), None)
    if struct is not None and isinstance(value, dict):
        return (yield from _of_object(value, struct, path))
    item = next(filter(None, map(_item_type, options)), None)
    if item is not None and isinstance(value, list):
        return (yield from _of_list(value, kind, item, path))
    return (yield from _of_leaf(value, kind, path))


def _of_object(value: dict[Any, Any], kind: type[msgspec.Struct], path: str) -> Findings:
    prefix = f"{path}." if path else ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    valid: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            part = yield from findings(value[name], field.type, prefix + name)
            if part is not UNSET:
                valid[name] = part
        elif field.required:
            yield FieldError(field=prefix + name, message="missing")
    for name in value:
        if name not in fields:
            yield Unknown(prefix, name, kind)
    yield Valid(kind, path, valid)
    return valid if all(name in valid for name, field in fields.items() if field.required) else UNSET


def _of_list(value: list[Any], kind: Any, item: Any, path: str) -> Findings:
    valid = []
    is_valid = True
    for index, element in enumerate(value):
        part = yield from findings(element, item, f"{path}[{index}]")
        is_valid = is_valid and part == element
        # What takes its place keeps the indices of the others right.
        valid.append("" if part is UNSET else part)
    if is_valid:
        return (yield from _of_leaf(value, kind, path))
    return valid if _fits(valid, kind) else UNSET


def _of_leaf(value: Any, kind: Any, path: str) -> Findings:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = without_input(str(error))
        inner = _PATH.search(message)
        shown = None if inner else shown_value(value)
        text = _PATH.sub("", message) + (f": {shown}" if shown else "")
        yield FieldError(field=path + (inner[1] if inner else ""), message=text)
        return UNSET
    return value


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _options(kind: Any) -> tuple[Any, ...]:
    """The types of a union, without their annotations."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return tuple(option for member in get_args(kind) for option in _options(member))
    return (kind,)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _item_type(kind: Any) -> Any:
    """The type of the items of a ``tuple[X, ...]``."""
    arguments = get_args(kind)
    return arguments[0] if get_origin(kind) is tuple and arguments[-1] is Ellipsis else None

"""Reports everything that is wrong with a request at once: what does not fit its types, and where something does not, the
rules for the rest as well. What fits its types is left to the tokens service, which knows the stored token.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallystick.contracts import record_fields
from tallystick.contracts.input_limits import too_deep
from tallystick.contracts.messages import FieldError
from tallystick.contracts.record_fields import Unknown, Valid
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import TokenUpdate
from tallystick.tokens import rules

MAX_ERRORS = 50
"""Faults in one answer."""


def problems(value: Any, kind: type[msgspec.Struct], now: datetime | None = None) -> list[FieldError]:
    """Every fault of a decoded request, in the order of its type's fields; empty if it fits its type.

    Args:
        value: the decoded JSON.
        kind: the request's type.
        now: the time, for the rules.
    """
    if too_deep(value):
        return [FieldError(field="", message="nested too deeply")]
    faults: list[FieldError] = []
    tokens: list[Valid] = []
    for finding in record_fields.findings(value, kind):
        match finding:
            case FieldError():
                faults.append(finding)
            case Unknown(is_forbidden=True):
                faults.append(finding.error())
            case Valid(kind=part) if part in {NewToken, TokenUpdate}:
                tokens.append(finding)
        if len(faults) > MAX_ERRORS:
            return bounded(faults)
    if faults:
        for token in tokens:
            faults += unreported(faults, _of_token(token, now or datetime.now(UTC)))
    return bounded(faults)


def and_rules(faults: list[FieldError], token: NewToken | TokenUpdate) -> list[FieldError]:
    """The faults of a new token: those of its types, and those of the rules for the fields that could be decoded."""
    part = Valid(type(token), "", msgspec.to_builtins(token, builtin_types=(datetime,)))
    return with_others(faults, _of_token(part, datetime.now(UTC)))


def with_others(faults: Sequence[FieldError], others: Iterable[FieldError]) -> list[FieldError]:
    """Faults, and others of fields that none of them is about."""
    return bounded([*faults, *unreported(faults, others)])


def bounded(faults: list[FieldError]) -> list[FieldError]:
    """The first faults; if there are more, the last one says so."""
    if len(faults) <= MAX_ERRORS:
        return faults
    return [
        *faults[:MAX_ERRORS],
        FieldError(field="", message=f"only the first {MAX_ERRORS} faults are listed"),
    ]


def _of_token(part: Valid, now: datetime) -> Iterator[FieldError]:
    """The faults of an edit's fields, as far as they do not depend on the stored token."""
    fields = _without_nulls(part.fields)
    token = record_fields.valid(fields, NewToken)
    prefix = f"{part.path}." if part.path else ""
    for problem in rules.problems(rules.in_utc(msgspec.convert(token, NewToken)), now):
        name = problem.field.partition(".")[0].partition("[")[0]
        if part.kind is NewToken or name in fields:
            yield FieldError(field=prefix + problem.field, message=problem.message)


def unreported(faults: Iterable[FieldError], candidates: Iterable[FieldError]) -> list[FieldError]:
    """The candidates that are not about a field, or a part of one, that the faults report already."""
    reported = [fault.field for fault in faults]
    return [
        fault
        for fault in candidates
        if not any(
            field == fault.field or field.startswith((f"{fault.field}.", f"{fault.field}["))
            for field in reported
        )
    ]


def _without_nulls(value: Any) -> Any:
    """The fields that an edit sets, without those that it removes."""
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(part) for name, part in value.items() if part is not None}

"""Merges an edit into a token as JSON Merge Patch does (RFC 7396): an absent member keeps its value, null removes it, at
every depth. Pure.
"""

from datetime import datetime
from typing import Any

import msgspec

from tallystick.contracts import record_fields
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import TokenUpdate
from tallystick.tokens import rules


class NotMergeable(Exception):
    """What an edit leads to is no token.

    Args:
        problems: why, by field.
    """

    def __init__(self, problems: list[FieldError]) -> None:
        super().__init__()
        self.problems = tuple(problems)


def merged(token: NewToken, changes: TokenUpdate) -> NewToken:
    """The token after an edit, ``disabled`` aside, in its canonical form.

    Raises:
        NotMergeable: the result lacks something, as a rate limit with one half.
    """
    patch = _builtins(changes)
    patch.pop("disabled", None)
    result = merge_patch(_builtins(token), patch)
    if problems := list(record_fields.problems(result, NewToken)):
        raise NotMergeable(problems)
    return rules.in_utc(msgspec.convert(result, NewToken))


def merge_patch(target: Any, patch: Any) -> Any:
    """``target`` after ``patch`` (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def _builtins(struct: msgspec.Struct) -> Any:
    return msgspec.to_builtins(struct, builtin_types=(datetime,))

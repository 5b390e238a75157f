"""What both the edge and the services have to mind about input, whichever way it came."""

import difflib
import json
import re
from collections.abc import Iterable

MAX_DEPTH = 64
"""Maximum nesting depth of lists and objects: code that walks through them recursively has a limited stack."""
SHORTEST_TOKEN = 16
"""Characters of the shortest value that may be a token."""
_QUOTED = re.compile(r"(Invalid enum value) '.*'", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}", re.ASCII)
_PRINTABLE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_NETWORK = re.compile(r"(?=.*[.:])[0-9a-fA-F.:]{1,45}(/[0-9]{1,3})?", re.ASCII)


def too_deep(value: object) -> bool:
    """Whether decoded JSON is nested more than `MAX_DEPTH` deep."""
    layer = [value]
    for _ in range(MAX_DEPTH + 1):
        layer = [part for nested in layer for part in _parts(nested)]
        if not layer:
            return False
    return True


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def without_input(message: str) -> str:
    """A message of msgspec about invalid input, without the input: msgspec quotes the value of an enum."""
    return _QUOTED.sub(r"\1", message)


def shown_value(value: object) -> str | None:
    """A value as an error may repeat it; None where it may be a token, or anything that a terminal obeys."""
    if isinstance(value, str):
        is_short = len(value) < SHORTEST_TOKEN and _PRINTABLE.fullmatch(value)
        return json.dumps(value) if is_short or _NETWORK.fullmatch(value) else None
    if isinstance(value, bool | int | float):
        text = json.dumps(value)
        return text if len(text) < SHORTEST_TOKEN else None
    return None


def nearest(name: str, valid_names: Iterable[str]) -> str | None:
    """The valid name that an unknown one was probably meant to be."""
    by_lower_case = {valid_name.lower(): valid_name for valid_name in valid_names}
    matches = difflib.get_close_matches(name[:64].lower(), by_lower_case, n=1)
    return by_lower_case[matches[0]] if matches else None


def unknown_name(kind: str, name: object, valid_names: Iterable[str]) -> tuple[str, str]:
    """How an error names an unknown field or parameter.

    Args:
        kind: ``field`` or ``parameter``.
        name: its name.
        valid_names: the valid names.

    Returns:
        The name, empty where it may be a token; and the message.
    """
    valid_names = list(valid_names)
    meant = nearest(name, valid_names) if isinstance(name, str) else None
    text = name if isinstance(name, str) and _may_be_shown(name, meant) else ""
    if meant is not None:
        return text, f"unknown {kind}; did you mean {meant}?"
    if not valid_names:
        return text, f"unknown {kind}; there are none here"
    return text, f"unknown {kind}; known are {', '.join(valid_names)}"


def _may_be_shown(name: str, meant: str | None) -> bool:
    """Whether a name is one, and not a token in the place of a name."""
    is_word = not any(map(str.isdigit, name))
    return _NAME.fullmatch(name) is not None and (len(name) < SHORTEST_TOKEN or is_word or meant is not None)

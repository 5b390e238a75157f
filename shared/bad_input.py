"""What both the edge and the services have to mind about input, whichever way it came."""

import re

MAX_DEPTH = 64
"""How many lists and objects may stand within one another: whatever walks through them has a stack of its own to mind."""
_QUOTED = re.compile(r"(Invalid enum value) '.*'", re.DOTALL)


def too_deep(value: object) -> bool:
    """Whether decoded JSON is nested more than `MAX_DEPTH` deep."""
    layer = [value]
    for _ in range(MAX_DEPTH + 1):
        layer = [part for each in layer for part in _parts(each)]
        if not layer:
            return False
    return True


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def without_input(message: str) -> str:
    """What msgspec says of input that does not fit, without what the input held; an enum's value is the one it quotes."""
    return _QUOTED.sub(r"\1", message)

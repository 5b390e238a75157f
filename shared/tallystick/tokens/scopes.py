"""What a scope is, and which scopes cover which."""

import re
from collections.abc import Iterable

ALL = "*"
SCOPE = "[a-z0-9][a-z0-9_.-]*(:[a-z0-9][a-z0-9_.-]*)*"
"""The pattern of every scope but ``*``. It means the same in JSON Schema (ECMA-262)."""
_SCOPE = re.compile(SCOPE, re.ASCII)
MAX_LENGTH = 128
MAX_COUNT = 64


def is_scope(text: str) -> bool:
    """``*``, or lower-case segments joined by colons: ``api``, ``orders:read``."""
    return text == ALL or (len(text) <= MAX_LENGTH and _SCOPE.fullmatch(text) is not None)


def covers(granted: Iterable[str], required: str) -> bool:
    """Whether one of the granted scopes is ``*``, the required one, or a whole-segment prefix of it."""
    return any(scope in (ALL, required) or required.startswith(scope + ":") for scope in granted)

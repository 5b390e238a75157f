"""The token as a string: generation, syntax with checksum, and digest.

Three kinds are valid (the digest is SHA-256 in each case):

- ours: ``tly_`` + 43 base62 characters (32 random bytes) + 6 base62 characters of CRC-32 over what stands
  before. The digest is taken of the whole ASCII text.
- 64 hexadecimal characters, as EmailEngine makes them. The digest is taken of the 32 decoded bytes, so upper
  and lower case are one token.
- any other opaque value of 16 to 256 visible ASCII characters, imported by its hash. The digest is taken of
  the text.
"""

import hashlib
import re
import secrets
import zlib
from typing import NamedTuple

PREFIX = "tly_"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43  # 62**43 > 2**256
_CHECKSUM_LENGTH = 6  # 62**6 > 2**32

OUR_LENGTH = len(PREFIX) + _SECRET_LENGTH + _CHECKSUM_LENGTH
HEX_LENGTH = 64
"""The length of EmailEngine's tokens."""

_OURS = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_OPAQUE = re.compile(r"[\x21-\x7e]{16,256}", re.ASCII)

MAX_LENGTH = 512
"""Longer values are rejected unread."""

LOOKS_LIKE_ONE = r"tly_[0-9A-Za-z]{20,}|[0-9A-Fa-f]{64}"
"""What is a secret by its looks, mistyped or not, for places where none may be written."""

HINT_LENGTH = 8
"""How many first characters of a token may be shown, to tell tokens apart in a list."""


def mint() -> str:
    """A new token: 32 bytes from the operating system's generator, with its checksum."""
    body = PREFIX + _base62(int.from_bytes(secrets.token_bytes(32)), _SECRET_LENGTH)
    return body + _checksum(body)


class Secret(NamedTuple):
    """A new token, and what may be known of it elsewhere: its digest, and its first characters."""

    value: str
    digest: str
    hint: str


def new_secret() -> Secret:
    """A new secret: its value is to be shown once, the rest is sent on."""
    value = mint()
    return Secret(value, hashlib.sha256(value.encode("ascii")).hexdigest(), value[:HINT_LENGTH])


def digest(value: str) -> str | None:
    """The SHA-256 digest of a well-formed token as 64 lower-case hex characters; None for any other string."""
    if len(value) > MAX_LENGTH:
        return None
    if value.startswith(PREFIX):
        if not is_ours(value):
            return None
    elif _HEX.fullmatch(value):
        if len(value) == HEX_LENGTH:
            return hashlib.sha256(bytes.fromhex(value)).hexdigest()
        # One character lost or doubled is a mistyped 64-hex token, not an opaque one: no need to ask anyone.
        if len(value) in {HEX_LENGTH - 1, HEX_LENGTH + 1}:
            return None
    if not _OPAQUE.fullmatch(value):
        return None
    return hashlib.sha256(value.encode("ascii")).hexdigest()


def is_hex(value: str) -> bool:
    """Whether the string is a token of EmailEngine's, or its id there, which is the token's digest."""
    return len(value) == HEX_LENGTH and _HEX.fullmatch(value) is not None


def is_ours(value: str) -> bool:
    """Whether the string is a well-formed ``tly_`` token, its checksum included."""
    return (
        len(value) == OUR_LENGTH
        and _OURS.fullmatch(value) is not None
        and value[-_CHECKSUM_LENGTH:] == _checksum(value[:-_CHECKSUM_LENGTH])
    )


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))

"""Limits of a request that are checked first: its size, its Host header, and its transfer coding."""

from collections.abc import Collection

from tallystick_server.edge.http.errors import ProblemError

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_TARGET_BYTES = 8 * 1024
CLOSE = {"connection": "close"}

Headers = Collection[tuple[bytes, bytes]]


def is_plain(headers: Headers, fields: dict[bytes, bytes], raw_path: bytes, query: bytes) -> bool:
    """Whether a request is certainly within every limit. The test takes a microsecond, and may miss some that are.

    Args:
        headers: the header fields.
        fields: the same as a dictionary.
        raw_path: the path as it was sent.
        query: the query string.
    """
    size = len(raw_path) + len(query) + len(b"".join([*fields, *fields.values()]))
    return (
        len(fields) == len(headers) <= MAX_HEADERS
        and size <= MAX_TARGET_BYTES
        and fields.get(b"host", b"") != b""  # granian gives a missing one as an empty one
        and fields.get(b"transfer-encoding", b"chunked") == b"chunked"
    )


def violation(headers: Headers, raw_path: bytes, query: bytes, *, may_lack_host: bool) -> ProblemError | None:
    """The first limit that a request exceeds; None if it is within all."""
    hosts = [value for name, value in headers if name == b"host"]
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES
    ):
        return ProblemError("header_fields_too_large")
    if len(raw_path) + len(query) > MAX_TARGET_BYTES:
        return ProblemError("uri_too_long")
    if len(hosts) > 1 or not (any(hosts) or may_lack_host):
        return ProblemError("bad_request", "exactly one Host header is required", headers=CLOSE)
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        return ProblemError("bad_request", "chunked is the only supported transfer coding", headers=CLOSE)
    return None

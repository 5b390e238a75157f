"""Static files, which are read, hashed and compressed once, when the application is created.

Responses with secrets are never compressed: together with text chosen by the client, the compressed length would reveal
the secret (BREACH).
"""

import gzip
from hashlib import sha256
from typing import NamedTuple

from litestar import Response

from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.http.negotiation import coding_weight

CACHE_CONTROL = "no-cache"
"""Clients revalidate the file on every use, since its name is the same in every version."""


class StaticFile(NamedTuple):
    """A file, with the headers of all its responses."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str
    headers: dict[str, str]


def static_file(content: bytes, media_type: str, headers: dict[str, str]) -> StaticFile:
    """Prepares a file to be served."""
    fields = {**headers, "cache-control": CACHE_CONTROL, "vary": "accept-encoding"}
    compressed = gzip.compress(content, mtime=0)
    return StaticFile(content, compressed, media_type, sha256(content).hexdigest()[:32], fields)


def respond(request: HttpRequest, file: StaticFile) -> Response[bytes]:
    """The file, compressed if the client accepts gzip; or 304 if the client has the current version."""
    compressed = coding_weight(",".join(request.headers.getall("accept-encoding", [])), "gzip") > 0
    # A strong entity tag identifies the exact bytes, so each coding has its own (RFC 9110, section 8.8.3.3).
    tag = f'"{file.tag}-gzip"' if compressed else f'"{file.tag}"'
    headers = {**file.headers, "etag": tag}
    if _matches(tag, request.headers.getall("if-none-match", [])):
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    if compressed:
        headers["content-encoding"] = "gzip"
    content = file.compressed if compressed else file.content
    return Response(content, headers=headers, media_type=file.media_type)


def _matches(tag: str, fields: list[str]) -> bool:
    """Whether If-None-Match contains the tag, by weak comparison, since proxies weaken tags (RFC 9110, section 13.1.2)."""
    names = [name.strip().removeprefix("W/") for field in fields for name in field.split(",")]
    return names == ["*"] or tag in names

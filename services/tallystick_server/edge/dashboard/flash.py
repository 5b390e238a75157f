"""Flash messages: the result of a change, shown once on the page after it, and not again when that page is reloaded.

A flash message is stored in a cookie signed by the session, so no link or other site can forge it.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Literal

import msgspec
from litestar.datastructures import Cookie

from tallystick.coherence.propagation import Propagation
from tallystick_server.edge.authentication.context import HttpRequest
from tallystick_server.edge.dashboard.sessions import cookie, cookies_of, csrf_of, of_this_host

NAME = "tallystick-flash"
LASTS_S = 60
"""How long the browser keeps a message that no page has shown."""
_MAX_BYTES = 1024


class Flash(msgspec.Struct, frozen=True):
    """Args:
    done: the kind of the change; the templates have its text.
    edges: the number of edges that acknowledged it; None for a change that edges need not acknowledge.
    seconds: how long the propagation took.
    """

    done: Literal["changed", "disabled", "enabled", "added", "existing"]
    edges: int | None = None
    seconds: float = 0

    @classmethod
    def of(cls, done: str, propagation: Propagation) -> "Flash":
        return msgspec.convert(
            {"done": done, "edges": propagation.edges, "seconds": propagation.seconds}, type=cls
        )


def set_by(request: HttpRequest, flash: Flash) -> Cookie:
    """The cookie that carries a message to the next page."""
    content = msgspec.json.encode(flash)
    return cookie(
        request, of_this_host(request, NAME), f"{_base64(content)}.{_signature(request, content)}", LASTS_S
    )


def taken_by(request: HttpRequest) -> Flash | None:
    """The message for this page; None without a message that this session has signed."""
    text = cookies_of(request).get(of_this_host(request, NAME), "").strip('"')  # as Set-Cookie quotes it
    encoded, _, signature = text.partition(".")
    if len(text) > _MAX_BYTES:
        return None
    try:
        content = urlsafe_b64decode(encoded)
        if hmac.compare_digest(signature.encode(), _signature(request, content).encode()):
            return msgspec.json.decode(content, type=Flash)
    except ValueError:  # no base64, or a message of another version
        pass
    return None


def forgotten(request: HttpRequest) -> Cookie:
    """The cookie that deletes a message after it was shown."""
    return cookie(request, of_this_host(request, NAME), "", 0)


def _signature(request: HttpRequest, content: bytes) -> str:
    return hmac.new(csrf_of(request).encode(), b"flash:" + content, sha256).hexdigest()


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).decode()

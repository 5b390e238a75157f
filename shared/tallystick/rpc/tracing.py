"""The id and the W3C trace context of the current request, passed from HTTP over NATS into every log line. The trace
context is forwarded unchanged; Tallystick creates no spans.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import NamedTuple

REQUEST_HEADER = "Tallystick-Request"
TRACE_HEADER = "traceparent"  # W3C Trace Context, section 3.2
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_REQUEST = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)


class Origin(NamedTuple):
    """Args:
    request: the id of the HTTP request, as ``X-Request-Id`` shows it.
    trace: its ``traceparent``; None where it had none, or none that could be read.
    """

    request: str
    trace: str | None

    @property
    def trace_id(self) -> str | None:
        return self.trace and self.trace.split("-")[1]


_current: ContextVar[Origin | None] = ContextVar("origin", default=None)


def current() -> Origin | None:
    return _current.get()


def serve(request: str, trace: bytes | None) -> None:
    """`begin` with an id of our own making, and the value of a header field."""
    text = None if trace is None else str(trace, "latin-1")
    _current.set(Origin(request, text if text and _TRACE.fullmatch(text) else None))


def begin(request: str | None, trace: str | None) -> None:
    """Sets the origin of the rest of this task. Malformed values are ignored, since they would get into logs."""
    if request is not None and _REQUEST.fullmatch(request):
        _current.set(Origin(request, trace if trace and _TRACE.fullmatch(trace) else None))


def received(headers: Mapping[str, str] | None) -> None:
    """`begin` with what came over NATS."""
    if headers:
        begin(headers.get(REQUEST_HEADER), headers.get(TRACE_HEADER))


def headers() -> dict[str, str]:
    """What to send on over NATS."""
    origin = _current.get()
    if origin is None:
        return {}
    return {REQUEST_HEADER: origin.request, **({TRACE_HEADER: origin.trace} if origin.trace else {})}

"""The outermost ASGI application: bounds the request in size and time, takes the credential off it before
anything else reads it, and adds to answers what every answer has. What can be answered from here is: a credential
that says by itself that it is none, and a proxy's question about a token that is known.
"""

import asyncio
import itertools
import re
from binascii import a2b_hex
from collections.abc import Coroutine, Iterator
from hashlib import sha256
from typing import Any

from litestar import Litestar
from litestar.types import Message, Receive, Send

from tallystick.coherence.invalidation import now
from tallystick.contracts.records import Token
from tallystick.errors import Refused
from tallystick.rpc import tracing
from tallystick.tokens.format import HEX_LENGTH, OUR_LENGTH, digest
from tallystick.tokens.ids import new_id
from tallystick_server.edge.authentication import client_authentication, forward_auth
from tallystick_server.edge.authentication.credentials import Credential, take
from tallystick_server.edge.authorization.guard import Gate
from tallystick_server.edge.http.errors import API_PATHS, FORWARD_AUTH_PATH, OAUTH2_PATHS, Answer, refusal
from tallystick_server.edge.http.request_counter import Routes

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_TARGET_BYTES = 8 * 1024
CLOSE = {"connection": "close"}
BODY_TIMEOUT_S = 10.0
"""How long a client may take to send its body."""
TOKEN_NEEDED = (API_PATHS, OAUTH2_PATHS, "/metrics")
"""Nothing under these is answered without a token; `app` sees to it that no public route is."""
_UNAMBIGUOUS = re.compile(rb"[A-Za-z0-9_~+/=.-]+")
"""What stands after ``Bearer `` is one value, whatever it is worth."""
OFFERED = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}


class Front:
    def __init__(self, app: Litestar, gate: Gate) -> None:
        self._app = app
        self._routes = Routes(app.routes)
        self._gate = gate
        self._ids = _request_ids()

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # What can be told at once is told without a coroutine for each step.
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        request_id = next(self._ids)
        headers, query = scope["headers"], scope["query_string"]
        fields = dict(headers)
        size = len(scope["raw_path"]) + len(query) + len(b"".join([*fields, *fields.values()]))
        if (
            len(fields) != len(headers)
            or len(headers) > MAX_HEADERS
            or size > MAX_TARGET_BYTES
            or not fields.get(b"host")  # granian gives a missing one as an empty one
            or fields.get(b"transfer-encoding", b"chunked") != b"chunked"
        ) and (refused := _unacceptable(scope)):
            is_forward_auth = scope["path"].startswith(FORWARD_AUTH_PATH)
            answer = forward_auth.rejection(refused) if is_forward_auth else refusal(refused, scope["path"])
            return self._send(answer, scope, request_id, send)
        if scope["path"].startswith(forward_auth.BEFORE_TARGET):
            forward_auth.read_question(scope)
            query = scope["query_string"]
        bearer = fields.get(b"authorization", b"")
        # The usual case, in which all there is to do is to look the token up.
        if (
            bearer[:7] == b"Bearer "
            and len(fields) == len(headers)
            and b"access" not in query
            and b"%" not in query
        ):
            return self._bearer(scope, receive, send, request_id, fields)
        return self._check(scope, receive, send, request_id)

    def _bearer(
        self, scope: Any, receive: Receive, send: Send, request_id: bytes, fields: dict[bytes, bytes]
    ) -> Coroutine[Any, Any, None]:
        token = fields[b"authorization"][7:]
        length = len(token)
        if length == OUR_LENGTH:
            entry = self._gate.cache.get(sha256(token).digest(), now())
        elif length == HEX_LENGTH:
            entry = self._gate.cache.get(_digest_of_64(token), now())
        else:
            # One of ours that was cut off is known by its length: there is nothing to look up.
            entry = None if token[:4] == b"tly_" else self._gate.cache.get(sha256(token).digest(), now())
        if entry is None:
            if _needs_token(scope) and _UNAMBIGUOUS.fullmatch(token) and not digest(str(token, "latin-1")):
                return self._refuse("invalid_token", scope, request_id, send)
            return self._check(scope, receive, send, request_id)
        if scope["path"] == FORWARD_AUTH_PATH:
            answer = forward_auth.answer(self._gate, scope, entry, request_id)
            if answer is not None:
                return self._send(answer, scope, request_id, send, FORWARD_AUTH_PATH, token=entry.token)
        del fields[b"authorization"]
        scope["headers"] = list(fields.items())
        state = {
            "credential": Credential(token.decode("latin-1")),
            "entry": entry,
            "trace": fields.get(b"traceparent"),
        }
        return self._pass_on(scope, receive, send, request_id, state)

    def _check(
        self, scope: Any, receive: Receive, send: Send, request_id: bytes
    ) -> Coroutine[Any, Any, None]:
        """Any other request: its token is not known here, or it has none, or two."""
        credential, headers, query = take(scope["headers"], scope["query_string"])
        state: dict[str, Any] = {"credential": credential, "entry": None}
        if scope["path"].startswith(OAUTH2_PATHS):
            credential = client_authentication.prepare(scope, state)
        code = _without_asking(credential)
        if code == "missing_token" and client_authentication.may_be_in_body(scope):
            code = None
        if code and _needs_token(scope):
            return self._refuse(code, scope, request_id, send)
        scope["headers"], scope["query_string"] = headers, query
        state["trace"] = dict(headers).get(b"traceparent")
        return self._pass_on(scope, receive, send, request_id, state)

    def _refuse(self, code: str, scope: Any, request_id: bytes, send: Send) -> Coroutine[Any, Any, None]:
        self._gate.usage.results[code] += 1
        path = scope["path"]
        for prefix, refusals in _REFUSALS.items():
            if path.startswith(prefix):
                return self._send(refusals[code], scope, request_id, send)
        raise RuntimeError(f"{path} needs no token")

    async def _pass_on(
        self, scope: Any, receive: Receive, send: Send, request_id: bytes, state: dict[str, Any]
    ) -> None:
        scope["state"] = state
        state["gate"] = self._gate
        state["request_id"] = request_id.decode()
        trace = state["trace"]
        tracing.serve(state["request_id"], trace and trace.decode("latin-1"))
        head = scope["method"] == "HEAD"
        if head:
            scope["method"] = "GET"
        receive = _in_time(receive)
        send = self._completed(scope, send, request_id, state, head=head)
        if state["entry"] is not None:
            await self._app(scope, receive, send)
            return
        again: Any = {**scope, "path": "/", "raw_path": b"/"}
        unrouted = _Unrouted(send, state)
        await self._app(scope, receive, unrouted)
        if unrouted.found_none:
            # Which paths there are is told to those with a token only: the route of the unknown asks for one.
            await self._app(again, receive, send)

    async def _send(
        self,
        answer: Answer,
        scope: Any,
        request_id: bytes,
        send: Send,
        route: str | None = None,
        *,
        token: Token | None = None,
    ) -> None:
        route = route or self._routes.template(scope["path"])
        if self._gate.logs_requests:
            scope["path_template"], scope["state"] = route, {"token": token, "code": answer.code}
        self._gate.calls.answered(scope["method"], answer.status, route)
        headers = [*answer.headers, (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _completed(
        self, scope: Any, send: Send, request_id: bytes, state: dict[str, Any], *, head: bool
    ) -> Send:
        calls = self._gate.calls

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = "HEAD" if head else scope["method"]
                route = scope.get("path_template") or self._routes.template(scope["path"])
                calls.answered(method, message["status"], route)
                headers = [*message["headers"], (b"x-request-id", request_id)]
                if "rate_limit" in state:
                    headers += state["rate_limit"]
                if state["credential"].in_query and message["status"] < 300:
                    # A token in a URL stays in histories and caches; the answer at least must not (RFC 6750, 5.3).
                    headers = [
                        *((name, value) for name, value in headers if name != b"cache-control"),
                        (b"cache-control", b"private, no-store"),
                        (b"referrer-policy", b"no-referrer"),
                    ]
                message["headers"] = headers
            elif head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        return sending


def _digest_of_64(token: bytes) -> bytes:
    """The digest of 64 characters as `tallystick.tokens.format.digest` takes it, for a lookup in the cache alone."""
    try:
        return sha256(a2b_hex(token)).digest()
    except ValueError:
        return sha256(token).digest()


def _request_ids() -> Iterator[bytes]:
    """Told apart from those of every other process, and cheap: one is joined out of two parts."""
    process = new_id("req_").encode()
    last = [b"%03x" % number for number in range(4096)]
    for number in itertools.count():
        first = process + b"%05x" % number
        for each in last:
            yield first + each


class _Unrouted:
    """Withholds the 404 of a path that leads to no route, and so to nobody who asked for a token."""

    def __init__(self, send: Send, state: dict[str, Any]) -> None:
        self._send = send
        self._state = state
        self.found_none = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.found_none = message["status"] == 404 and "token" not in self._state
        if not self.found_none:
            await self._send(message)


def _unacceptable(scope: Any) -> Refused | None:
    headers = scope["headers"]
    hosts = [value for name, value in headers if name == b"host"]
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES
    ):
        return Refused("header_fields_too_large")
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return Refused("uri_too_long")
    if len(hosts) > 1 or not (any(hosts) or _is_health_check(scope)):
        return Refused("bad_request", "one Host header is needed", headers=CLOSE)
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        return Refused("bad_request", "chunked is the only transfer coding", headers=CLOSE)
    return None


def _is_health_check(scope: Any) -> bool:
    """Whether HTTP/1.0 lets this request do without Host. Load balancers check health so, HAProxy by OPTIONS."""
    # granian calls HTTP/1.0 "1".
    return scope["http_version"] in {"1", "1.0"} and (
        scope["path"].startswith("/health") or scope["method"] == "OPTIONS"
    )


def _needs_token(scope: Any) -> bool:
    return scope["method"] in OFFERED and scope["path"].startswith(TOKEN_NEEDED)


def _without_asking(credential: Credential) -> str | None:
    """Why a credential is refused that says by itself that it is none."""
    if credential.ambiguous:
        return "invalid_request"
    if credential.value is None:
        return "missing_token"
    return None if digest(credential.value) else "invalid_token"


_REFUSALS = {
    prefix: {
        code: refusal(Refused(code), prefix) for code in ("invalid_request", "missing_token", "invalid_token")
    }
    for prefix in TOKEN_NEEDED
}


def _in_time(receive: Receive) -> Receive:
    """A body that does not come is given up: the server itself would wait for ever."""
    deadline: float | None = None

    async def receiving() -> Any:
        nonlocal deadline
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + BODY_TIMEOUT_S
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - loop.time()))
        except TimeoutError:
            raise Refused("request_timeout", headers=CLOSE) from None
        # Before the body's end this is a client that left or one whose chunks cannot be read.
        if message["type"] == "http.disconnect":
            raise Refused("bad_request", "the body ended before its end", headers=CLOSE)
        return message

    return receiving

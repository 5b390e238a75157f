"""The outermost ASGI application: limits each request, authenticates it once, and records the decision on it."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from litestar import Litestar
from litestar.types import Message, Receive, Scope, Send
from msgspec import structs

from tallystick.errors import AuthError, DenyReason, Unavailable
from tallystick.rpc import tracing
from tallystick.tokens.ids import new_id
from tallystick.verifier import Verifier
from tallystick_server.edge.authentication import client_authentication, forward_auth
from tallystick_server.edge.authentication.authenticator import authenticate
from tallystick_server.edge.authentication.context import (
    Accepted,
    Decision,
    HttpScope,
    RequestContext,
    RequestState,
)
from tallystick_server.edge.authentication.credentials import (
    BEARER,
    NONE,
    Credential,
    forwarded,
    is_single_token,
    only_bearer,
    take,
)
from tallystick_server.edge.http import request_limits
from tallystick_server.edge.http.errors import (
    API_PATHS,
    FORWARD_AUTH_PATH,
    OAUTH2_PATHS,
    ProblemError,
    RawResponse,
    as_problem,
    error_response,
)
from tallystick_server.edge.http.proxies import TrustedProxies
from tallystick_server.edge.http.rate_limit import rate_limit_fields
from tallystick_server.edge.http.request_counter import UNROUTED, RequestCounter, Routes

BODY_TIMEOUT_S = 10.0
"""Maximum time in which a client must send its body."""
ROUTED_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
"""The methods of all routes, apart from OPTIONS."""


class AuthenticationMiddleware:
    """Rejects requests that exceed a limit or have no valid token, and responds to most checks of proxies. All other
    requests reach the application, with a `RequestContext` and without their credential.

    Args:
        app: the application.
        verifier: authenticates and authorizes tokens.
        proxies: the proxies that are trusted to report the client's address.
        public_paths: the templates of the paths that need no token.
        counter: counts the responses.
    """

    def __init__(
        self,
        app: Litestar,
        verifier: Verifier,
        proxies: TrustedProxies,
        public_paths: frozenset[str],
        counter: RequestCounter,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._proxies = proxies
        self._public_paths = public_paths
        self._counter = counter
        self._routes = Routes(app.routes)
        self._ids = _request_ids()

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        # The fast path needs no coroutine for each step.
        headers, query = scope["headers"], scope["query_string"]
        fields = dict(headers)
        client = scope["client"]
        address = self._proxies.client_address(client[0] if client else None, headers)
        traceparent = fields.get(b"traceparent")
        if not request_limits.is_plain(headers, fields, scope["raw_path"], query) and (
            error := request_limits.violation(
                headers, scope["raw_path"], query, may_lack_host=_may_lack_host(scope)
            )
        ):
            context = RequestContext(next(self._ids), NONE, None, address, headers)
            return self._send_error(scope, send, context, self._routes.template(scope["path"]), error)
        if scope["path"].startswith(forward_auth.BEFORE_TARGET):
            query = forward_auth.read_question(headers, query)
            scope["path"], scope["raw_path"] = FORWARD_AUTH_PATH, FORWARD_AUTH_PATH.encode()
            scope["method"], scope["query_string"] = forward_auth.method_of_check(scope["method"]), query
        # The common case: a bearer token, which is looked up in the cache.
        token = only_bearer(headers, fields, query)
        cached = None if token is None else self._verifier.cached(token)
        if token is None or (cached is None and not is_single_token(token)):
            credential = _take(scope)
            context = RequestContext(
                next(self._ids), credential, None, address, scope["headers"], traceparent
            )
            return self._without_cached(scope, receive, send, context)
        del fields[b"authorization"]
        if cached is not None and scope["path"] == FORWARD_AUTH_PATH:
            result = forward_auth.check_from_cache(self._verifier, cached, scope["method"], query)
            if result is not None:
                context = RequestContext(
                    next(self._ids), BEARER, cached, address, fields.items(), traceparent
                )
                return self._send(
                    scope, send, context, FORWARD_AUTH_PATH, result.response, decision=result.decision
                )
        scope["headers"] = list(fields.items())
        credential = Credential("bearer", str(token, "latin-1"))
        context = RequestContext(next(self._ids), credential, cached, address, scope["headers"], traceparent)
        if cached is None:
            return self._without_cached(scope, receive, send, context)
        return self._serve(scope, receive, send, context)

    def _without_cached(
        self, scope: HttpScope, receive: Receive, send: Send, context: RequestContext
    ) -> Coroutine[Any, Any, None]:
        """Handles a request whose token is not in the cache, or which has no token or several."""
        method, path = scope["method"], scope["path"]
        route = self._routes.template(path)
        if not self._requires_token(method, path, route):
            return self._serve(scope, receive, send, context)
        fault = context.credential.fault()
        if fault is None:
            return self._look_up(scope, receive, send, context)
        if (
            fault == "missing_token"
            and client_authentication.may_be_in_body(method, path, context.headers)
            and route != UNROUTED
        ):
            return self._serve(scope, receive, send, context)
        return self._send_error(scope, send, context, route, FAULTS[fault])

    async def _look_up(self, scope: HttpScope, receive: Receive, send: Send, context: RequestContext) -> None:
        try:
            credential, cached = await authenticate(self._verifier, context.credential)
        except (AuthError, Unavailable) as error:
            await self._send_error(scope, send, context, self._routes.template(scope["path"]), error)
        else:
            context = structs.replace(context, credential=credential, cached=cached)
            await self._serve(scope, receive, send, context)

    def _requires_token(self, method: str, path: str, route: str) -> bool:
        """Whether a request without a valid token is rejected. A path that does not exist requires a token too, so that
        clients without one cannot find out which paths exist.
        """
        if method in ROUTED_METHODS:
            return route not in self._public_paths
        return method == "OPTIONS" and path == FORWARD_AUTH_PATH

    async def _serve(self, scope: HttpScope, receive: Receive, send: Send, context: RequestContext) -> None:
        """Calls the application, and records its decision when the response starts."""
        state: RequestState = {"context": context}
        scope["state"] = state
        tracing.serve(context.request_id, context.traceparent)
        method = scope["method"]
        if method not in ROUTED_METHODS and self._routes.template(scope["path"]) == UNROUTED:
            # OPTIONS, and methods without a route, get the same response as at a path that exists.
            scope["path"], scope["raw_path"] = "/", b"/"
        is_head = method == "HEAD"
        if is_head:
            scope["method"] = "GET"
        is_started = False

        async def sending(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                route = scope.get("path_template") or self._routes.template(scope["path"])
                self._counter.count_response(method, message["status"], route)
                headers = [*message["headers"], (b"x-request-id", context.request_id.encode())]
                decision: Decision | None = state.get("decision")
                if decision is not None:
                    self._record(context, decision, route)
                    if decision.quota is not None:
                        headers += rate_limit_fields(decision.quota)
                if context.credential.kind == "query" and message["status"] < 300:
                    headers = [*_without_cache_control(headers), *_NO_STORE]
                message["headers"] = headers
            elif is_head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        try:
            await self._app(cast("Scope", scope), _in_time(receive), sending)
        finally:
            if not is_started and (decision := state.get("decision")):
                self._record(context, decision, scope.get("path_template", UNROUTED))

    def _send_error(
        self,
        scope: HttpScope,
        send: Send,
        context: RequestContext,
        route: str,
        error: ProblemError | AuthError | Unavailable,
    ) -> Coroutine[Any, Any, None]:
        area = _area(scope["path"])
        if isinstance(error, AuthError):
            response = _rejection(area, error.reason, error.detail)
            return self._send(scope, send, context, route, response, decision=error)
        return self._send(scope, send, context, route, error_response(as_problem(error), area))

    async def _send(
        self,
        scope: HttpScope,
        send: Send,
        context: RequestContext,
        route: str,
        response: RawResponse,
        *,
        decision: Decision | None = None,
    ) -> None:
        scope["path_template"] = route
        scope["state"] = {"context": context, "decision": decision, "code": response.code}
        if decision is not None:
            self._record(context, decision, route)
        self._counter.count_response(scope["method"], response.status, route)
        headers = [*response.headers, (b"x-request-id", context.request_id.encode())]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _record(self, context: RequestContext, decision: Decision, route: str) -> None:
        """Counts the final decision. The rejection of an existing token is also written to its log."""
        usage = self._verifier.usage
        if isinstance(decision, Accepted):
            usage.record_accepted(decision.token.id, context.address)
        else:
            usage.record_rejection(decision, context.address, route, context.request_id)


FAULTS: Mapping[DenyReason, AuthError] = {
    reason: AuthError(reason) for reason in ("missing_token", "invalid_request", "invalid_token")
}
"""The rejections of credentials that need no lookup."""
_NO_STORE = ((b"cache-control", b"private, no-store"), (b"referrer-policy", b"no-referrer"))
"""Headers of responses to a request with a token in its URL, which must not be stored (RFC 6750, section 5.3)."""


def _take(scope: HttpScope) -> Credential:
    """Removes the credential from a request's header fields and query string."""
    headers, path = scope["headers"], scope["path"]
    credential, scope["headers"], scope["query_string"] = take(headers, scope["query_string"])
    if path.startswith(OAUTH2_PATHS):
        return client_authentication.with_basic(headers, credential)
    if path == FORWARD_AUTH_PATH and credential == NONE:
        return forwarded(headers)  # a client that cannot set headers, behind a proxy
    return credential


def _without_cache_control(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    return (field for field in headers if field[0] != b"cache-control")


@lru_cache(256)
def _area(path: str) -> str:
    """The prefix of a path that determines the members and headers of its error responses."""
    if path == FORWARD_AUTH_PATH or path.startswith(forward_auth.BEFORE_TARGET):
        return FORWARD_AUTH_PATH
    if path.startswith(API_PATHS):
        return API_PATHS
    return OAUTH2_PATHS if path.startswith(OAUTH2_PATHS) else ""


@lru_cache
def _rejection(area: str, reason: DenyReason, detail: str) -> RawResponse:
    return error_response(ProblemError(reason, detail), area)


def _request_ids() -> Iterator[str]:
    """Generates request ids from a prefix that is unique to this process and a counter, which is cheap."""
    process = new_id("req_")
    last = [f"{number:03x}" for number in range(4096)]
    for number in itertools.count():
        first = f"{process}{number:05x}"
        for suffix in last:
            yield first + suffix


def _may_lack_host(scope: HttpScope) -> bool:
    """Whether this HTTP/1.0 request may lack Host. Load balancers send such health checks; HAProxy sends OPTIONS."""
    # granian reports HTTP/1.0 as "1".
    return scope["http_version"] in {"1", "1.0"} and (
        scope["path"].startswith("/health") or scope["method"] == "OPTIONS"
    )


def _in_time(receive: Receive) -> Receive:
    """Limits the time to receive a body. The server itself would wait for ever."""
    deadline: float | None = None

    async def receiving() -> Any:
        nonlocal deadline
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + BODY_TIMEOUT_S
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - loop.time()))
        except TimeoutError:
            raise ProblemError("request_timeout", headers=request_limits.CLOSE) from None
        # Before the end of the body: the client has disconnected, or its chunks are malformed.
        if message["type"] == "http.disconnect":
            raise ProblemError("bad_request", "the request body is incomplete", headers=request_limits.CLOSE)
        return message

    return receiving

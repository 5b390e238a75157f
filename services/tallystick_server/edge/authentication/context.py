"""The state that a request carries from the middleware to its handler."""

from collections.abc import Collection
from typing import Any, NamedTuple, NotRequired, Required, TypedDict

from litestar import Request
from msgspec import Struct

from tallystick.coherence.cache import CachedToken
from tallystick.contracts.quotas import Quota
from tallystick.contracts.records import Token
from tallystick.errors import AuthError
from tallystick.verifier import Verifier
from tallystick_server.edge.authentication.credentials import Credential
from tallystick_server.edge.http.proxies import TrustedProxies

HttpRequest = Request[Any, Any, Any]


class RequestContext(Struct, frozen=True, gc=False):
    """The sender of a request, as determined without its body.

    Args:
        request_id: the id in ``X-Request-Id``.
        credential: the credential that the request presents.
        cached: the valid token of the credential. None on a public route, and until a credential in a form or a cookie
            has been read.
        address: the client's address.
        headers: the raw header fields, without the credential.
        traceparent: the trace that the request belongs to (W3C Trace Context).
    """

    request_id: str
    credential: Credential
    cached: CachedToken | None
    address: str | None
    headers: Collection[tuple[bytes, bytes]]
    traceparent: bytes | None = None

    @property
    def referrer(self) -> str | None:
        """The Referer header."""
        return next((str(value, "latin-1") for name, value in self.headers if name == b"referer"), None)


class RequestState(TypedDict, total=False):
    """The ASGI state of a request.

    Args:
        context: the sender of the request.
        decision: the decision on the request; absent until it is made, and on a public route.
        code: the code of an error response, for the access log.
        form: the declared fields of its form.
    """

    context: Required[RequestContext]
    decision: "Decision | None"
    code: str | None
    form: dict[str, str]


class HttpScope(TypedDict):
    """The used keys of an ASGI connection scope of type ``http``."""

    type: str
    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: Collection[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    state: RequestState
    path_template: NotRequired[str]


class Accepted(NamedTuple):
    """The decision to accept a request.

    Args:
        token: the token of the request.
        quota: the state of its rate limit, if it has one.
    """

    token: Token
    quota: Quota | None = None


Decision = Accepted | AuthError


def state_of(request: HttpRequest) -> RequestState:
    state: RequestState = request.scope["state"]  # type: ignore[assignment]  # set by the middleware
    return state


def context_of(request: HttpRequest) -> RequestContext:
    return state_of(request)["context"]


def set_context(request: HttpRequest, context: RequestContext) -> None:
    """Replaces the context once a credential in the body or the cookie has been read."""
    state_of(request)["context"] = context


def accepted(request: HttpRequest) -> Accepted | None:
    """The decision, if the request was accepted; None if its route is public or it was rejected."""
    decision = state_of(request).get("decision")
    return decision if isinstance(decision, Accepted) else None


def token_of(request: HttpRequest) -> Token:
    """The token of an accepted request.

    Raises:
        RuntimeError: the route is public, so the request has no token.
    """
    decision = accepted(request)
    if decision is None:
        raise RuntimeError("a public route has no token")
    return decision.token


def decide(request: HttpRequest, decision: Decision) -> None:
    """Sets the decision. The middleware records it when the response starts."""
    state_of(request)["decision"] = decision


def set_error(request: HttpRequest, code: str, error: Exception) -> None:
    """Sets the code of an error response for the access log and, if the credential is rejected, the decision."""
    state_of(request)["code"] = code
    if isinstance(error, AuthError):
        decide(request, error)


def form_of(request: HttpRequest) -> dict[str, str]:
    """The declared fields of this request's form."""
    return state_of(request)["form"]


def verifier_of(request: HttpRequest) -> Verifier:
    verifier: Verifier = request.app.state.verifier
    return verifier


def proxies_of(request: HttpRequest) -> TrustedProxies:
    proxies: TrustedProxies = request.app.state.proxies
    return proxies

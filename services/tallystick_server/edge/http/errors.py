"""Maps every error to its HTTP response: one status for each code, one body (RFC 9457), one challenge (RFC 6750).

The body also has members for clients of older APIs: under ``/oauth2/`` the ``error`` of RFC 6749, and under ``/v1/``
the members that EmailEngine's clients read. Under ``/oauth2/`` a 401 has a second challenge (RFC 7617).
"""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.exceptions.http_exceptions import MethodNotAllowedException, NotFoundException
from litestar.response.base import ASGIResponse
from msgspec import UNSET, UnsetType

from tallystick.contracts.input_limits import without_input
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import Token
from tallystick.errors import AuthError, Overloaded, Unavailable
from tallystick_server.edge.authentication.context import HttpRequest, set_error

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
REALM = 'Bearer realm="tallystick"'
BASIC_CHALLENGE = 'Basic realm="tallystick"'
OAUTH2_PATHS = "/oauth2/"
"""Under this prefix clients may authenticate as OAuth 2 clients do; see `edge.authentication.client_authentication`."""
API_PATHS = "/v1/"
"""The prefix of the management API, which includes the routes for EmailEngine's clients."""

FORWARD_AUTH_PATH = "/auth"
PROBLEM_HEADER = "x-token-problem"
"""Holds the body of a rejection at `FORWARD_AUTH_PATH`: nginx's auth_request can pass on headers only."""


def etag(token: Token) -> str:
    """The entity tag of a token's record: its revision."""
    return f'"{token.revision}"'


class Kind(NamedTuple):
    status: int
    title: str
    challenge: str | None = None


KINDS: Mapping[str, Kind] = {
    "missing_token": Kind(401, "Access token required", REALM),
    "invalid_token": Kind(401, "Invalid access token", f'{REALM}, error="invalid_token"'),
    "invalid_request": Kind(400, "Malformed or multiple credentials", f'{REALM}, error="invalid_request"'),
    "insufficient_scope": Kind(403, "Insufficient scope", f'{REALM}, error="insufficient_scope"'),
    "account_mismatch": Kind(403, "The token is bound to an account that the request does not name"),
    "address_not_allowed": Kind(403, "IP address not allowed"),
    "referrer_not_allowed": Kind(403, "Referrer not allowed"),
    "exceeds_authority": Kind(403, "Cannot grant more than your token has"),
    "rate_limited": Kind(429, "Rate limit exceeded"),
    "bad_request": Kind(400, "Invalid request"),
    "not_found": Kind(404, "Not found"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "request_timeout": Kind(408, "Timed out waiting for the request body"),
    "conflict": Kind(409, "Conflict"),
    "stale": Kind(412, "The token has changed since it was read"),
    "content_too_large": Kind(413, "Request body too large"),
    "uri_too_long": Kind(414, "Request target too long"),
    "unsupported_media_type": Kind(415, "Unsupported media type"),
    "header_fields_too_large": Kind(431, "Request header fields too large"),
    "internal": Kind(500, "Internal server error"),
    "overloaded": Kind(503, "Service overloaded"),
    "unavailable": Kind(503, "Service unavailable"),
}
"""Status, title and challenge by code. A code that is not here is a bug and gets 500."""


class ProblemError(Exception):
    """A request that gets an error response.

    Args:
        code: the error, of `KINDS`.
        detail: what is wrong with this request. It never repeats input.
        errors: all invalid fields.
        scope: the scope that the token must cover.
        address: the client's address.
        current: the current version of the token, for ``stale``.
        headers: further headers of the response.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: tuple[FieldError, ...] = (),
        scope: str | None = None,
        address: str | None = None,
        current: Token | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.scope = scope
        self.address = address
        self.current = current
        self.headers = dict(headers or {})

    @classmethod
    def from_failure(cls, failure: Failure) -> "ProblemError":
        """The error to send to the client for a service's failure."""
        return cls(
            failure.code,
            failure.message,
            errors=failure.errors,
            scope=failure.scope,
            current=failure.current,
        )


class Problem(msgspec.Struct, kw_only=True, rename="camel"):
    """Why a request was rejected (RFC 9457).

    Args:
        code: the machine-readable error code.
        detail: what is wrong with this request. It never repeats input.
        errors: all invalid fields.
        scope: the scope that the token must cover.
        address: the IP address that the request came from.
        ttl: seconds until the rate limit admits the next request; only for ``rate_limited``.
        current: the current version of the token; only for ``stale``.
        error: under ``/oauth2/`` the error code of RFC 6749, section 5.2, or RFC 6750, section 3.1; under ``/v1/`` the
            status in words, for EmailEngine's clients.
        message: the detail, else the title; under ``/v1/`` only, for EmailEngine's clients.
        status_code: the status again; under ``/v1/`` only, for EmailEngine's clients.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str | UnsetType = UNSET
    errors: tuple[FieldError, ...] | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    address: str | UnsetType = UNSET
    ttl: int | UnsetType = UNSET
    current: Token | UnsetType = UNSET
    error: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    status_code: int | UnsetType = UNSET


class RawResponse(NamedTuple):
    """A complete ASGI response, except for the ``X-Request-Id`` header.

    Args:
        status: the status code.
        headers: the header fields.
        body: the body.
        code: the code of an error response.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    code: str | None = None


class ErrorParts(NamedTuple):
    """An error response before it is sent, with or without the framework."""

    status: int
    headers: dict[str, str]
    body: bytes


def parts(error: ProblemError, path: str = "") -> ErrorParts:
    """The parts of an error response.

    Args:
        error: the error.
        path: the path of the request. It decides whether the response has members for clients of older APIs, and
            whether it has `PROBLEM_HEADER`.
    """
    kind = KINDS.get(error.code, KINDS["internal"])
    code = error.code if error.code in KINDS else "internal"
    body = Problem(title=kind.title, status=kind.status, code=code)
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **error.headers}
    if error.detail and code not in {"invalid_token", "internal"}:
        body.detail = error.detail
    if error.errors:
        body.errors = error.errors
    if error.scope is not None:
        body.scope = error.scope
    if error.address is not None:
        body.address = error.address
    if kind.status == 429:
        body.ttl = int(headers["retry-after"]) if "retry-after" in headers else UNSET
    if error.current is not None:
        body.current = error.current
        headers["etag"] = etag(error.current)
    _add_members_of_older_apis(body, path)
    if kind.challenge:
        scope = f', scope="{error.scope}"' if error.scope is not None else ""
        headers["www-authenticate"] = kind.challenge + scope
    if kind.status == 503:
        headers["retry-after"] = "1"
    encoded = msgspec.json.encode(body)
    if path == FORWARD_AUTH_PATH:
        headers[PROBLEM_HEADER] = encoded.decode("latin-1")
    return ErrorParts(kind.status, headers, encoded)


def _add_members_of_older_apis(body: Problem, path: str) -> None:
    if path.startswith(OAUTH2_PATHS):
        body.error = _oauth2_error(body.code, body.status)
    elif path.startswith(API_PATHS):
        body.error = HTTPStatus(body.status).phrase
        body.message = body.detail or body.title
        body.status_code = body.status


def _oauth2_error(code: str, status: int) -> str:
    match status:
        case 401:
            return "invalid_client"
        case 403:
            return code if code == "insufficient_scope" else "unauthorized_client"
        case 429 | 503:
            return "temporarily_unavailable"
        case _:
            return "invalid_request" if status < 500 else "server_error"


def error_response(error: ProblemError, path: str = "") -> RawResponse:
    """An error response that is sent without the framework."""
    status, headers, body = parts(error, path)
    response = raw_response(status, headers, body)
    if status == 401 and path.startswith(OAUTH2_PATHS):
        challenge = (b"www-authenticate", BASIC_CHALLENGE.encode())
        response = response._replace(headers=(*response.headers, challenge))
    return response._replace(code=error.code)


def raw_response(status: int, headers: Mapping[str, str], body: bytes = b"") -> RawResponse:
    fields = {**headers, "content-length": str(len(body))}
    return RawResponse(
        status, tuple((name.encode(), value.encode("latin-1")) for name, value in fields.items()), body
    )


def handle_exception(request: HttpRequest, error: Exception) -> Response[bytes]:
    """Litestar's handler of all exceptions."""
    path = request.scope["path"]
    problem = as_problem(error)
    set_error(request, problem.code, error)
    status, headers, body = parts(problem, path)
    del headers["content-type"]  # Litestar derives it from the media type
    kind = _WithBasicChallenge if status == 401 and path.startswith(OAUTH2_PATHS) else Response[bytes]
    return kind(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


class _WithBasicChallenge(Response[bytes]):
    """Adds a second ``WWW-Authenticate`` header, which Litestar's own response cannot hold. Many clients read only
    the first challenge of a header.
    """

    def to_asgi_response(self, *args: Any, **options: Any) -> ASGIResponse:
        response = super().to_asgi_response(*args, **options)
        response.headers.add("www-authenticate", BASIC_CHALLENGE)
        return response


def as_problem(error: Exception) -> ProblemError:  # noqa: PLR0911  # one for each kind
    """The error to send to the client for an exception."""
    match error:
        case ProblemError():
            return error
        case AuthError():
            return _of_auth_error(error)
        case Overloaded():
            return ProblemError("overloaded")
        case Unavailable():
            return ProblemError("unavailable")
        case MethodNotAllowedException():
            allowed = set((error.headers or {}).get("allow", "").split(", "))
            allowed |= {"HEAD"} if "GET" in allowed else set()
            return ProblemError("method_not_allowed", headers={"allow": ", ".join(sorted(allowed))})
        case NotFoundException():
            return ProblemError("not_found")
        case ValidationException():
            return ProblemError("bad_request", errors=_field_errors(error))
        case HTTPException(status_code=status) if status < 500:
            code = next((code for code, kind in KINDS.items() if kind.status == status), "bad_request")
            return ProblemError("bad_request" if code == "invalid_request" else code)
        case _:
            # The exception's text may repeat input, so only its type and traceback are logged.
            log.error("unexpected %s", type(error).__name__, exc_info=error)
            return ProblemError("internal")


def _of_auth_error(error: AuthError) -> ProblemError:
    quota = error.quota
    return ProblemError(
        error.reason,
        error.detail,
        scope=error.scope,
        address=error.address,
        headers={"retry-after": str(max(1, math.ceil(quota.resets_in)))} if quota is not None else None,
    )


_PARAMETERS = {
    "in_state": "state",
    "page_size": "pageSize",
    "granted": "scope",
    "search": "query",
    "unused_since": "unusedSince",
    "dry_run": "dryRun",
}
"""Query parameters by the names of the handlers' arguments, where the two differ."""


def _field_errors(error: ValidationException) -> tuple[FieldError, ...]:
    extra = error.extra if isinstance(error.extra, list) else []
    return tuple(
        FieldError(
            field=_PARAMETERS.get(key := str(item.get("key", "")), key),
            message=without_input(str(item.get("message", ""))),
        )
        for item in extra
        if isinstance(item, dict)
    )

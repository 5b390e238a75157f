"""Authenticates the users of the dashboard: a browser has a session, which acts for a token with scope ``admin``.

The browser stores a random secret in a cookie that scripts cannot read; the tokens service stores its digest. The edge
caches no sessions, so a session ends with its token, at every edge at once.
"""

import hmac
import secrets
from collections import OrderedDict
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from litestar.datastructures import Cookie
from msgspec import structs
from nats.aio.client import Client

from tallystick.coherence.cache import CachedToken
from tallystick.coherence.clock import boot_time
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.sessions import RESUME_SESSION, SIGN_IN, SIGN_OUT, ResumeSession, SignIn, SignOut
from tallystick.contracts.verification import Verdict
from tallystick.errors import AuthError
from tallystick.rpc.call import call
from tallystick.tokens import addresses, format as token_format
from tallystick_server.edge.api.upstream import bounded_referrer
from tallystick_server.edge.authentication.context import (
    Accepted,
    HttpRequest,
    accepted,
    context_of,
    decide,
    proxies_of,
    set_context,
    verifier_of,
)
from tallystick_server.edge.authentication.credentials import Credential, session_digest
from tallystick_server.edge.authorization.guard import access_to, admit
from tallystick_server.edge.authorization.routes import RouteRules
from tallystick_server.edge.http.bodies import FORM
from tallystick_server.edge.http.errors import ProblemError
from tallystick_server.edge.http.parameters import form_fields

ADMIN = "admin"
"""The scope that a session's token needs."""
COOKIE = "tallystick"
LASTS_S = 12 * 3600
"""How long the browser keeps the cookie. The tokens service ends the session after the same time."""


class SignInNeeded(Exception):
    """The request has no session, or the session has ended."""


class Forged(Exception):
    """A form was not sent by a page of this session. The text says what to do."""


class TooManyAttempts(Exception):
    """Too many failed attempts to sign in from one address."""


async def authenticate_session(request: HttpRequest, rules: RouteRules) -> None:
    """Authenticates and authorizes a request of a session.

    Raises:
        SignInNeeded: the request has no session.
        Forged: the form was not sent by a page of this session.
        AuthError: the token does not allow the request.
        Unavailable: the tokens service does not reply.
    """
    secret = await _secret(request)
    if secret is None:
        raise SignInNeeded
    credential = Credential("session", secret)
    cached = await _resume(request, secret)
    if request.method == "POST":
        # Checked before the form is read, and again after it: a slow form may outlast the session.
        verifier_of(request).check(cached.token, access_to(request, rules.scope))
        csrf_token = (await form(request)).get("csrf", "")
        _check_origin(request)
        if not hmac.compare_digest(csrf_token.encode(), csrf(secret).encode()):
            raise Forged("The form belongs to another session. Reload the page and try again.")
        cached = await _resume(request, secret)
    context = structs.replace(context_of(request), credential=credential, cached=cached)
    set_context(request, context)
    await admit(request, access_to(request, rules.scope))


async def sign_in(request: HttpRequest, *, token: str | None = None, link: str | None = None) -> Cookie:
    """Starts a session with a token or with the secret of a login link.

    Raises:
        Forged: another site sent the form.
        AuthError: the token is not valid, or does not allow the use of the dashboard.
        ProblemError: the tokens service does not reply.
    """
    _check_origin(request)
    name = await _name(request)  # may fail, so before the login link is used up
    token = None if token is None else token_format.digest(token.strip())
    if token is None and link is None:
        raise AuthError("invalid_token")
    secret = secrets.token_urlsafe(32)
    context = context_of(request)
    by = Actor(
        token=None if link else token,
        address=context.address,
        referrer=bounded_referrer(context.referrer),
        request_id=context.request_id,
    )
    client: Client = request.app.state.client
    question = SignIn(session=session_digest(secret), actor=by, link=session_digest(link) if link else None)
    verdict = await call(client, SIGN_IN, question)
    if isinstance(verdict, Failure):
        raise ProblemError.from_failure(verdict)
    if verdict.code != "active" or verdict.token is None:
        raise _rejection(verdict)
    decide(request, Accepted(verdict.token))
    return cookie(request, name, secret, LASTS_S)


def _rejection(verdict: Verdict) -> AuthError:
    if verdict.code == "active":
        raise RuntimeError("the tokens service accepted a token without returning it")
    refused = verdict.refused
    return AuthError(
        verdict.code,
        token_id=verdict.token.id if verdict.token else refused.id if refused else None,
        log_reason=refused.log_reason if refused else verdict.code,
        scope=ADMIN if verdict.code == "insufficient_scope" else None,
        quota=verdict.quota,
    )


async def sign_out(request: HttpRequest) -> Cookie:
    """Ends the session, and returns the cookie that removes it from the browser."""
    name, secret = await _name(request), await _secret(request)
    if secret is not None:
        client: Client = request.app.state.client
        reply = await call(client, SIGN_OUT, SignOut(session=session_digest(secret)))
        if isinstance(reply, Failure):
            raise ProblemError.from_failure(reply)
    return cookie(request, name, "", 0)


def csrf_of(request: HttpRequest) -> str:
    """The CSRF token of this request's session; empty without a session that is authorized for the dashboard."""
    credential = context_of(request).credential
    return csrf(credential.value) if credential.kind == "session" and accepted(request) else ""


def csrf(secret: str) -> str:
    """The CSRF token of a session, which every form contains. Other sites cannot read it."""
    return hmac.new(secret.encode(), b"csrf", sha256).hexdigest()


def _check_origin(request: HttpRequest) -> None:
    """Rejects a form from another site, by what the browser sends: Fetch Metadata, or else Origin.

    Raises:
        Forged: another site sent the form, or the edge does not know the host that the browser addressed.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise Forged("Another site sent this form. Open the page in the dashboard and try again.")
        return
    origin = request.headers.get("origin")
    hosts = proxies_of(request).hosts(_peer(request), context_of(request).headers)
    if origin is None or _is_origin_of(origin, hosts):
        return
    raise Forged(
        f"The browser sent this form from {origin}, but the request's host is {' or '.join(hosts)}. If a reverse proxy is in "
        "front of the dashboard, configure it to pass on the original Host header (nginx: proxy_set_header Host "
        "$http_host), or to send X-Forwarded-Host, and list the proxy in TALLYSTICK_TRUSTED_PROXIES."
    )


def _is_origin_of(origin: str, hosts: tuple[str, ...]) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme)
    # Browsers omit the default port from Origin; proxies do not always omit it from the host.
    return default_port is not None and authority in {
        host.lower().removesuffix(default_port) for host in hosts
    }


async def form(request: HttpRequest) -> dict[str, str]:
    """The fields of a form. Several values of one field are joined by line breaks.

    Raises:
        ProblemError: the body is not a form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        raise ProblemError("unsupported_media_type", f"the body must be {FORM}")
    fields: dict[str, list[str]] = {}
    for name, value in form_fields(await request.body()):
        fields.setdefault(name, []).append(value)
    return {name: "\n".join(values) for name, values in fields.items()}


async def _resume(request: HttpRequest, secret: str) -> CachedToken:
    """The token of a session.

    Raises:
        SignInNeeded: the session has ended.
        ProblemError: the tokens service does not reply.
    """
    client: Client = request.app.state.client
    verdict = await call(client, RESUME_SESSION, ResumeSession(session=session_digest(secret)))
    if isinstance(verdict, Failure):
        raise ProblemError.from_failure(verdict)
    if verdict.token is None:
        raise SignInNeeded
    return CachedToken(verdict.token, float("inf"))  # for this request only


def cookies_of(request: HttpRequest) -> dict[str, str]:
    """The cookies as sent. The framework's parser is not used: it caches its input, including secrets."""
    cookies = {}
    for header in request.headers.getall("cookie", []):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            cookies[name.strip()] = value.strip()
    return cookies


async def _secret(request: HttpRequest) -> str | None:
    cookies = cookies_of(request)
    # Without a cookie, the login page must be reachable even if the tokens service does not reply.
    if not any(COOKIE in name for name in cookies):
        return None
    return cookies.get(await _name(request))


def cookie(request: HttpRequest, name: str, value: str, lasts_s: int) -> Cookie:
    """A cookie that scripts cannot read and that forms of other sites do not send."""
    return Cookie(
        key=name,
        value=value,
        max_age=lasts_s,
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_encrypted(request),
    )


def of_this_host(request: HttpRequest, name: str) -> str:
    """The name of a cookie that, over HTTPS, only this host can set."""
    return f"__Host-{name}" if is_encrypted(request) else name


def is_encrypted(request: HttpRequest) -> bool:
    """Whether the browser uses HTTPS, by the socket or by the headers of trusted proxies."""
    scheme, headers = request.scope["scheme"], context_of(request).headers
    return proxies_of(request).is_encrypted(scheme, _peer(request), headers)


def _peer(request: HttpRequest) -> str | None:
    client = request.scope["client"]
    return client[0] if client else None


async def _name(request: HttpRequest) -> str:
    names: CookieNames = request.app.state.cookie_names
    name = await names.get(request.app.state.client)
    return of_this_host(request, name)


class CookieNames:
    """The name of the session cookie. It contains the installation: all ports of a host share cookies, so another
    installation on the host would overwrite the session.
    """

    FRESH_S = 60.0
    """A restore may change the installation; see `tallystick.contracts.TokensStats`."""

    def __init__(self) -> None:
        self._name = COOKIE
        self._ends = 0.0

    async def get(self, client: Client) -> str:
        """Raises:
        ProblemError: the tokens service does not reply.
        """
        if boot_time() >= self._ends:
            stats = await call(client, TOKENS_STATS, AskTokensStats())
            if isinstance(stats, Failure):
                raise ProblemError.from_failure(stats)
            self._name = f"{COOKIE}-{stats.installation}" if stats.installation else COOKIE
            self._ends = boot_time() + self.FRESH_S
        return self._name


class Attempts:
    """Limits the failed attempts to sign in by address. Each edge counts for itself, for a bounded number of addresses."""

    MAX_ATTEMPTS = 10
    WINDOW_S = 60.0
    ADDRESSES = 10_000

    def __init__(self) -> None:
        self._counts: OrderedDict[Any, tuple[int, float]] = OrderedDict()

    def start(self, address: str | None) -> None:
        """Counts an attempt before it is checked, so that concurrent attempts are limited too.

        Raises:
            TooManyAttempts: the address has reached the limit of the current window.
        """
        key = _client_key(address)
        count, ends = self._counts.pop(key, (0, 0.0))
        if boot_time() >= ends:
            count, ends = 0, boot_time() + self.WINDOW_S
        self._counts[key] = (min(count + 1, self.MAX_ATTEMPTS), ends)
        if len(self._counts) > self.ADDRESSES:
            self._counts.popitem(last=False)
        if count >= self.MAX_ATTEMPTS:
            raise TooManyAttempts

    def refund(self, address: str | None) -> None:
        """Uncounts an attempt that was not a wrong guess."""
        key = _client_key(address)
        count, ends = self._counts.get(key, (0, 0.0))
        if count:
            self._counts[key] = (count - 1, ends)


def _client_key(address: str | None) -> Any:
    """The address, or the network of an IPv6 address: an IPv6 client can use any address of its network."""
    parsed = addresses.address(address or "")
    return IPv6Network((parsed, 64), strict=False) if isinstance(parsed, IPv6Address) else parsed

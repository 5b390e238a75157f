"""Who may use the dashboard: a browser with a session, which acts for a token of scope ``admin``.

The browser holds a random secret in a cookie that no script can read; the tokens service holds its digest. Nothing
about it is remembered here, so a session ends with its token, everywhere at once.
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
"""How long the browser keeps the cookie; the tokens service ends the session by then."""


class SignInNeeded(Exception):
    """There is no session, or none any more."""


class Forged(Exception):
    """A change that did not come from a page of this session. Its text says what to do."""


class TooManyAttempts(Exception):
    """Somebody at this address guesses."""


async def authenticate_session(request: HttpRequest, rules: RouteRules) -> None:
    """Authenticates and authorizes a request of a session.

    Raises:
        SignInNeeded: it has none.
        Forged: it changes something and was not sent by a page of this session.
        AuthError: the token may not use the dashboard, or not from there.
        Unavailable: this cannot be decided now.
    """
    secret = await _secret(request)
    if secret is None:
        raise SignInNeeded
    credential = Credential("session", secret)
    cached = await _resume(request, secret)
    if request.method == "POST":
        # Before the form, which may take its time, and after it, when the session may have ended.
        verifier_of(request).check(cached.token, access_to(request, rules.scope))
        sent = (await form(request)).get("csrf", "")
        _check_origin(request)
        if not hmac.compare_digest(sent.encode(), csrf(secret).encode()):
            raise Forged("The form belongs to another session. Open the page again.")
        cached = await _resume(request, secret)
    context = structs.replace(context_of(request), credential=credential, cached=cached)
    set_context(request, context)
    await admit(request, access_to(request, rules.scope))


async def sign_in(request: HttpRequest, *, token: str | None = None, link: str | None = None) -> Cookie:
    """Begins a session for a token, or by a link's secret.

    Raises:
        Forged: another site sent this.
        AuthError: the token is not valid, or may not use the dashboard.
        ProblemError: this cannot be decided now.
    """
    _check_origin(request)
    name = await _name(request)  # before a link is used up
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
        raise ProblemError.of(verdict)
    if verdict.code != "active" or verdict.token is None:
        raise _rejection(verdict)
    decide(request, Accepted(verdict.token))
    return cookie(request, name, secret, LASTS_S)


def _rejection(verdict: Verdict) -> AuthError:
    if verdict.code == "active":
        raise RuntimeError("the tokens service accepts a token and does not name it")
    refused = verdict.refused
    return AuthError(
        verdict.code,
        token_id=verdict.token.id if verdict.token else refused.id if refused else None,
        log_reason=refused.log_reason if refused else verdict.code,
        scope=ADMIN if verdict.code == "insufficient_scope" else None,
        quota=verdict.quota,
    )


async def sign_out(request: HttpRequest) -> Cookie:
    """Ends the session, and answers what makes the browser forget it."""
    name, secret = await _name(request), await _secret(request)
    if secret is not None:
        client: Client = request.app.state.client
        ended = await call(client, SIGN_OUT, SignOut(session=session_digest(secret)))
        if isinstance(ended, Failure):
            raise ProblemError.of(ended)
    return cookie(request, name, "", 0)


def csrf_of(request: HttpRequest) -> str:
    """What the forms of this request's session hold; empty without a session that may use the dashboard."""
    credential = context_of(request).credential
    return csrf(credential.value) if credential.kind == "session" and accepted(request) else ""


def csrf(secret: str) -> str:
    """What every form of a session holds; nobody can tell it who cannot read the session's pages."""
    return hmac.new(secret.encode(), b"csrf", sha256).hexdigest()


def _check_origin(request: HttpRequest) -> None:
    """Rejects what a page of another site sent, as far as the browser says (Fetch Metadata, or Origin).

    Raises:
        Forged: another site sent it, or the edge does not know by which name the browser addressed it.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise Forged("Another site sent this form. Open the page here and send it again.")
        return
    origin = request.headers.get("origin")
    hosts = proxies_of(request).hosts(_peer(request), context_of(request).headers)
    if origin is None or _is_origin_of(origin, hosts):
        return
    raise Forged(
        f"The browser sent this form from a page of {origin}, but asked this edge as {' or '.join(hosts)}. If that is one "
        "site behind a reverse proxy, have the proxy pass on the host that the browser names (nginx: proxy_set_header Host "
        "$http_host), or send it as X-Forwarded-Host and list the proxy in TALLYSTICK_TRUSTED_PROXIES."
    )


def _is_origin_of(origin: str, hosts: tuple[str, ...]) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme)
    # Browsers leave the default port out of the Origin, proxies not always.
    return default_port is not None and authority in {
        host.lower().removesuffix(default_port) for host in hosts
    }


async def form(request: HttpRequest) -> dict[str, str]:
    """The fields of a form; of several with one name, all values, a line each.

    Raises:
        ProblemError: the body is no form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        raise ProblemError("unsupported_media_type", "a form is needed")
    fields: dict[str, list[str]] = {}
    for name, value in form_fields(await request.body()):
        fields.setdefault(name, []).append(value)
    return {name: "\n".join(values) for name, values in fields.items()}


async def _resume(request: HttpRequest, secret: str) -> CachedToken:
    """The token of a session.

    Raises:
        SignInNeeded: the session has ended.
        ProblemError: this cannot be told now.
    """
    client: Client = request.app.state.client
    verdict = await call(client, RESUME_SESSION, ResumeSession(session=session_digest(secret)))
    if isinstance(verdict, Failure):
        raise ProblemError.of(verdict)
    if verdict.token is None:
        raise SignInNeeded
    return CachedToken(verdict.token, float("inf"))  # for this request only


def cookies_of(request: HttpRequest) -> dict[str, str]:
    """The cookies, as they were sent. The framework's own parser would keep them, with the secrets they hold."""
    cookies = {}
    for header in request.headers.getall("cookie", []):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            cookies[name.strip()] = value.strip()
    return cookies


async def _secret(request: HttpRequest) -> str | None:
    cookies = cookies_of(request)
    # Who has no cookie is led to signing in even if the tokens service does not answer.
    if not any(COOKIE in name for name in cookies):
        return None
    return cookies.get(await _name(request))


def cookie(request: HttpRequest, name: str, value: str, lasts_s: int) -> Cookie:
    """A cookie that no script can read, and that other sites' forms do not send."""
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
    """The name of a cookie that, over HTTPS, browsers take from nobody but this very host."""
    return f"__Host-{name}" if is_encrypted(request) else name


def is_encrypted(request: HttpRequest) -> bool:
    """Whether the browser speaks HTTPS, as far as the proxies in between are trusted."""
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
    """The name of the cookie. It has the installation in it: cookies are shared by all ports of a host, and another
    installation there would replace this one's session.
    """

    FRESH_S = 60.0
    """After a restore it is another database; see `tallystick.contracts.TokensStats`."""

    def __init__(self) -> None:
        self._name = COOKIE
        self._ends = 0.0

    async def get(self, client: Client) -> str:
        """Raises:
        ProblemError: the tokens service does not answer.
        """
        if boot_time() >= self._ends:
            stats = await call(client, TOKENS_STATS, AskTokensStats())
            if isinstance(stats, Failure):
                raise ProblemError.of(stats)
            self._name = f"{COOKIE}-{stats.installation}" if stats.installation else COOKIE
            self._ends = boot_time() + self.FRESH_S
        return self._name


class Attempts:
    """Bounds how often an address may try to sign in: by this edge, and for a bounded number of addresses."""

    MAX_ATTEMPTS = 10
    WINDOW_S = 60.0
    ADDRESSES = 10_000

    def __init__(self) -> None:
        self._counted: OrderedDict[Any, tuple[int, float]] = OrderedDict()

    def start(self, address: str | None) -> None:
        """Counts an attempt before it is judged, so that many at once are not judged all.

        Raises:
            TooManyAttempts: this address has made as many in the last minute as it may.
        """
        key = _whose(address)
        count, ends = self._counted.pop(key, (0, 0.0))
        if boot_time() >= ends:
            count, ends = 0, boot_time() + self.WINDOW_S
        self._counted[key] = (min(count + 1, self.MAX_ATTEMPTS), ends)
        if len(self._counted) > self.ADDRESSES:
            self._counted.popitem(last=False)
        if count >= self.MAX_ATTEMPTS:
            raise TooManyAttempts

    def refund(self, address: str | None) -> None:
        """Takes back an attempt that was no wrong guess."""
        key = _whose(address)
        count, ends = self._counted.get(key, (0, 0.0))
        if count:
            self._counted[key] = (count - 1, ends)


def _whose(address: str | None) -> Any:
    """An IPv6 client has as many addresses as it likes within its network."""
    found = addresses.address(address or "")
    return IPv6Network((found, 64), strict=False) if isinstance(found, IPv6Address) else found

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
from nats.aio.client import Client

from tallystick.coherence.cache import Entry
from tallystick.coherence.invalidation import now
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.sessions import RESUME_SESSION, SIGN_IN, SIGN_OUT, ResumeSession, SignIn, SignOut
from tallystick.errors import Refused
from tallystick.rpc.call import call
from tallystick.tokens import addresses, format as token_format
from tallystick_server.edge.api.upstream import bounded_referrer
from tallystick_server.edge.authorization.guard import FORM, HttpRequest, gate_of, referrer
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


async def admit(request: HttpRequest) -> None:
    """Lets a request with a session in, to do what its token may.

    Raises:
        SignInNeeded: it has none.
        Forged: it changes something and was not sent by a page of this session.
        Refused: the token may not use the dashboard, or not from there; or this cannot be told now.
    """
    secret = await _secret(request)
    if secret is None:
        raise SignInNeeded
    state = request.scope["state"]
    entry = await _resume(request, secret)
    if request.method == "POST":
        # Before the form, which may take its time, and after it, when the session may have ended.
        gate_of(request).screen_known(request.scope, entry, ADMIN)
        sent = (await form(request)).get("csrf", "")
        _check_origin(request)
        if not hmac.compare_digest(sent.encode(), csrf(secret).encode()):
            raise Forged("The form belongs to another session. Open the page again.")
        entry = await _resume(request, secret)
    await gate_of(request).let_in(request.scope, entry, ADMIN)
    state["session"] = _digest(secret)
    state["csrf"] = csrf(secret)


async def sign_in(request: HttpRequest, *, token: str | None = None, link: str | None = None) -> Cookie:
    """Begins a session for a token, or by a link's secret.

    Raises:
        Forged: another site sent this.
        Refused: the token is not honoured, or may not use the dashboard, or this cannot be told now.
    """
    _check_origin(request)
    name = await _name(request)  # before a link is used up
    token = None if token is None else token_format.digest(token.strip())
    if token is None and link is None:
        raise Refused("invalid_token")
    secret = secrets.token_urlsafe(32)
    gate = gate_of(request)
    address = gate.address_of(request.scope)
    by = Actor(
        token=None if link else token,
        address=address,
        referrer=bounded_referrer(referrer(request.scope)),
        request_id=request.scope["state"]["request_id"],
    )
    client: Client = request.app.state.client
    verdict = await call(
        client, SIGN_IN, SignIn(session=_digest(secret), actor=by, link=_digest(link) if link else None)
    )
    if isinstance(verdict, Failure):
        raise Refused.of(verdict)
    if verdict.code != "active" or verdict.token is None:
        gate.reject(request.scope, verdict)
    gate.usage.used(verdict.token.id, address)
    return cookie(request, name, secret, LASTS_S)


async def sign_out(request: HttpRequest) -> Cookie:
    """Ends the session, and answers what makes the browser forget it."""
    name, secret = await _name(request), await _secret(request)
    if secret is not None:
        client: Client = request.app.state.client
        ended = await call(client, SIGN_OUT, SignOut(session=_digest(secret)))
        if isinstance(ended, Failure):
            raise Refused.of(ended)
    return cookie(request, name, "", 0)


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
    hosts = gate_of(request).hosts_of(request.scope)
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
        Refused: the body is no form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        raise Refused("unsupported_media_type", "a form is needed")
    fields: dict[str, list[str]] = {}
    for name, value in form_fields(await request.body()):
        fields.setdefault(name, []).append(value)
    return {name: "\n".join(values) for name, values in fields.items()}


async def _resume(request: HttpRequest, secret: str) -> Entry:
    """The token of a session.

    Raises:
        SignInNeeded: the session has ended.
        Refused: this cannot be told now.
    """
    client: Client = request.app.state.client
    verdict = await call(client, RESUME_SESSION, ResumeSession(session=_digest(secret)))
    if isinstance(verdict, Failure):
        raise Refused.of(verdict)
    if verdict.token is None:
        raise SignInNeeded
    return Entry(verdict.token, float("inf"))  # for this request only


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
        secure=gate_of(request).is_encrypted(request.scope),
    )


def of_this_host(request: HttpRequest, name: str) -> str:
    """The name of a cookie that, over HTTPS, browsers take from nobody but this very host."""
    return f"__Host-{name}" if gate_of(request).is_encrypted(request.scope) else name


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
        Refused: the tokens service does not answer.
        """
        if now() >= self._ends:
            stats = await call(client, TOKENS_STATS, AskTokensStats())
            if isinstance(stats, Failure):
                raise Refused.of(stats)
            self._name = f"{COOKIE}-{stats.installation}" if stats.installation else COOKIE
            self._ends = now() + self.FRESH_S
        return self._name


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


class Attempts:
    """Bounds how often an address may try to sign in: by this edge, and for a bounded number of addresses."""

    MOST = 10
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
        if now() >= ends:
            count, ends = 0, now() + self.WINDOW_S
        self._counted[key] = (min(count + 1, self.MOST), ends)
        if len(self._counted) > self.ADDRESSES:
            self._counted.popitem(last=False)
        if count >= self.MOST:
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

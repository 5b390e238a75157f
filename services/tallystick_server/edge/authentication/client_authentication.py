"""Authenticates the clients of ``/oauth2/*``. Besides the bearer token that every route accepts, these routes accept
the token as the password of HTTP Basic, and as ``client_secret`` in the form (RFC 6749, section 2.3.1). The client id
is ignored: the token says who the client is.
"""

import binascii
import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from tallystick.coherence.cache import Entry, Known, Unknown
from tallystick.errors import Refused
from tallystick.tokens.access import Demand, judge
from tallystick.tokens.format import digest
from tallystick_server.edge.authentication.credentials import Credential, Headers
from tallystick_server.edge.authorization.guard import (
    ANY,
    FORM,
    Gate,
    HttpRequest,
    Scope,
    gate_of,
    referrer,
)
from tallystick_server.edge.http.errors import OAUTH2_PATHS
from tallystick_server.edge.http.parameters import form_fields

CLIENT_SECRET = "client_secret"  # noqa: S105  # the name of a form field
ONE_CREDENTIAL = "send one credential: a bearer token, Basic, or client_secret in the form"

_BASIC = re.compile(rb"basic(?![!#$%&'*+\-.^_`|~0-9a-z])(?: +([^ \t,]+) *)?(.*)", re.IGNORECASE | re.DOTALL)
_ENCODED = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)


def prepare(scope: Scope, state: dict[str, Any]) -> Credential:
    """Reads the Basic credential of a request under `OAUTH2_PATHS` into the state, before its headers are removed.

    Returns:
        The credential in the header or the query string.
    """
    credential: Credential = state["credential"]
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    basic = _BASIC.fullmatch(values[0]) if len(values) == 1 else None
    if basic is not None:
        encoded, rest = basic.groups()
        passwords = None if rest or not encoded else read_passwords(encoded)
        if credential.value is not None or credential.ambiguous or passwords is None:
            credential = Credential(None, ambiguous=True)
        else:
            credential = Credential(passwords[0])
            state["passwords"] = passwords
    state["credential"] = credential
    return credential


def read_passwords(encoded: bytes) -> tuple[str, ...] | None:
    """The password of Basic credentials, in each reading that may be a token; None if they are malformed.

    RFC 6749 has clients encode the password as a form value first; many send it as it is. A value with ``%`` or ``+``
    can be meant either way. Our own tokens and 64-hex values hold neither, so for those one reading is well-formed,
    unless the client encoded more than it had to (``tly%5F...``).

    Args:
        encoded: what follows ``Basic``: Base64 of ``user:password``.

    Returns:
        One or two readings; of a password that is no token in any reading, the password as it was sent.
    """
    try:
        decoded = binascii.a2b_base64(encoded)
    except binascii.Error:
        return None
    _, colon, password = decoded.partition(b":")
    # The decoder skips characters outside the alphabet and surplus padding.
    if not colon or binascii.b2a_base64(decoded, newline=False) != encoded:
        return None
    readings = [password]
    if _ENCODED.fullmatch(password):
        readings.insert(0, unquote_to_bytes(password.replace(b"+", b" ")))
    texts = dict.fromkeys(str(reading, "latin-1") for reading in readings)
    return tuple(text for text in texts if digest(text)) or (str(password, "latin-1"),)


def may_be_in_body(scope: Scope) -> bool:
    """Whether a request without a credential in its header or query string may have one in its body."""
    return (
        scope["method"] == "POST" and scope["path"].startswith(OAUTH2_PATHS) and _has_form(scope["headers"])
    )


async def authenticate_client(request: HttpRequest) -> None:
    """Authorizes a request to a route under `OAUTH2_PATHS`, as the ``by`` of its ``opt``.

    A credential in the header or the query string is checked before the body is read, without using up its rate
    limit. The decision is made after the body was read, since a client may send that slowly.

    Raises:
        Refused: the request has no credential, several, an invalid one, or one that may not use this route.
    """
    scope: Scope = request.scope
    state, gate, opt = scope["state"], gate_of(request), scope["route_handler"].opt
    required = None if opt["scope"] == ANY else opt["scope"]
    any_account = opt.get("account_in") == "token"
    credential: Credential = state["credential"]
    if credential.ambiguous:
        raise _rejection(gate, "invalid_request")
    tokens: tuple[str, ...] = state.get("passwords") or (
        () if credential.value is None else (credential.value,)
    )
    if tokens:
        known = state["entry"] or (await _look_up(gate, tokens)).known
        demand = Demand(required, None, any_account, gate.address_of(scope), referrer(scope))
        if isinstance(known, Unknown) or judge(known.token, demand):
            await gate.let_in(scope, known, required, any_account=any_account)
    secrets = []
    if _has_form(scope["headers"]):
        secrets = [value for name, value in form_fields(await request.body()) if name == CLIENT_SECRET]
    if len(secrets) + bool(tokens) > 1:
        raise _rejection(gate, "invalid_request", ONE_CREDENTIAL)
    if not secrets and not tokens:
        raise _rejection(gate, "missing_token")
    # The body may have taken its time.
    state["entry"] = None
    token, known = await _look_up(gate, tokens or (secrets[0],))
    # The tokens service judges changes by the digest of the credential.
    state["credential"] = credential._replace(value=token)
    await gate.let_in(scope, known, required, any_account=any_account)


class _Client(NamedTuple):
    """The token that a client presented, and what is known about it."""

    token: str
    known: Known


async def _look_up(gate: Gate, tokens: tuple[str, ...]) -> _Client:
    """Looks up the readings of one credential.

    Raises:
        Refused: more than one of them is valid, so the request has two credentials; or none is well-formed, or this
            cannot be decided now.
    """
    if not all(map(digest, tokens)):
        raise _rejection(gate, "invalid_token")
    clients = [_Client(token, await gate.checker.check(token)) for token in tokens]
    valid = [client for client in clients if isinstance(client.known, Entry)]
    if len(valid) > 1:
        raise _rejection(gate, "invalid_request", ONE_CREDENTIAL)
    stored = [client for client in clients if isinstance(client.known, Unknown) and client.known.refused]
    return (valid or stored or clients)[0]


def _rejection(gate: Gate, code: str, detail: str = "") -> Refused:
    gate.usage.results[code] += 1
    return Refused(code, detail)


def _has_form(headers: Headers) -> bool:
    types = [value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"]
    codings = [value for name, value in headers if name == b"content-encoding"]
    return types == [FORM.encode()] and codings in ([], [b"identity"])

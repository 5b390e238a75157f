"""Authenticates the clients of ``/oauth2/*``. Besides the bearer token that every route accepts, these routes accept
the token as the password of HTTP Basic, and as ``client_secret`` in the form (RFC 6749, section 2.3.1). The client id
is ignored: the token identifies the client.
"""

import binascii
import re
from urllib.parse import unquote_to_bytes

from msgspec import structs

from tallystick.errors import AuthError
from tallystick.tokens.format import digest
from tallystick_server.edge.authentication.authenticator import ONE_CREDENTIAL
from tallystick_server.edge.authentication.context import (
    HttpRequest,
    context_of,
    set_context,
    verifier_of,
)
from tallystick_server.edge.authentication.credentials import AMBIGUOUS, Credential, Headers
from tallystick_server.edge.authorization.guard import access_to, admit, authenticate_again
from tallystick_server.edge.authorization.requirements import AccountIn
from tallystick_server.edge.authorization.routes import RouteRules
from tallystick_server.edge.http.bodies import FORM
from tallystick_server.edge.http.errors import OAUTH2_PATHS
from tallystick_server.edge.http.parameters import form_fields

CLIENT_SECRET = "client_secret"  # noqa: S105  # the name of a form field

_BASIC = re.compile(rb"basic(?![!#$%&'*+\-.^_`|~0-9a-z])(?: +([^ \t,]+) *)?(.*)", re.IGNORECASE | re.DOTALL)
_ENCODED = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)


def with_basic(headers: Headers, credential: Credential) -> Credential:
    """The credential of a request under `OAUTH2_PATHS`, where HTTP Basic is accepted too.

    Args:
        headers: the header fields, including Authorization.
        credential: the bearer credential in the headers and the query string.
    """
    values = [value for name, value in headers if name == b"authorization"]
    basic = _BASIC.fullmatch(values[0]) if len(values) == 1 else None
    if basic is None:
        return credential
    encoded, rest = basic.groups()
    passwords = None if rest or not encoded else read_passwords(encoded)
    if credential.kind != "none" or passwords is None:
        return AMBIGUOUS
    return Credential("basic", passwords[0], passwords)


def read_passwords(encoded: bytes) -> tuple[str, ...] | None:
    """The password of Basic credentials, in every reading that may be a token; None if they are malformed.

    RFC 6749 requires clients to form-encode the password first, but many send it unencoded. A password with ``%`` or
    ``+`` is therefore ambiguous. Tallystick's tokens and 64-hex values contain neither, so they have one reading, unless
    the client encoded more than necessary (``tly%5F...``).

    Args:
        encoded: the value after ``Basic``: Base64 of ``user:password``.

    Returns:
        One or two readings. If no reading is a token, the password as it was sent.
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


def may_be_in_body(method: str, path: str, headers: Headers) -> bool:
    """Whether a request without a credential in its header or query string may have one in its body."""
    return method == "POST" and path.startswith(OAUTH2_PATHS) and _has_form(headers)


async def authenticate_client(request: HttpRequest, rules: RouteRules) -> None:
    """Authenticates and authorizes a request to a route under `OAUTH2_PATHS`.

    A credential in the header or the query string is checked before the body is read, without consuming its rate limit.
    The decision is made after the body was read, since a client may send it slowly.

    Raises:
        AuthError: the request has no credential or several, or its token is invalid or does not allow this route.
        Unavailable: the tokens service does not reply.
    """
    context = context_of(request)
    access = access_to(request, rules.scope, any_account=rules.account is AccountIn.TOKEN)
    if context.cached is not None:
        verifier_of(request).check(context.cached.token, access)
    secrets = []
    if _has_form(context.headers):
        secrets = [value for name, value in form_fields(await request.body()) if name == CLIENT_SECRET]
    if secrets:
        if len(secrets) > 1 or context.credential.kind != "none":
            raise AuthError("invalid_request", ONE_CREDENTIAL)
        set_context(request, structs.replace(context, credential=Credential("form", secrets[0])))
    await authenticate_again(request)
    await admit(request, access)


def _has_form(headers: Headers) -> bool:
    types = [value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"]
    codings = [value for name, value in headers if name == b"content-encoding"]
    return types == [FORM.encode()] and codings in ([], [b"identity"])

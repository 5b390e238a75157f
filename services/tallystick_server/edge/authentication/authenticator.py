"""Finds the token that a credential stands for. Knows no server interface."""

from typing import NamedTuple

from msgspec import structs

from tallystick.coherence.cache import CachedToken, NegativeEntry
from tallystick.errors import AuthError
from tallystick.verifier import Verifier, valid
from tallystick_server.edge.authentication.credentials import Credential

ONE_CREDENTIAL = "send one credential: a bearer token, Basic, or client_secret in the form"


class Authenticated(NamedTuple):
    """A credential in the one reading that is a token, and that token."""

    credential: Credential
    cached: CachedToken


async def authenticate(verifier: Verifier, credential: Credential) -> Authenticated:
    """The valid token that a credential stands for.

    Raises:
        AuthError: no valid token matches, or several do.
        Unavailable: this cannot be decided now.
    """
    if reason := credential.fault():
        raise AuthError(reason)
    if len(credential.readings) <= 1:
        return Authenticated(credential, await verifier.authenticate(credential.value))
    found = [(reading, await verifier.lookup.resolve(reading)) for reading in credential.readings]
    tokens = [(reading, known) for reading, known in found if isinstance(known, CachedToken)]
    if len(tokens) > 1:
        raise AuthError("invalid_request", ONE_CREDENTIAL)
    if tokens:
        reading, cached = tokens[0]
        return Authenticated(structs.replace(credential, value=reading), cached)
    invalid = [known for _, known in found if isinstance(known, NegativeEntry)]
    stored = [known for known in invalid if known.refused]
    return Authenticated(credential, valid((stored or invalid)[0]))

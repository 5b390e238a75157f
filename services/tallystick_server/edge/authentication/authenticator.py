"""Authenticates a credential: finds its token. Independent of the web framework."""

from typing import NamedTuple

from msgspec import structs

from tallystick.coherence.cache import CachedToken, NegativeEntry
from tallystick.errors import AuthError
from tallystick.verifier import Verifier, valid
from tallystick_server.edge.authentication.credentials import Credential

ONE_CREDENTIAL = "send exactly one credential: a bearer token, HTTP Basic, or client_secret in the form"


class Authenticated(NamedTuple):
    """A credential, reduced to the reading that is a token, and that token."""

    credential: Credential
    cached: CachedToken


async def authenticate(verifier: Verifier, credential: Credential) -> Authenticated:
    """The valid token of a credential.

    Raises:
        AuthError: no valid token matches, or several do.
        Unavailable: the tokens service does not reply.
    """
    if reason := credential.fault():
        raise AuthError(reason)
    if len(credential.readings) <= 1:
        return Authenticated(credential, await verifier.authenticate(credential.value))
    entries = [(reading, await verifier.lookup.resolve(reading)) for reading in credential.readings]
    tokens = [(reading, entry) for reading, entry in entries if isinstance(entry, CachedToken)]
    if len(tokens) > 1:
        raise AuthError("invalid_request", ONE_CREDENTIAL)
    if tokens:
        reading, cached = tokens[0]
        return Authenticated(structs.replace(credential, value=reading), cached)
    invalid = [entry for _, entry in entries if isinstance(entry, NegativeEntry)]
    stored = [entry for entry in invalid if entry.refused]
    return Authenticated(credential, valid((stored or invalid)[0]))

"""How a change notice names a token: an edge can find a cached token by it, and learns nothing about any other."""

from hashlib import sha256


def notice_key(digest: bytes) -> str:
    """SHA-256 of a token's digest, in hex. The digest itself names an actor to the tokens service, so it is shown to
    nobody who was not shown the token.
    """
    return sha256(digest).hexdigest()

"""Login links, which sign in to the dashboard once for a token. The creator of a link shows its secret, and sends only
the digest to the tokens service.
"""

import hashlib
import secrets
from typing import NamedTuple

from tallystick.contracts.operation import Actor
from tallystick.contracts.sessions import MakeSignInLink


class Link(NamedTuple):
    secret: str
    request: MakeSignInLink


def new(token_id: str, actor: Actor, *, seconds: int) -> Link:
    """A new link for a token, and the request with which the tokens service accepts it."""
    secret = secrets.token_urlsafe(24)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Link(secret, MakeSignInLink(id=token_id, link=digest, actor=actor, seconds=seconds))


def path(secret: str) -> str:
    """The path and query of the link, without the edge's address."""
    return f"/admin/sign-in?link={secret}"

"""One-time links that sign in to the dashboard as a token. Their maker keeps the secret to show, and sends on the
digest.
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
    """A new link for a token, and the request that makes the tokens service honour it."""
    secret = secrets.token_urlsafe(24)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Link(secret, MakeSignInLink(id=token_id, link=digest, actor=actor, seconds=seconds))


def path(secret: str) -> str:
    """Where it leads, without the edge's address."""
    return f"/admin/sign-in?link={secret}"

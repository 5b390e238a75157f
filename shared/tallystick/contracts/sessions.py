"""Sessions of the dashboard."""

from typing import Annotated

from msgspec import Meta

from tallystick.contracts.messages import Ack, Digest, Message
from tallystick.contracts.operation import AdministrativeRequest, Operation
from tallystick.contracts.verification import Verdict


class SignIn(AdministrativeRequest, frozen=True):
    """Begins a session for the actor's token, or with a link that has not been used.

    Args:
        session: the digest of the session's secret, which only the browser holds.
        link: the digest of the link's secret; the actor has no token then.
    """

    session: Digest
    link: Digest | None = None


class ResumeSession(Message, frozen=True):
    """Requests a verdict about the session's token: ``invalid_token`` if the session no longer exists."""

    session: Digest


class SignOut(Message, frozen=True):
    session: Digest


class MakeSignInLink(AdministrativeRequest, frozen=True):
    """A link that signs in once, as a token, within the next ``seconds``.

    Args:
        id: the token.
        link: the digest of the link's secret.
    """

    id: str
    link: Digest
    seconds: Annotated[int, Meta(ge=1, le=24 * 3600)] = 600


SIGN_IN = Operation("tallystick.v1.edge.sessions.sign_in", SignIn, Verdict, mutates=True)
RESUME_SESSION = Operation("tallystick.v1.edge.sessions.resume", ResumeSession, Verdict)
SIGN_OUT = Operation("tallystick.v1.edge.sessions.sign_out", SignOut, Ack, mutates=True)
MAKE_SIGN_IN_LINK = Operation("tallystick.v1.operator.sessions.make_link", MakeSignInLink, Ack, mutates=True)

"""A request-reply exchange, and how it is rejected."""

from copy import copy
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from tallystick.contracts.messages import Digest, FieldError, Message
from tallystick.contracts.records import Token

Q = TypeVar("Q", bound=Struct)
R = TypeVar("R", bound=Struct)
MAX_REQUEST_BYTES = 64 * 1024


class Operation(Generic[Q, R]):
    """One request-reply exchange: its subject, the types on both sides, and how long a caller waits.

    Args:
        subject: the NATS subject; its last two tokens name the endpoint in ``$SRV`` answers.
        request: what the caller sends.
        reply: the reply of a success; a failure is answered by a `Failure`.
        timeout_s: the caller's limit, in seconds.
        max_bytes: what a request may hold; NATS itself takes a megabyte.
        mutates: a request that changes something carries a deadline and is dropped when it comes too late.
        settles: the reply says that it is committed; it is true at every edge once `SETTLE` says so.
            `tallystick.coherence.propagation` asks both.
    """

    def __init__(
        self,
        subject: str,
        request: type[Q],
        reply: type[R],
        *,
        timeout_s: float = 0.8,
        max_bytes: int = MAX_REQUEST_BYTES,
        mutates: bool = False,
        settles: bool = False,
    ) -> None:
        self.subject = subject
        self.request = request
        self.reply = reply
        self.timeout_s = timeout_s
        self.max_bytes = max_bytes
        self.mutates = mutates or settles
        self.settles = settles

    @property
    def by_operator(self) -> "Operation[Q, R]":
        """The same operation on the operator's subject, where an edge may not publish."""
        operation = copy(self)
        operation.subject = self.subject.replace(".edge.", ".operator.")
        return operation

    @property
    def service(self) -> str:
        """The first token after the version: ``metrics`` for what the metrics service answers."""
        return self.subject.split(".")[2]

    @property
    def name(self) -> str:
        return "-".join(self.subject.split(".")[2:])


class Failure(Message, frozen=True):
    """A rejection. The codes are the ones HTTP clients see; `tallystick_server.edge.http.errors` gives each its status.

    Args:
        code: what a program may act on.
        message: why, for people.
        errors: what is wrong with the request's fields.
        scope: the scope that was required, of an ``insufficient_scope``.
        current: the token as it is, of a ``stale`` edit.
        outcome_unknown: the request may have been carried out all the same.
    """

    code: str
    message: str = ""
    errors: tuple[FieldError, ...] = ()
    scope: str | None = None
    current: "Token | None" = None
    outcome_unknown: bool = False


class Actor(Message, frozen=True, forbid_unknown_fields=True):
    """On whose behalf an administrative request comes.

    On an edge's subjects exactly one of ``token`` and ``session`` is given, and the tokens service judges the token they
    lead to. On an operator's subjects only ``name`` is given: NATS has authenticated the operator, who may do everything.

    Args:
        token: the digest of the token that the client presented.
        session: the digest of the dashboard session's secret that the client presented.
        name: the operator's name in the audit.
        address: the client's address.
        referrer: the client's Referer header.
        request_id: the HTTP request's id.
    """

    token: Digest | None = None
    session: Digest | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    address: Annotated[str, Meta(max_length=64)] | None = None
    referrer: Annotated[str, Meta(max_length=2048)] | None = None
    request_id: Annotated[str, Meta(max_length=128)] | None = None


class AdministrativeRequest(Message, frozen=True, forbid_unknown_fields=True):
    """What every administrative request holds. An unknown field is rejected: it may narrow what is asked for."""

    actor: Actor

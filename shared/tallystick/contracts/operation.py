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
        settles: a reply means that the change is committed; it has propagated to every edge once `SETTLE` confirms it.
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
    """A rejection or a failure. HTTP clients get the same codes; `tallystick_server.edge.http.errors` maps each to a
    status.

    Args:
        code: the reason, for programs.
        message: the reason, for people.
        errors: the faults of the request's fields.
        scope: the required scope, of an ``insufficient_scope``.
        current: the current token, if the failure is ``stale``.
        outcome_unknown: whether the request may have been carried out all the same.
    """

    code: str
    message: str = ""
    errors: tuple[FieldError, ...] = ()
    scope: str | None = None
    current: "Token | None" = None
    outcome_unknown: bool = False


class Actor(Message, frozen=True, forbid_unknown_fields=True):
    """Who makes an administrative request.

    On an edge's subjects exactly one of ``token`` and ``session`` is present, and the tokens service authorizes the
    token that it leads to. On an operator's subjects only ``name`` is present: NATS has authenticated the operator, who
    is authorized to do everything.

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
    """The base of every administrative request. An unknown field is rejected, since it may narrow the request."""

    actor: Actor

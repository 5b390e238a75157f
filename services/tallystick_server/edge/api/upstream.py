"""What all routes need to ask the other services on behalf of a request."""

import re
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client

from tallystick.coherence import propagation
from tallystick.coherence.propagation import Creation, Propagation
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.tokens import CREATE_TOKEN, CreatedToken, CreateToken, RotateToken, only_account
from tallystick.rpc.call import call
from tallystick.tokens import rules
from tallystick.tokens.access import MAX_REFERRER_BYTES
from tallystick.tokens.format import digest
from tallystick_server.edge.authentication.context import HttpRequest, context_of, token_of
from tallystick_server.edge.authentication.credentials import session_digest
from tallystick_server.edge.http.errors import ProblemError

MAX_TAGS = 16
_ENTITY_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')
_REVISION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


async def ask(request: HttpRequest, operation: Operation[Q, R], question: Q) -> R:
    """The reply.

    Raises:
        ProblemError: the service said no, or nothing.
    """
    client: Client = request.app.state.client
    reply = await call(client, operation, question)
    if isinstance(reply, Failure):
        raise ProblemError.of(reply)
    return reply


async def change(request: HttpRequest, operation: Operation[Q, R], question: Q) -> tuple[R, Propagation]:
    """The reply to a change that is true at every edge by now.

    Raises:
        ProblemError: the service said no, or nothing.
    """
    done = await propagation.call_and_wait(request.app.state.client, operation, question)
    if isinstance(done, Failure):
        raise ProblemError.of(done)
    return done


async def create(
    request: HttpRequest, operation: Operation[Any, CreatedToken], question: CreateToken | RotateToken
) -> Creation:
    """A new token, whose secret has to be shown from here on.

    Raises:
        ProblemError: there is no new token.
    """
    created = await propagation.create(request.app.state.client, operation, question)
    if isinstance(created, Failure):
        raise ProblemError.of(created)
    return created


async def account_faults(request: HttpRequest, account: object) -> list[FieldError]:
    """What is wrong with the account of a new token whose other fields are not valid. Empty if that cannot be decided
    now: the other faults are reported anyway.
    """
    # The rules report a malformed name themselves.
    if not isinstance(account, str) or not rules.is_account(account):
        return []
    question = only_account(account, actor(request))
    reply = await call(request.app.state.client, CREATE_TOKEN, question)
    faults = reply.errors if isinstance(reply, Failure) else ()
    return [fault for fault in faults if fault.field == "account"]


def actor(request: HttpRequest) -> Actor:
    """The credential that the client presented, and where it comes from: the tokens service judges it."""
    context = context_of(request)
    is_session = context.credential.kind == "session"
    referrer = None if token_of(request).restrictions.referrers is None else context.referrer
    return Actor(
        token=None if is_session else digest(context.credential.value),
        session=session_digest(context.credential.value) if is_session else None,
        address=context.address,
        referrer=bounded_referrer(referrer),
        request_id=context.request_id,
    )


def bounded_referrer(referrer: str | None) -> str | None:
    """The header if it can match a pattern at all: one that is too long matches none, as none does."""
    return referrer if referrer is not None and len(referrer) <= MAX_REFERRER_BYTES else None


def revisions(request: HttpRequest) -> tuple[int, ...] | None:
    """The revisions that If-Match names; None where it is absent or ``*``.

    Raises:
        ProblemError: it is not a list of entity tags.
    """
    fields = request.headers.getall("if-match", [])
    if not fields or [field.strip() for field in fields] == ["*"]:
        return None
    tags = [_ENTITY_TAG.fullmatch(part.strip()) for field in fields for part in field.split(",")]
    if len(tags) > MAX_TAGS or not all(tags):
        raise ProblemError("bad_request", f'If-Match: "*" or up to {MAX_TAGS} entity tags, as in "3"')
    # A tag that is no number is none of ours, and matches no revision.
    return tuple(int(tag[1]) if _REVISION.fullmatch(tag[1]) else -1 for tag in tags if tag)


def idempotency_key(request: HttpRequest) -> str | None:
    """The Idempotency-Key header.

    Raises:
        ProblemError: there are several.
    """
    keys = request.headers.getall("idempotency-key", [])
    if len(keys) > 1:
        raise ProblemError("bad_request", "one Idempotency-Key at most")
    return keys[0] if keys else None

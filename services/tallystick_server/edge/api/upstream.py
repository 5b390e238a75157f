"""Calls the other services on behalf of a request."""

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
from tallystick_server.edge.authentication.context import HttpRequest, context_of
from tallystick_server.edge.authentication.credentials import session_digest
from tallystick_server.edge.http.errors import ProblemError

MAX_TAGS = 16
_ENTITY_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')
_REVISION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


async def ask(request: HttpRequest, operation: Operation[Q, R], question: Q) -> R:
    """The service's reply.

    Raises:
        ProblemError: the service rejects the call or does not reply.
    """
    client: Client = request.app.state.client
    reply = await call(client, operation, question)
    if isinstance(reply, Failure):
        raise ProblemError.from_failure(reply)
    return reply


async def change(request: HttpRequest, operation: Operation[Q, R], question: Q) -> tuple[R, Propagation]:
    """The service's reply to a change, once the change has propagated to every edge.

    Raises:
        ProblemError: the service rejects the change or does not reply.
    """
    reply = await propagation.call_and_wait(request.app.state.client, operation, question)
    if isinstance(reply, Failure):
        raise ProblemError.from_failure(reply)
    return reply


async def create(
    request: HttpRequest, operation: Operation[Any, CreatedToken], question: CreateToken | RotateToken
) -> Creation:
    """A new token. The caller must show its secret, even if a later step fails.

    Raises:
        ProblemError: no token was created.
    """
    created = await propagation.create(request.app.state.client, operation, question)
    if isinstance(created, Failure):
        raise ProblemError.from_failure(created)
    return created


async def account_faults(request: HttpRequest, account: object) -> list[FieldError]:
    """The faults of a new token's account, for a request whose other fields are invalid. Empty if the tokens service
    does not reply: the other faults are reported anyway.
    """
    # The rules report a malformed name themselves.
    if not isinstance(account, str) or not rules.is_account(account):
        return []
    question = only_account(account, actor(request))
    reply = await call(request.app.state.client, CREATE_TOKEN, question)
    faults = reply.errors if isinstance(reply, Failure) else ()
    return [fault for fault in faults if fault.field == "account"]


def actor(request: HttpRequest) -> Actor:
    """The actor of a request: its credential and where it comes from. The tokens service authorizes it."""
    context = context_of(request)
    is_session = context.credential.kind == "session"
    return Actor(
        token=None if is_session else digest(context.credential.value),
        session=session_digest(context.credential.value) if is_session else None,
        address=context.address,
        # Even if the cached token restricts no referrers: an edit may have restricted them in the meantime.
        referrer=bounded_referrer(context.referrer),
        request_id=context.request_id,
    )


def bounded_referrer(referrer: str | None) -> str | None:
    """The Referer header; None if it is too long to match any pattern."""
    return referrer if referrer is not None and len(referrer) <= MAX_REFERRER_BYTES else None


def revisions(request: HttpRequest) -> tuple[int, ...] | None:
    """The revisions in If-Match; None if the header is absent or ``*``.

    Raises:
        ProblemError: the header is not a list of entity tags.
    """
    fields = request.headers.getall("if-match", [])
    if not fields or [field.strip() for field in fields] == ["*"]:
        return None
    tags = [_ENTITY_TAG.fullmatch(part.strip()) for field in fields for part in field.split(",")]
    if len(tags) > MAX_TAGS or not all(tags):
        raise ProblemError("bad_request", f'If-Match must be * or 1 to {MAX_TAGS} entity tags, such as "3"')
    # A tag that is not a number was not issued by Tallystick, and matches no revision.
    return tuple(int(tag[1]) if _REVISION.fullmatch(tag[1]) else -1 for tag in tags if tag)


def idempotency_key(request: HttpRequest) -> str | None:
    """The Idempotency-Key header.

    Raises:
        ProblemError: the header is repeated.
    """
    keys = request.headers.getall("idempotency-key", [])
    if len(keys) > 1:
        raise ProblemError("bad_request", "Idempotency-Key must not be repeated")
    return keys[0] if keys else None

"""Runs every operation of clients and operators: in a transaction, on behalf of its actor.

`tokens.authority` decides by the table in `tokens.operations`. What an edge reports about the actor is a credential to look
up, never a right.
"""

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import (
    CreatedToken,
    RevokeToken,
)
from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MetricsRecorder
from tallystick.rpc.server import Handler, Handlers
from tallystick.tokens import rules
from tallystick_server.runtime import postgres
from tallystick_server.tokens.authority import Authority, Rejected
from tallystick_server.tokens.handlers.replies import bad_request, conflict
from tallystick_server.tokens.leases import Leases
from tallystick_server.tokens.operations import Rule
from tallystick_server.tokens.store.queries import Rejection, Store
from tallystick_server.tokens.store.rows import StoredToken
from tallystick_server.tokens.store.writes import AlreadyExists, KeyReused, NoSuchAccount, Transaction

log = logging.getLogger(__name__)

AUDITED_CODES = frozenset(
    {
        "insufficient_scope",
        "account_mismatch",
        "address_not_allowed",
        "referrer_not_allowed",
        "exceeds_authority",
    }
)
"""The failures of a change that its actor is not authorized to make."""

R = TypeVar("R", bound=msgspec.Struct)

NO_SUCH_ACCOUNT = FieldError(field="account", message="no such account")

_KEY = re.compile(rf"[\x21-\x7e]{{1,{rules.MAX_IDEMPOTENCY_KEY}}}", re.ASCII)


class UnitOfWork:
    """Args:
    store: the tokens.
    leases: the edges to notify of changes.
    announced: called after a commit, so that the events are sent at once.
    recorder: counts rejected attempts that the audit does not store.
    """

    def __init__(
        self, store: Store, leases: Leases, announced: Callable[[], None], recorder: MetricsRecorder
    ) -> None:
        self.store = store
        self._leases = leases
        self._announced = announced
        self._recorder = recorder

    async def change(
        self,
        operation: Operation[Any, R],
        rule: Rule,
        request: Any,
        work: Callable[[Transaction], Awaitable[R]],
    ) -> R | Failure:
        """Runs a change in a transaction, once for each Idempotency-Key; a rejection undoes all of it and is audited."""
        change: Transaction | None = None
        try:
            async with self.store.change(request.actor) as change:
                reply = await _once(change, operation, rule, request, work)
                undo_dry_run(dry_run=getattr(request, "dry_run", False), reply=reply)
        except Rejected as rejected:
            holder = change.authority.holder if change else None
            if holder is not None and rejected.failure.code in AUDITED_CODES:
                await self._audit(_rejection(holder, rule, request, rejected.failure.code))
            return rejected.failure
        except DryRun as dry_run:
            return dry_run.reply  # type: ignore[return-value]  # of this operation
        except KeyReused:
            return conflict("this Idempotency-Key came with another request before")
        except AlreadyExists:
            return conflict("this token exists already")
        except NoSuchAccount:
            return bad_request(NO_SUCH_ACCOUNT)
        await self.notify(change)
        return reply

    async def read(self, actor: Actor, work: Callable[[Authority], Awaitable[R | Failure]]) -> R | Failure:
        """Runs a query on behalf of an actor."""
        try:
            return await work(await self.store.authority(actor))
        except Rejected as rejected:
            return rejected.failure

    async def notify(self, committed: Transaction) -> None:
        """Notifies the edges, and triggers the delivery of the events."""
        await self._leases.announce(committed.changed)
        self._announced()

    async def _audit(self, rejection: Rejection) -> None:
        """Stores a rejected attempt in the audit, or counts it. The reply does not depend on it."""
        try:
            is_stored = await self.store.audit_rejection(rejection)
        except (*postgres.UNAVAILABLE, *postgres.MALFORMED) as error:
            log.warning("a rejected attempt was not audited: %s", type(error).__name__)
            is_stored = False
        if not is_stored:
            self._recorder.count(catalogue.REJECTIONS_NOT_AUDITED)


def from_edge(handler: Handler) -> Handler:
    """The handler of requests from an edge, which must carry the client's credential."""

    async def handle(request: Any) -> msgspec.Struct:
        actor: Actor = request.actor
        if (actor.token is None) == (actor.session is None) or actor.name is not None:
            return bad_request(FieldError(field="actor", message="either a token or a session"))
        return await handler(request)

    return handle


def from_operator(handler: Handler) -> Handler:
    """The handler of requests from an operator, whom NATS has authenticated."""

    async def handle(request: Any) -> msgspec.Struct:
        actor: Actor = request.actor
        if not actor.name or "\0" in actor.name or actor.token is not None or actor.session is not None:
            return bad_request(FieldError(field="actor", message="the operator's name and no credential"))
        return await handler(request)

    return handle


def on_both_subjects(handlers: Mapping[Operation[Any, Any], Handler]) -> Handlers:
    """Every operation on the edges' subject, where the actor is a credential, and on the operator's."""
    return {
        **{operation: from_edge(handler) for operation, handler in handlers.items()},
        **{operation.by_operator: from_operator(handler) for operation, handler in handlers.items()},
    }


class DryRun(Exception):
    """Rolls a transaction back, and carries its reply."""

    def __init__(self, reply: msgspec.Struct) -> None:
        super().__init__()
        self.reply = reply


def undo_dry_run(*, dry_run: bool, reply: msgspec.Struct) -> None:
    """Raises:
    DryRun: it is a dry run.
    """
    if dry_run:
        raise DryRun(reply)


def _rejection(holder: StoredToken, rule: Rule, request: Any, code: str) -> Rejection:
    """The audit's record of a rejected attempt."""
    token_id: str | None = getattr(request, "id", None)
    new: NewToken | None = getattr(request, "token", None)
    account: str | None = new.account if new is not None else getattr(request, "account", None)
    return Rejection(
        holder=holder,
        actor=request.actor,
        action=rule.rejected_action,
        token=token_id if token_id is not None and rules.is_token_id(token_id) else None,
        # Other requests have the digest of a new secret.
        digest=request.digest if isinstance(request, RevokeToken) else None,
        details={
            "code": code,
            "operation": rule.name,
            **({} if account is None else {"account": account}),
        },
    )


async def _once(
    change: Transaction,
    operation: Operation[Any, R],
    rule: Rule,
    request: Any,
    work: Callable[[Transaction], Awaitable[R]],
) -> R:
    """The reply of the work, or the stored reply to the same Idempotency-Key."""
    key: str | None = request.idempotency_key
    if key is None:
        return await work(change)
    if not _KEY.fullmatch(key):
        raise Rejected(
            bad_request(
                FieldError(
                    field="Idempotency-Key",
                    message=f"1 to {rules.MAX_IDEMPOTENCY_KEY} visible ASCII characters",
                )
            )
        )
    before = await change.replay(operation.name, key, _fingerprint(request))
    if before is None:
        reply = await work(change)
        await change.remember(operation.name, key, reply)
        return reply
    # The wait for the first request may have been long, so the actor is authorized again.
    authority = await change.lock()
    if authority.holder is not None:
        token, digest = authority.holder.token, getattr(request, "digest", None)
        of_itself = getattr(request, "id", None) == token.id or digest == request.actor.token
        authority.require(rule, account=token.account, of_itself=of_itself)
    reply = msgspec.json.decode(before, type=operation.reply)
    if isinstance(reply, CreatedToken):
        return msgspec.structs.replace(reply, replayed=True)
    return reply


def _fingerprint(request: Any) -> bytes:
    """The fingerprint of a request: of all fields but the new secret's digest and hint, and the actor."""
    fields: Mapping[str, Any] = msgspec.structs.asdict(request)
    ignored = {"digest", "hint", "actor", "idempotency_key"}
    # Omitted fields are left out, so that a field of a newer version does not change the fingerprint of an older request.
    identity = {name: value for name, value in fields.items() if name not in ignored and value is not None}
    if isinstance(request, RevokeToken):
        identity["digest"] = request.digest  # here it names the token
    return hashlib.sha256(msgspec.json.encode(identity, order="deterministic")).digest()

"""Finds tokens that an earlier version imported wider than EmailEngine's records are, and narrows or disables them.

Versions up to 0.1 dropped `permissions` and every field they did not know. A token is found by its digest, and its
successors by rotation are followed. Only tokens that still have the scopes they were imported with are changed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
from nats.aio.client import Client

from tallystick.coherence import propagation
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import Token
from tallystick.contracts.tokens import (
    EDIT_TOKEN,
    GET_TOKEN,
    REVOKE_TOKEN,
    EditToken,
    GetToken,
    RevokeToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.rpc.call import call
from tallystick.tokens import emailengine_record, record as token_record
from tallystick.tokens.emailengine_record import Loss
from tallystick.tokens.record import NotARecord
from tallystick.tokens.scopes import covers, is_scope
from tallystick_server.cli.connection import operator, with_client
from tallystick_server.cli.output import fail
from tallystick_server.runtime.lifecycle import EX_DATAERR, EX_UNAVAILABLE


class _Stopped(Exception):
    """A service answered with a failure."""

    def __init__(self, failure: Failure, where: str = "") -> None:
        super().__init__(where + (failure.message or failure.code))
        self.failure = failure


class Finding(NamedTuple):
    """A finding about a stored token, and its repair.

    Args:
        line: the line of its record.
        text: the message about it.
        token: its id.
        changes: the edit that repairs it; None if none is needed, or if the operator has to decide.
        successor: the token that replaced it, whose predecessors are revoked instead of an edit.
    """

    line: int
    text: str
    token: str
    changes: TokenUpdate | None = None
    successor: str | None = None

    @property
    def is_wide(self) -> bool:
        return self.changes is not None or self.successor is not None


def run(lines: Sequence[tuple[int, str]], scopes: Sequence[str], *, apply: bool) -> None:
    """Reports the tokens that are too wide, and with ``apply`` changes them."""
    if not all(map(is_scope, scopes)):
        fail("--scope: a scope is '*' or lower-case segments joined by ':'", EX_DATAERR)
    losses = list(_losses(lines, scopes))

    async def work(client: Client) -> list[Finding]:
        findings = [finding for line, loss in losses for finding in await _findings(client, line, loss)]
        for finding in findings:
            if apply and finding.is_wide:
                done = await _repair(client, finding)
                if isinstance(done, Failure):
                    raise _Stopped(done, f"line {finding.line}: {finding.token}: ")
                click.echo(f"line {finding.line}: {finding.token}: {_done(finding)}")
            else:
                click.echo(f"line {finding.line}: {finding.token}: {finding.text}")
        return findings

    try:
        findings = with_client(work)
    except _Stopped as stopped:
        code = EX_UNAVAILABLE if stopped.failure.code in {"unavailable", "overloaded"} else EX_DATAERR
        fail(f"{stopped}; run the same command again to continue from here", code)
    wide = sum(finding.is_wide for finding in findings)
    if apply:
        click.echo(f"{wide} tokens were changed", err=True)
    else:
        click.echo(f"{wide} tokens are too wide; --apply narrows or disables them", err=True)
    if wide:
        click.echo(
            "They may have created others: 'tallystick tokens list --json' shows createdBy, and "
            "'tallystick tokens log' what was done",
            err=True,
        )


def decide(line: int, token: Token, loss: Loss) -> Finding:
    """Decides how to repair a stored token. Pure."""
    lost = ", ".join(loss.fields)
    done = None
    if token.revoked is not None or token.disabled:
        done = f"{lost} was dropped; the token is {'revoked' if token.revoked is not None else 'disabled'} already"
    elif loss.scopes is not None and all(covers(loss.scopes, scope) for scope in token.scopes):
        done = "as narrow as its record"
    if done is not None:
        return Finding(line, done, token.id)
    if not all(covers(token.scopes, scope) for scope in loss.imported_scopes):
        return Finding(line, f"{lost} was dropped; its scopes were changed since: check it by hand", token.id)
    # A token that was rotated takes no edit.
    if token.rotated_to is not None:
        text = f"too wide: {lost} was dropped; --apply ends its grace period"
        return Finding(line, text, token.id, successor=token.rotated_to)
    if loss.scopes is None:
        return Finding(line, f"too wide: {lost} was dropped; --apply disables it", token.id, _DISABLE)
    if not all(covers(token.scopes, scope) for scope in loss.scopes):
        text = f"{lost} was dropped; its scopes do not cover those it is to have: check it by hand"
        return Finding(line, text, token.id)
    text = f"too wide: {lost} was dropped; --apply sets its scopes to {', '.join(loss.scopes)}"
    return Finding(line, text, token.id, TokenUpdate(scopes=loss.scopes))


_DISABLE = TokenUpdate(disabled=True)


def _losses(lines: Sequence[tuple[int, str]], scopes: Sequence[str]) -> Iterator[tuple[int, Loss]]:
    for number, line in lines:
        text = token_record.stripped(line)
        if text.startswith("{"):
            continue  # ours, of which no field was ever dropped
        try:
            loss = emailengine_record.loss(text, scopes)
        except NotARecord as error:
            click.echo(f"line {number}: {error}: no version imported this", err=True)
            continue
        if loss is not None:
            yield number, loss


async def _findings(client: Client, line: int, loss: Loss) -> list[Finding]:
    """About the token with this digest and its successors by rotation."""
    verdict = await call(client, VERIFY, VerifyToken(digest=loss.digest))
    if isinstance(verdict, Failure):
        raise _Stopped(verdict)
    token_id = verdict.token.id if verdict.token else verdict.refused.id if verdict.refused else None
    findings = []
    while token_id is not None:
        token = await call(
            client, GET_TOKEN.by_operator, GetToken(id=token_id, revoked=True, actor=operator())
        )
        if isinstance(token, Failure):
            raise _Stopped(token)
        findings.append(decide(line, token, loss))
        token_id = token.rotated_to
    return findings


async def _repair(client: Client, finding: Finding) -> object:
    """Repairs a token. Returns the reply or the failure."""
    if finding.successor is not None:
        end = RevokeToken(id=finding.successor, only="predecessors", actor=operator())
        return await propagation.call_and_wait(client, REVOKE_TOKEN.by_operator, end)
    if finding.changes is None:
        return None
    edit = EditToken(id=finding.token, changes=finding.changes, actor=operator())
    return await propagation.call_and_wait(client, EDIT_TOKEN.by_operator, edit)


def _done(finding: Finding) -> str:
    if finding.successor is not None:
        return "grace period ended"
    if finding.changes is not None and isinstance(finding.changes.scopes, tuple):
        return f"scopes set to {', '.join(finding.changes.scopes)}"
    return "disabled"

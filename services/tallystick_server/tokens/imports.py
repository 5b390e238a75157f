"""Imports token records in a transaction, and reports the outcome of each."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from tallystick.contracts import record_fields
from tallystick.contracts.imports import Imported, ImportNotice, ImportTokens
from tallystick.contracts.messages import FieldError
from tallystick.tokens import rules
from tallystick.tokens.record import TokenRecord
from tallystick_server.tokens.store.writes import AlreadyExists, NoSuchAccount, Transaction


class Result(NamedTuple):
    """What an import did, if it is committed.

    Args:
        reply: the tokens that were added, and notices about the other records.
        problems: why records are rejected, by field, as in ``records[3].token.expires``.
    """

    reply: Imported
    problems: list[FieldError]


async def import_records(change: Transaction, request: ImportTokens, now: datetime) -> Result:
    """Adds every valid record whose token does not exist yet. The caller decides whether that is committed."""
    candidates, notices, problems = _candidates(request.records, now)
    stored = await change.find_by_digests([record.digest for _, record, _ in candidates])
    added: list[str] = []
    imported: set[str] = set()
    existing_ids = await change.existing_ids([record.id for _, record, _ in candidates])
    names = {
        record.token.account
        for _, record, _ in candidates
        if record.token.account is not None
        and record.digest not in stored
        and not (request.create_accounts and record.id in existing_ids)
    }
    # No account is created for them.
    of_rejected = {} if request.create_accounts else _accounts_of_rejected(request.records, problems)
    names.update(of_rejected.values())
    accounts = await lock_accounts(change, names, create=request.create_accounts)
    problems += [_no_such_account(index) for index, name in of_rejected.items() if name not in accounts]
    for index, record, is_shortened in candidates:
        if record.digest in imported:
            problems.append(FieldError(field=f"records[{index}]", message="the same token comes twice"))
        elif token := stored.get(record.digest):
            notices.append(
                ImportNotice(record=index, outcome="revoked" if token.revoked else "existing", id=token.id)
            )
        elif record.id in existing_ids:
            imported.add(record.digest)
            problems.append(_taken_id(index))
            if names & {record.token.account} - accounts.keys():
                problems.append(_no_such_account(index))
        else:
            imported.add(record.digest)
            try:
                await insert(change, record, accounts)
            except AlreadyExists:
                problems.append(_taken_id(index))
            except NoSuchAccount:
                problems.append(_no_such_account(index))
            else:
                added.append(record.id)
                if is_shortened:
                    notices.append(
                        ImportNotice(
                            record=index,
                            outcome="shortened",
                            field="token.expires",
                            message=f"over ten years away, set to {_shown(record.token.expires)}",
                        )
                    )
    existing = [notice.id for notice in notices if notice.outcome in {"existing", "revoked"} and notice.id]
    reply = Imported(
        added=tuple(added),
        existing=tuple(existing),
        notices=tuple(sorted([*notices, *_rejections(problems)], key=lambda notice: notice.record)),
        accounts=tuple(name for name, is_new in accounts.items() if is_new),
    )
    return Result(reply, problems)


async def insert(change: Transaction, record: TokenRecord, accounts: Mapping[str, bool]) -> None:
    """Adds a token.

    Args:
        change: the transaction.
        record: the token.
        accounts: the accounts that exist and are locked, as `lock_accounts` returns them.

    Raises:
        AlreadyExists: its digest or id is taken.
        NoSuchAccount: its account does not exist.
    """
    if record.token.account is not None and record.token.account not in accounts:
        raise NoSuchAccount
    await change.insert(record, imported=True)


async def lock_accounts(change: Transaction, names: Iterable[str], *, create: bool) -> Mapping[str, bool]:
    """Locks accounts, in one order and before any token.

    Args:
        change: the transaction.
        names: the accounts.
        create: create those that are missing.

    Returns:
        Those that exist now, and of each whether it was created.
    """
    accounts: dict[str, bool] = {}
    for name in sorted(names):
        if create:
            _, accounts[name] = await change.add_account(name, "")
        elif await change.lock_account(name):
            accounts[name] = False
    return accounts


def shortened(record: TokenRecord, now: datetime) -> TokenRecord:
    """The record with an expiry no further away than a token may have."""
    latest = now + rules.MAX_LIFETIME
    if record.token.expires is None or record.token.expires <= latest:
        return record
    return msgspec.structs.replace(record, token=msgspec.structs.replace(record.token, expires=latest))


def in_utc(record: TokenRecord) -> TokenRecord:
    return msgspec.structs.replace(record, token=rules.in_utc(record.token))


def problems_of(record: TokenRecord, now: datetime) -> Iterator[FieldError]:
    """Why this record may not become a token, by field."""
    if not rules.is_token_id(record.id):
        yield FieldError(field="id", message="tok_ and 26 characters")
    if not rules.is_past(record.created, now):
        yield FieldError(field="created", message="not a time in the past")
    for problem in rules.problems(record.token, now):
        yield FieldError(field=f"token.{problem.field}", message=problem.message)


def _candidates(
    raw: tuple[Any, ...], now: datetime
) -> tuple[list[tuple[int, TokenRecord, bool]], list[ImportNotice], list[FieldError]]:
    """The records that may become tokens: their indices, and whether their expiry was set to ten years."""
    candidates: list[tuple[int, TokenRecord, bool]] = []
    notices: list[ImportNotice] = []
    problems: list[FieldError] = []
    for index, value in enumerate(raw):
        wrong = list(record_fields.problems(value, TokenRecord, f"records[{index}]"))
        if wrong:
            problems += wrong
            continue
        original = in_utc(msgspec.convert(value, TokenRecord))
        expires = original.token.expires
        if expires is not None and expires <= now:
            notices.append(ImportNotice(record=index, outcome="expired", message=_shown(expires)))
            continue
        record = shortened(original, now)
        wrong = [
            FieldError(field=f"records[{index}].{problem.field}", message=problem.message)
            for problem in problems_of(record, now)
        ]
        problems += wrong
        if wrong:
            continue
        candidates.append((index, record, record != original))
    return candidates, notices, problems


class NamedAccount(msgspec.Struct):
    """The account of a token of which everything else may be wrong."""

    account: str


class _Bound(msgspec.Struct):
    """A record of such a token."""

    token: NamedAccount


def _accounts_of_rejected(raw: tuple[Any, ...], problems: list[FieldError]) -> Mapping[int, str]:
    """The accounts that rejected records name, by the records' indices, as far as these are names."""
    accounts = {}
    for index in sorted({_index(problem) for problem in problems}):
        try:
            name = msgspec.convert(raw[index], _Bound).token.account
        except msgspec.ValidationError:
            continue
        if rules.is_account(name):
            accounts[index] = name
    return accounts


def _no_such_account(index: int) -> FieldError:
    return FieldError(field=f"records[{index}].token.account", message="no such account")


def _taken_id(index: int) -> FieldError:
    return FieldError(field=f"records[{index}].id", message="another token has this id")


def _index(problem: FieldError) -> int:
    """The record that a problem is about."""
    return int(problem.field.removeprefix("records[").partition("]")[0])


def _rejections(problems: list[FieldError]) -> Iterator[ImportNotice]:
    for problem in problems:
        _, _, field = problem.field.partition("]")
        yield ImportNotice(
            record=_index(problem),
            outcome="rejected",
            field=field.removeprefix("."),
            message=problem.message,
        )


def _shown(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else ""

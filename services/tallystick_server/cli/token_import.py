"""`tallystick tokens import`: token records, ours or EmailEngine's, from a file or standard input."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click
import msgspec

from tallystick.contracts.imports import (
    IMPORT_TOKENS,
    MAX_IMPORT,
    MAX_IMPORT_BYTES,
    Imported,
    ImportNotice,
    ImportTokens,
)
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.contracts.record_fields import describe
from tallystick.tokens import record as token_record, rules
from tallystick.tokens.record import NotARecord, TokenRecord
from tallystick_server.cli import reconcile as reconciliation
from tallystick_server.cli.arguments import NO_SUCH_ACCOUNT, missing_accounts
from tallystick_server.cli.connection import operator, or_fail, try_change
from tallystick_server.cli.output import fail
from tallystick_server.runtime.lifecycle import EX_DATAERR

MAX_INPUT = 4 << 20  # bytes
_RECORD = re.compile(r"records\[([0-9]+)\]\.?")


class Line(NamedTuple):
    """A line that holds a record.

    Args:
        number: its number in the file, from 1; blank lines count.
        text: its content.
    """

    number: int
    text: str

    @property
    def is_ours(self) -> bool:
        return token_record.stripped(self.text).startswith("{")


class Parsed(NamedTuple):
    """The records of a file.

    Args:
        records: the records to send to the tokens service.
        rejected: the faults of the others, by the number of the line.
        notices: further messages, by the number of the line.
        accounts: the accounts of rejected records, with their lines.
    """

    records: list[tuple[Line, TokenRecord]]
    rejected: dict[int, list[str]]
    notices: dict[int, list[str]]
    accounts: dict[str, list[Line]]


@click.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--scope",
    "-s",
    "scopes",
    multiple=True,
    help="scopes for EmailEngine's records whose permissions no scopes express; may be repeated",
)
@click.option(
    "--accounts",
    type=click.Choice(["require", "create"]),
    default="require",
    show_default=True,
    help="whether to reject a token whose account does not exist, or to create the account",
)
@click.option("--skip-rejected", is_flag=True, help="import the other records if some are rejected")
@click.option("--dry-run", is_flag=True, help="check everything and import nothing")
@click.option(
    "--reconcile",
    is_flag=True,
    help="instead: find tokens that an earlier version imported wider than these records are",
)
@click.option("--apply", is_flag=True, help="with --reconcile: narrow them, or disable them")
def import_tokens(
    file: Any,
    *,
    scopes: tuple[str, ...],
    accounts: str,
    skip_rejected: bool,
    dry_run: bool,
    reconcile: bool,
    apply: bool,
) -> None:
    """Import records, ours or EmailEngine's, a line each, from a file or standard input: all of them or none."""
    if apply and not reconcile:
        raise click.UsageError("--apply needs --reconcile")
    if reconcile and (skip_rejected or dry_run or accounts == "create"):
        raise click.UsageError("--reconcile imports nothing: combine it only with --scope and --apply")
    lines = read_lines(file)
    if reconcile:
        reconciliation.run([(line.number, line.text) for line in lines], scopes, apply=apply)
        return
    if len(lines) > MAX_IMPORT:
        fail(f"{len(lines)} records: at most {MAX_IMPORT} at once; nothing was imported", EX_DATAERR)
    _import(
        parse(lines, scopes),
        create_accounts=accounts == "create",
        skip_rejected=skip_rejected,
        dry_run=dry_run,
    )


def read_lines(file: Any) -> list[Line]:
    """The lines that are not blank. Exits 65 if all are, or if the file is not UTF-8."""
    raw: bytes = file.read(MAX_INPUT + 1)
    if len(raw) > MAX_INPUT:
        fail(f"over {MAX_INPUT} bytes", EX_DATAERR)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:4]:
        fail("the file is UTF-16: save it as UTF-8", EX_DATAERR)
    lines = [
        Line(number, text)
        for number, line in enumerate(raw.splitlines(), 1)
        if token_record.stripped(text := line.decode("utf-8", errors="replace"))
    ]
    if not lines:
        fail("no record", EX_DATAERR)
    if token_record.stripped(lines[0].text).startswith("["):
        fail("the file is a JSON array: write a record a line, as jq -c '.[]' does", EX_DATAERR)
    return lines


def parse(lines: Iterable[Line], scopes: Sequence[str]) -> Parsed:
    """Reads every line, so that all faults are reported at once."""
    parsed = Parsed([], {}, {}, {})
    digests: dict[str, int] = {}
    for line in lines:
        try:
            reading = token_record.read(line.text, scopes)
        except NotARecord as error:
            if error.expires is not None and error.expires <= datetime.now(UTC):
                parsed.notices[line.number] = [_expired(error.expires.strftime("%Y-%m-%dT%H:%M:%SZ"))]
            else:
                parsed.rejected[line.number] = [describe(problem) for problem in error.problems]
                if error.account is not None and rules.is_account(error.account):
                    parsed.accounts.setdefault(error.account, []).append(line)
            continue
        first = digests.setdefault(reading.record.digest, line.number)
        if first != line.number:
            parsed.rejected[line.number] = [f"the same token as on line {first}"]
            continue
        if reading.replaced_scopes:
            parsed.notices[line.number] = [f"scopes: set to {', '.join(scopes)} by --scope"]
        parsed.records.append((line, reading.record))
    return parsed


def _import(parsed: Parsed, *, create_accounts: bool, skip_rejected: bool, dry_run: bool) -> None:
    stopped = bool(parsed.rejected) and not skip_rejected
    imported: Imported | None = Imported(added=(), existing=())
    if parsed.records:
        request = ImportTokens(
            records=tuple(record for _, record in parsed.records),
            actor=operator(),
            create_accounts=create_accounts,
            skip_rejected=skip_rejected,
            # If nothing will be written, the service still reports what else is wrong.
            dry_run=dry_run or stopped,
        )
        imported = _ask(parsed, request)
    if parsed.accounts and not create_accounts:
        for account in missing_accounts(parsed.accounts):
            for line in parsed.accounts[account]:
                _add_problem(parsed, line, "token.account", NO_SUCH_ACCOUNT.message)
    if stopped or imported is None:
        _print_lines(parsed.rejected)
        fail(f"{_count(len(parsed.rejected), 'record')} rejected; nothing was imported", EX_DATAERR)
    _print_lines(parsed.rejected, parsed.notices)
    if dry_run:
        click.echo(f"{_count(len(imported.added), 'token')} would be added; nothing was written", err=True)
        return
    _print_imported(imported)
    if parsed.rejected and not imported.added and not imported.existing:
        fail(f"{_count(len(parsed.rejected), 'record')} rejected; none was left to import", EX_DATAERR)


def _ask(parsed: Parsed, request: ImportTokens) -> Imported | None:
    """Imports the records, and stores the messages about them; None if none was imported since some are rejected."""
    lines = [line for line, _ in parsed.records]
    size = len(msgspec.json.encode(request))
    if size > MAX_IMPORT_BYTES:
        fail(
            f"the records take {size} bytes, at most {MAX_IMPORT_BYTES} at once: split the file; nothing was imported",
            EX_DATAERR,
        )
    reply = try_change(IMPORT_TOKENS, request)
    if not isinstance(reply, Failure):
        _add_notices(parsed, lines, reply.notices)
        return reply
    if not _add_problems(parsed, lines, reply.errors):
        or_fail(reply)
    return None


def _print_imported(imported: Imported) -> None:
    for account in imported.accounts:
        click.echo(f"created the account {account}", err=True)
    for token in imported.added:
        click.echo(f"added {token}")
    if imported.existing:
        revoked = sum(notice.outcome == "revoked" for notice in imported.notices)
        text = f", {revoked} of them revoked" if revoked else ""
        click.echo(f"{len(imported.existing)} existed already{text}", err=True)


def _add_problems(parsed: Parsed, lines: Sequence[Line], errors: Iterable[FieldError]) -> bool:
    """Stores the service's errors by line. Returns False if none of them is about a record."""
    about_records = False
    for error in errors:
        if named := _RECORD.match(error.field):
            about_records = True
            line = lines[int(named[1])]
            _add_problem(parsed, line, error.field[named.end() :], error.message)
    return about_records


def _add_problem(parsed: Parsed, line: Line, field: str, message: str) -> None:
    # EmailEngine's records have no "token" in them.
    shown = field if line.is_ours else field.removeprefix("token.")
    parsed.rejected.setdefault(line.number, []).append(describe(FieldError(field=shown, message=message)))


def _add_notices(parsed: Parsed, lines: Sequence[Line], notices: Iterable[ImportNotice]) -> None:
    for notice in notices:
        line = lines[notice.record]
        match notice.outcome:
            case "rejected":
                _add_problem(parsed, line, notice.field, notice.message)
                continue
            case "existing":
                text = f"exists already as {notice.id}, and is left unchanged"
            case "revoked":
                text = f"exists already as {notice.id}, and is revoked: it stays revoked"
            case "expired":
                text = _expired(notice.message)
            case "shortened":
                text = f"expires: {notice.message}"
        parsed.notices.setdefault(line.number, []).append(text)


def _print_lines(*parts: dict[int, list[str]]) -> None:
    """Prints the messages about each line, in the order of the file."""
    for number in sorted({number for part in parts for number in part}):
        for text in (text for part in parts for text in part.get(number, ())):
            click.echo(f"line {number}: {text}", err=True)


def _expired(time: str) -> str:
    return f"skipped: expired at {time}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

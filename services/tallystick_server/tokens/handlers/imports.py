"""Imports and exports tokens as records, for operators."""

from datetime import UTC, datetime

from tallystick.contracts.imports import (
    EXPORT_TOKEN,
    IMPORT_TOKENS,
    MAX_IMPORT,
    Exported,
    ExportToken,
    Imported,
    ImportTokens,
)
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.rpc.server import Handlers
from tallystick.tokens import rules
from tallystick_server.tokens import imports, transitions
from tallystick_server.tokens.authority import Rejected
from tallystick_server.tokens.handlers.replies import bad_request, not_found
from tallystick_server.tokens.handlers.unit_of_work import DryRun, UnitOfWork, from_operator, undo_dry_run


class ImportHandlers:
    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit
        self._store = unit.store

    def all(self) -> Handlers:
        return {
            IMPORT_TOKENS: from_operator(self.import_tokens),
            EXPORT_TOKEN: from_operator(self.export_token),
        }

    async def import_tokens(self, request: ImportTokens) -> Imported | Failure:
        """Imports all records or none, unless rejected ones are skipped. Existing tokens and accounts are left unchanged."""
        if len(request.records) > MAX_IMPORT:
            return bad_request(FieldError(field="records", message=f"over {MAX_IMPORT}"))
        try:
            async with self._store.change(request.actor) as change:
                reply, problems = await imports.import_records(change, request, datetime.now(UTC))
                if not request.skip_rejected:
                    transitions.reject(problems)
                undo_dry_run(dry_run=request.dry_run, reply=reply)
        except Rejected as rejected:
            return rejected.failure
        except DryRun as dry_run:
            return dry_run.reply  # type: ignore[return-value]  # of this import
        await self._unit.notify(change)
        return reply

    async def export_token(self, request: ExportToken) -> Exported | Failure:
        if not rules.is_token_id(request.id):
            return not_found()
        record = await self._store.export(request.id)
        return Exported(record=record) if record else not_found()

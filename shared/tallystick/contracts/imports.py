"""Importing and exporting tokens as records."""

from typing import Any, Literal

from tallystick.contracts.messages import Message
from tallystick.contracts.operation import AdministrativeRequest, Operation

MAX_IMPORT = 1000
"""Records at once, all of them or none."""
MAX_IMPORT_BYTES = 960 * 1024


class ImportTokens(AdministrativeRequest, frozen=True):
    """All of them or none. The records' shape is `tallystick.tokens.record.TokenRecord`.

    Args:
        records: the records. An expired one is left out; an expiry over ten years away is set to ten years.
        create_accounts: create the accounts that do not exist yet, in the same transaction.
        skip_rejected: import the rest where some records are rejected, and list those in the notices.
        dry_run: check everything and write nothing.
    """

    records: tuple[Any, ...]
    create_accounts: bool = False
    skip_rejected: bool = False
    dry_run: bool = False


class ImportNotice(Message, frozen=True):
    """The outcome of one record, unless it was added without change.

    Args:
        record: its index in the request.
        outcome: ``existing``: there is a token with this digest; ``revoked``: there is one, and it is revoked;
            ``expired``: left out; ``shortened``: added with an earlier expiry; ``rejected``: left out.
        id: the stored token's id, of an existing or revoked one.
        field: the field it is about, of a shortened or rejected one.
        message: why, for people.
    """

    record: int
    outcome: Literal["existing", "revoked", "expired", "shortened", "rejected"]
    id: str | None = None
    field: str = ""
    message: str = ""


class Imported(Message, frozen=True):
    """The ids of the tokens that were added, the ids of those that existed already, and notices about records."""

    added: tuple[str, ...]
    existing: tuple[str, ...]
    notices: tuple[ImportNotice, ...] = ()
    accounts: tuple[str, ...] = ()
    """The accounts that were created."""


class ExportToken(AdministrativeRequest, frozen=True):
    id: str


class Exported(Message, frozen=True):
    record: Any


IMPORT_TOKENS = Operation(
    "tallystick.v1.operator.tokens.import",
    ImportTokens,
    Imported,
    timeout_s=10,
    max_bytes=MAX_IMPORT_BYTES,
    settles=True,
)
EXPORT_TOKEN = Operation("tallystick.v1.operator.tokens.export", ExportToken, Exported)

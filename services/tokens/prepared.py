"""Imports the token that was prepared in advance, once."""

import logging
from datetime import UTC, datetime

from services.tokens import rules
from services.tokens.changes import AlreadyExists, NoSuchAccount
from services.tokens.store import Store
from shared.contracts import Actor
from shared.token_record import NotARecord, decode

log = logging.getLogger(__name__)


async def import_prepared(store: Store, text: str) -> None:
    """Raises:
    NotARecord: the text is no record, or what it describes may not be a token.
    """
    record = decode(text)
    if await store.knows(record.digest):
        log.info("the prepared token exists already")
        return
    now = datetime.now(UTC)
    if not rules.is_past(record.created, now):
        raise NotARecord("created: no time in the past")
    if problems := rules.problems(record.token, now):
        raise NotARecord("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
    try:
        async with store.change(Actor(name="prepared")) as change:
            await change.insert(record)
    except AlreadyExists:
        log.info("the prepared token exists already")
    except NoSuchAccount:
        raise NotARecord("account: no such account") from None
    else:
        log.info("imported the prepared token as %s", record.id)

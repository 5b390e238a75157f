"""Imports the token that was prepared in advance, once."""

import logging
from datetime import UTC, datetime

from tallystick.contracts.operation import Actor
from tallystick.tokens.record import NotARecord, decode
from tallystick_server.tokens import imports
from tallystick_server.tokens.store.queries import Store
from tallystick_server.tokens.store.writes import AlreadyExists

log = logging.getLogger(__name__)


async def import_prepared(store: Store, text: str) -> None:
    """Imports a prepared token unless it exists, and creates the account it is bound to: both come from the operator.

    Raises:
        NotARecord: the text is not a record, or not of a valid token.
    """
    original = imports.in_utc(decode(text))
    now = datetime.now(UTC)
    record = imports.shortened(original, now)
    try:
        async with store.change(Actor(name="prepared")) as change:
            if token := (await change.find_by_digests([record.digest])).get(record.digest):
                state = "is revoked and stays so" if token.revoked else "exists already"
                log.info("the prepared token %s %s", token.id, state)
                return
            if problems := list(imports.problems_of(record, now)):
                raise NotARecord(*problems)
            names = [] if record.token.account is None else [record.token.account]
            accounts = await imports.lock_accounts(change, names, create=True)
            await imports.insert(change, record, accounts)
    except AlreadyExists:
        log.info("the prepared token exists already")
        return
    for account in (name for name, is_new in accounts.items() if is_new):
        log.info("created the account %r of the prepared token", account)
    if record != original:
        log.warning("the prepared token's expiry is over ten years away: set to %s", record.token.expires)
    log.info("imported the prepared token as %s", record.id)

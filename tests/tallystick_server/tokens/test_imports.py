"""Importing records over NATS: atomicity, accounts, existing records, and prepared tokens."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tallystick.contracts.accounts import LIST_ACCOUNTS, AccountPage, ListAccounts
from tallystick.contracts.imports import IMPORT_TOKENS, Imported, ImportTokens
from tallystick.contracts.metrics import TOKENS_STATS, AskTokensStats
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import Token
from tallystick.contracts.tokens import (
    GET_TOKEN,
    LIST_TOKENS,
    REVOKE_TOKEN,
    GetToken,
    ListTokens,
    RevokeToken,
    TokenPage,
)
from tallystick.rpc.call import call
from tallystick.tokens.record import NotARecord
from tallystick_server.runtime import postgres
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.tokens import app
from tallystick_server.tokens.prepared import import_prepared
from tallystick_server.tokens.settings import Settings
from tallystick_server.tokens.store import queries as tokens_store
from tests.support.servers import Database
from tests.support.services import running

OPERATOR = Actor(name="test")


def record(number: int, **token: Any) -> dict[str, Any]:
    return {"id": f"tok_{number:026d}", "digest": f"{number:064x}", "token": {"scopes": ["api"], **token}}


async def imported(operator, *records: Any, **options: Any) -> Any:
    return await call(operator, IMPORT_TOKENS, ImportTokens(records=records, actor=OPERATOR, **options))


async def token_ids(operator) -> set[str]:
    page = await call(operator, LIST_TOKENS.by_operator, ListTokens(page_size=1000, actor=OPERATOR))
    assert isinstance(page, TokenPage)
    return {token.id for token in page.tokens}


async def accounts(operator) -> set[str]:
    page = await call(operator, LIST_ACCOUNTS.by_operator, ListAccounts(actor=OPERATOR))
    assert isinstance(page, AccountPage)
    return {account.account for account in page.accounts}


def outcomes(reply: Imported) -> list[tuple[int, str]]:
    return [(notice.record, notice.outcome) for notice in reply.notices]


EXPIRED = "2020-01-01T00:00:00Z"
DISTANT = "2099-01-01T00:00:00Z"


async def test_one_invalid_record_rejects_the_import_and_all_errors_are_reported(tokens_service, operator):
    reply = await imported(
        operator,
        record(1),
        record(2, scopes=[]),
        record(3, account="nobody"),
        {**record(4), "colour": 1, "digest": "x"},
        record(1),
        create_accounts=False,
    )
    assert isinstance(reply, Failure)
    assert [error.field for error in reply.errors] == [
        "records[1].token.scopes",
        "records[3].digest",
        "records[3].colour",
        "records[2].token.account",
        "records[4]",
    ]
    assert await token_ids(operator) == set()


async def test_an_unknown_account_is_reported_with_the_other_errors_of_a_record(tokens_service, operator):
    """It used to be reported only once the record had no other errors."""
    assert (await imported(operator, record(1, account="alice"), create_accounts=True)).accounts == ("alice",)
    records = [
        record(2, account="nobody", scopes=[]),
        {**record(3, account="nobody"), "colour": 1},
        record(4, account="alice", scopes=[]),
        record(5, account="a/b", scopes=[]),
        {**record(6, account="alice"), "id": record(1)["id"]},
        {**record(7, account="nobody"), "id": record(1)["id"]},
        {**record(8), "token": 1},
        "x",
    ]
    reply = await imported(operator, *records)
    fields = {
        "records[0].token.scopes", "records[0].token.account",
        "records[1].colour", "records[1].token.account",
        "records[2].token.scopes",
        "records[3].token.scopes", "records[3].token.account",
        "records[4].id",
        "records[5].id", "records[5].token.account",
        "records[6].token",
        "records[7]",
    }  # fmt: skip
    assert sorted(error.field for error in reply.errors) == sorted(fields)
    # If missing accounts are created, that error does not occur, and no account is created for a rejected record.
    reply = await imported(operator, *records, create_accounts=True, skip_rejected=True)
    assert {f"records[{notice.record}].{notice.field}".rstrip(".") for notice in reply.notices} == fields - {
        "records[0].token.account", "records[1].token.account", "records[5].token.account",
    }  # fmt: skip
    assert await accounts(operator) == {"alice"}


async def test_invalid_records_are_skipped_on_request(tokens_service, operator):
    reply = await imported(
        operator,
        record(1),
        record(2, scopes=[]),
        record(3, account="nobody"),
        record(4),
        skip_rejected=True,
    )
    assert reply.added == ("tok_" + "1".zfill(26), "tok_" + "4".zfill(26))
    assert outcomes(reply) == [(1, "rejected"), (2, "rejected")]
    assert [notice.field for notice in reply.notices] == ["token.scopes", "token.account"]
    assert await token_ids(operator) == set(reply.added)


async def test_missing_accounts_are_created_with_their_tokens_or_not_at_all(tokens_service, operator):
    bound = [record(1, account="a"), record(2, account="b"), record(3, account="a")]
    rejection = await imported(operator, *bound, record(4, scopes=[]), create_accounts=True)
    assert isinstance(rejection, Failure)
    assert await accounts(operator) == set()
    reply = await imported(operator, *bound, create_accounts=True)
    assert reply.accounts == ("a", "b")
    assert await accounts(operator) == {"a", "b"}
    assert len(await token_ids(operator)) == 3


async def test_no_account_is_created_for_a_rejected_record(tokens_service, operator):
    await imported(operator, record(1))
    duplicate = {**record(2, account="a"), "id": record(1)["id"]}
    reply = await imported(
        operator,
        duplicate,
        record(3, account="no name", scopes=["api"]),
        create_accounts=True,
        skip_rejected=True,
    )
    assert outcomes(reply) == [(0, "rejected"), (1, "rejected")]
    assert await accounts(operator) == set()


async def test_a_dry_run_returns_the_same_reply_and_writes_nothing(tokens_service, operator):
    options = {"create_accounts": True, "skip_rejected": True}
    records = [record(1, account="a"), record(2, scopes=[]), record(3, expires=EXPIRED)]
    dry_run_reply = await imported(operator, *records, dry_run=True, **options)
    assert (await token_ids(operator), await accounts(operator)) == (set(), set())
    assert await imported(operator, *records, **options) == dry_run_reply


async def test_expired_records_are_skipped_and_distant_expiries_shortened(tokens_service, operator):
    reply = await imported(operator, record(1, expires=EXPIRED), record(2, expires=DISTANT))
    assert outcomes(reply) == [(0, "expired"), (1, "shortened")]
    (added,) = reply.added
    token = await call(operator, GET_TOKEN.by_operator, GetToken(id=added, actor=OPERATOR))
    assert isinstance(token, Token)
    assert token.expires is not None
    assert abs(token.expires - datetime.now(UTC) - timedelta(days=3653)) < timedelta(minutes=1)


async def test_existing_and_revoked_tokens_are_reported_by_their_stored_ids(tokens_service, operator):
    first = await imported(operator, record(1), record(2))
    await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(actor=OPERATOR, id=first.added[1]))
    again = await imported(
        operator, {**record(1), "id": record(8)["id"]}, {**record(2), "id": record(9)["id"]}
    )
    assert again.added == ()
    assert again.existing == first.added
    assert outcomes(again) == [(0, "existing"), (1, "revoked")]
    assert [notice.id for notice in again.notices] == list(first.added)
    assert await token_ids(operator) == {first.added[0]}


async def test_a_request_of_an_earlier_version_is_supported(tokens_service, operator):
    message = await operator.request(
        IMPORT_TOKENS.subject,
        msgspec.json.encode({"records": [record(1)], "actor": {"name": "test"}}),
        timeout=10,
    )
    assert msgspec.json.decode(message.data)["added"] == [record(1)["id"]]


# Prepared tokens


def prepared(number: int = 1, **token: Any) -> str:
    return msgspec.json.encode(record(number, **token)).decode()


async def test_the_account_of_a_prepared_token_is_created_and_the_service_starts(
    database: Database, nats_server, operator, event_stream
):
    settings = Settings(
        nats_url=nats_server.tokens,
        database_url=database.tokens,
        startup_timeout_s=10,
        prepared_token=prepared(account="acc-a"),
    )
    for _ in range(2):
        stop = Shutdown()
        async with running(app.run(settings, stop), stop, operator, TOKENS_STATS, AskTokensStats()):
            assert await accounts(operator) == {"acc-a"}
            assert await token_ids(operator) == {record(1)["id"]}


async def test_a_revoked_prepared_token_stays_revoked_and_this_is_logged(
    database: Database, tokens_service, operator, caplog
):
    caplog.set_level("INFO")
    async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool:
        store = tokens_store.Store(pool)
        await import_prepared(store, prepared())
        await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(actor=OPERATOR, id=record(1)["id"]))
        await import_prepared(store, prepared())
    assert "is revoked and stays so" in caplog.text
    assert await token_ids(operator) == set()


INVALID_PREPARED_TOKENS: list[dict[str, Any]] = [
    {"scopes": []},
    {"expires": EXPIRED},
    {"account": "no name"},
    {"permissions": {}},
]


async def test_an_invalid_prepared_token_stops_the_start_and_writes_nothing(
    database: Database, tokens_service, operator, subtests: pytest.Subtests
):
    for number, token in enumerate(INVALID_PREPARED_TOKENS, 1):
        with subtests.test(token=token):
            before = await token_ids(operator), await accounts(operator)
            async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool:
                text = prepared(number, **{"account": f"acc-{number}", **token})
                with pytest.raises(NotARecord):
                    await import_prepared(tokens_store.Store(pool), text)
            assert (await token_ids(operator), await accounts(operator)) == before

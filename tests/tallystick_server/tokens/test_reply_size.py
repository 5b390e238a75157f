"""A reply that is too large for NATS is never sent: the caller gets an error that says how much fits."""

import asyncpg
import msgspec

from tallystick.contracts.accounts import LIST_ACCOUNTS, AccountPage, ListAccounts
from tallystick.contracts.imports import IMPORT_TOKENS, ImportTokens
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Actor, Failure
from tallystick.contracts.records import Restrictions
from tallystick.contracts.tokens import LIST_TOKENS, ListTokens, TokenPage
from tallystick.contracts.verification import VERIFY_MANY, Verdicts, VerifyMany, VerifyToken
from tallystick.rpc.batches import MAX_MESSAGE_BYTES
from tallystick.rpc.call import call
from tallystick.tokens.format import digest
from tallystick.tokens.rules import MAX_REFERRER, MAX_REFERRERS
from tests.support.services import issue, patient

ACTOR = Actor(name="test")
LARGE = Restrictions(referrers=tuple(f"{number:0{MAX_REFERRER}}" for number in range(MAX_REFERRERS)))


async def test_a_page_of_large_tokens_says_how_many_fit(tokens_service, operator, edge):
    admin, _ = await issue(operator, "*")
    for _ in range(35):
        await issue(operator, "api", restrictions=LARGE)
    failure = await call(operator, patient(LIST_TOKENS.by_operator), ListTokens(page_size=35, actor=ACTOR))
    assert isinstance(failure, Failure)
    assert failure.code == "bad_request"
    (error,) = failure.errors
    assert error.field == "pageSize"
    fit = int(error.message.split()[-1])
    page = await call(operator, patient(LIST_TOKENS.by_operator), ListTokens(page_size=fit, actor=ACTOR))
    assert isinstance(page, TokenPage)
    assert len(page.tokens) == fit >= 15
    headers = {"authorization": f"Bearer {admin}"}
    assert (await edge.get("/v1/tokens?pageSize=35", headers=headers)).json()["errors"][0][
        "field"
    ] == "pageSize"
    assert (await edge.get(f"/v1/tokens?pageSize={fit}", headers=headers)).status_code == 200


async def test_a_page_of_long_account_names_says_how_many_fit(tokens_service, operator, database):
    connection = await asyncpg.connect(database.tokens)
    await connection.execute(
        "insert into tokens.account (account, name) select 'a' || n, repeat('€', 1024) from generate_series(1, 1000) n"
    )
    await connection.close()
    failure = await call(
        operator,
        patient(LIST_ACCOUNTS.by_operator),
        ListAccounts(page_size=1000, actor=ACTOR),
    )
    assert isinstance(failure, Failure)
    fit = int(failure.errors[0].message.split()[-1])
    page = await call(
        operator,
        patient(LIST_ACCOUNTS.by_operator),
        ListAccounts(page_size=fit, actor=ACTOR),
    )
    assert isinstance(page, AccountPage)
    assert len(page.accounts) == fit >= 300


async def test_verdicts_on_many_large_tokens_say_how_many_fit(tokens_service, operator):
    value, _ = await issue(operator, "api", restrictions=LARGE)
    token_digest = digest(value)
    assert token_digest is not None
    requests = (VerifyToken(digest=token_digest),) * 200
    failure = await call(operator, patient(VERIFY_MANY), VerifyMany(requests=requests))
    assert isinstance(failure, Failure)
    assert failure.errors[0].field == "requests"
    fit = int(failure.errors[0].message.split()[-1])
    verdicts = await call(operator, patient(VERIFY_MANY), VerifyMany(requests=requests[:fit]))
    assert isinstance(verdicts, Verdicts)


async def test_an_import_with_more_errors_than_a_reply_holds_reports_the_first(tokens_service, operator):
    record = {
        "id": "tok_" + "0" * 26,
        "digest": "ab" * 32,
        "token": {"scopes": ["api"], "restrictions": {"addresses": ["x"] * 150}},
    }
    request = ImportTokens(records=(record,) * 120, actor=ACTOR)
    failure = await call(operator, patient(IMPORT_TOKENS), request)
    assert isinstance(failure, Failure)
    assert failure.code == "bad_request"
    assert failure.errors[0] == FieldError(
        field="records[0].token.restrictions.addresses[0]", message='"x": not an IP address or CIDR network'
    )
    assert f"{120 * 150 - len(failure.errors)} more are left out" in failure.message
    assert MAX_MESSAGE_BYTES - 2000 < len(msgspec.json.encode(failure)) <= MAX_MESSAGE_BYTES

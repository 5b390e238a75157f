"""The encoding of each message is pinned, so that a change of the format is detected, and older messages still decode."""

import jsonschema_rs
import msgspec
import pytest

from tallystick.contracts.events import AccountState, Event, ThreadStarted
from tallystick.contracts.imports import Imported, ImportNotice, ImportTokens
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.propagation import (
    Acknowledged,
    ChangeNotice,
    Lease,
    RenewLease,
    Settle,
    Settled,
    TokenChange,
)
from tallystick.contracts.quotas import Quota, RecallQuota, ReturnedQuota, ReturnQuota, TakeQuota
from tallystick.contracts.records import NewToken
from tallystick.contracts.registry import ADMINISTRATIVE, operations
from tallystick.contracts.tokens import (
    CreatedToken,
    CreateToken,
    GetToken,
    RateLimitUpdate,
    RestrictionsUpdate,
    Revoked,
    RevokeToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY, Verdict, VerifyToken
from tallystick_server.runtime import asyncapi
from tests.support.examples import TIME, TOKEN

DIGEST = "ab" * 32
ACTOR = Actor(name="cli:me")
NEW = NewToken(scopes=("api",))
NEW_BYTES = (
    '{"description":"","scopes":["api"],"account":null,"metadata":null,"restrictions":{"addresses":null,'
    '"referrers":null,"rateLimit":null},"notBefore":null,"expires":null}'
)
ACTOR_BYTES = '{"token":null,"session":null,"name":"cli:me","address":null,"referrer":null,"requestId":null}'
TOKEN_BYTES = (
    '{"id":"tok_1","description":"","scopes":["api"],"account":null,"metadata":null,"restrictions":'
    '{"addresses":null,"referrers":null,"rateLimit":{"maxRequests":1,"timeWindow":60}},"notBefore":null,'
    '"expires":"2026-01-02T03:04:05Z","disabled":false,"hint":"tly_abcd","created":"2026-01-02T03:04:05Z",'
    '"createdBy":"cli:me","rotatedTo":null,"access":{"time":null,"ip":null},"revoked":null,"revision":0,'
    '"revokedBy":null}'
)
HOLDER = "holder_" + "0" * 26
WIRE = [
    (
        VerifyToken(digest=DIGEST),
        f'{{"digest":"{DIGEST}","scope":null,"account":null,"address":null,"referrer":null}}',
    ),
    (
        Verdict(code="active", token=TOKEN, expires_in=1.5, rev=2),
        f'{{"code":"active","token":{TOKEN_BYTES},"expiresIn":1.5,"rev":2,"quota":null,"refused":null}}',
    ),
    (
        Quota(granted=1, limit=2, remaining=1, window=60, resets_in=3.5),
        '{"granted":1,"limit":2,"remaining":1,"window":60,"resetsIn":3.5,"family":null,"starts":null,"returned":0}',
    ),
    (
        CreateToken(token=NEW, digest=DIGEST, hint="tly_abcd", actor=ACTOR),
        (
            f'{{"actor":{ACTOR_BYTES},"token":{NEW_BYTES},"digest":"{DIGEST}","hint":"tly_abcd",'
            '"firstOnly":false,"idempotencyKey":null}'
        ),
    ),
    (CreatedToken(token=TOKEN), f'{{"token":{TOKEN_BYTES},"replayed":false}}'),
    (TokenUpdate(disabled=True, expires=None), '{"expires":null,"disabled":true}'),
    (
        TokenUpdate(restrictions=RestrictionsUpdate(rate_limit=RateLimitUpdate(max_requests=5))),
        '{"restrictions":{"rateLimit":{"maxRequests":5}}}',
    ),
    (
        RevokeToken(actor=ACTOR, id="tok_1"),
        (
            f'{{"actor":{ACTOR_BYTES},"id":"tok_1","digest":null,"orKey":null,"only":null,"descendants":false,'
            '"dryRun":false,"revisions":null,"idempotencyKey":null}'
        ),
    ),
    (
        ImportTokens(records=({"id": "tok_1"},), actor=ACTOR),
        (
            f'{{"actor":{ACTOR_BYTES},"records":[{{"id":"tok_1"}}],"createAccounts":false,"skipRejected":false,'
            '"dryRun":false}'
        ),
    ),
    (
        Imported(
            added=("tok_1",),
            existing=("tok_2",),
            notices=(ImportNotice(record=1, outcome="existing", id="tok_2"),),
            accounts=("alice",),
        ),
        (
            '{"added":["tok_1"],"existing":["tok_2"],"notices":[{"record":1,"outcome":"existing","id":"tok_2",'
            '"field":"","message":""}],"accounts":["alice"]}'
        ),
    ),
    (
        Revoked(deleted=True, covered=("tok_1",)),
        '{"deleted":true,"covered":["tok_1"],"descendants":[],"livingDescendants":0,"ownChain":[],"changed":true}',
    ),
    (
        TakeQuota(id="tok_1", wanted=7),
        '{"id":"tok_1","wanted":7,"waiting":1,"holder":null,"take":1,"unspent":0}',
    ),
    (
        ReturnQuota(family="tok_1", holder=HOLDER, take=2, window=60, starts=120, unspent=3),
        f'{{"family":"tok_1","holder":"{HOLDER}","take":2,"window":60,"starts":120,"unspent":3}}',
    ),
    (ReturnedQuota(counted=3), '{"counted":3}'),
    (
        RecallQuota(family="tok_1", window=60, starts=120, limit=50),
        '{"family":"tok_1","window":60,"starts":120,"limit":50}',
    ),
    (
        ChangeNotice(seq=3, changes=(TokenChange(seq=3, key="ab" * 32, rev=2),)),
        '{"seq":3,"changes":[{"seq":3,"key":"' + "ab" * 32 + '","rev":2}]}',
    ),
    (RenewLease(edge="edge_" + "0" * 26), '{"edge":"edge_' + "0" * 26 + '","seq":null}'),
    (Lease(seconds=2.5, seq=3), '{"seconds":2.5,"seq":3}'),
    (Acknowledged(edge="edge_1", seq=3), '{"edge":"edge_1","seq":3}'),
    (Settle(seq=3), '{"seq":3}'),
    (Settled(seq=3, settled=True, edges=2), '{"seq":3,"settled":true,"edges":2}'),
    (
        Failure(code="bad_request", errors=(FieldError(field="page", message="0 to 9"),)),
        (
            '{"code":"bad_request","message":"","errors":[{"field":"page","message":"0 to 9"}],'
            '"scope":null,"current":null,"outcomeUnknown":false}'
        ),
    ),
    (
        Event(type="a.b", source="s", boot="b", n=1, time=TIME, data={"x": 1}),
        '{"type":"a.b","source":"s","boot":"b","n":1,"time":"2026-01-02T03:04:05Z","data":{"x":1}}',
    ),
    (ThreadStarted(thread="t", type="w"), '{"thread":"t","type":"w"}'),
    (AccountState(account="a", state="connected"), '{"account":"a","state":"connected"}'),
]

OPERATIONS = operations()
API = asyncapi.document()


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=lambda part: type(part).__name__)
def test_a_message_has_this_encoding_and_decodes_from_it(message: msgspec.Struct, wire: str):
    assert msgspec.json.encode(message).decode() == wire
    assert msgspec.json.decode(wire, type=type(message)) == message


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=lambda part: type(part).__name__)
def test_a_message_matches_its_schema_in_the_reference(message: msgspec.Struct, wire: str):
    schema = {"$ref": f"#/components/schemas/{type(message).__name__}", **API}
    jsonschema_rs.Draft7Validator(schema, validate_formats=True).validate(msgspec.json.decode(wire))


def test_messages_of_the_first_version_still_decode():
    assert msgspec.json.decode(f'{{"digest":"{DIGEST}"}}', type=VerifyToken) == VerifyToken(digest=DIGEST)
    assert msgspec.json.decode('{"code":"invalid_token"}', type=Verdict) == Verdict(code="invalid_token")
    assert msgspec.json.decode("{}", type=Event) == Event()
    assert msgspec.json.decode(f'{{"records":[],"actor":{ACTOR_BYTES}}}', type=ImportTokens) == ImportTokens(
        records=(), actor=ACTOR
    )
    assert msgspec.json.decode('{"added":["tok_1"],"existing":[]}', type=Imported) == Imported(
        added=("tok_1",), existing=()
    )


def test_an_administrative_request_with_an_unknown_field_is_rejected():
    """The field may restrict the operation, and an older program would ignore the restriction."""
    for operation in ADMINISTRATIVE:
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.json.decode(f'{{"actor":{ACTOR_BYTES},"colour":"red"}}', type=operation.request)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode('{"actor":{"name":"me","colour":"red"},"id":"tok_1"}', type=GetToken)


def test_unknown_fields_of_other_messages_are_ignored():
    wire = f'{{"digest":"{DIGEST}","colour":"red"}}'
    assert msgspec.json.decode(wire, type=VerifyToken) == VerifyToken(digest=DIGEST)


def test_subjects_are_unique_and_administration_has_its_own_prefixes():
    subjects = [operation.subject for operation in OPERATIONS]
    assert len(set(subjects)) == len(subjects)
    assert all(subject.startswith("tallystick.v1.") for subject in subjects)
    for operation in OPERATIONS:
        if operation.mutates:
            assert operation.subject.startswith(("tallystick.v1.operator.", "tallystick.v1.edge."))
    assert VERIFY.subject == "tallystick.v1.tokens.verify"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_message_has_a_field_for_a_secret(operation: Operation):
    for kind in (operation.request, operation.reply):
        assert not {"secret", "value", "password", "accessToken"} & {
            field.encode_name for field in msgspec.structs.fields(kind)
        }

"""One example of each type in requests and responses."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from tallystick.contracts.accounts import AccountDeleted, AccountLog, AccountPage, AddedAccount
from tallystick.contracts.audit import Change, RejectedAttempt
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import Account, LastUse, NewToken, RateLimit, Restrictions, Token
from tallystick.contracts.tokens import (
    EditedToken,
    RateLimitUpdate,
    RestrictionsUpdate,
    TokenLog,
    TokenPage,
    TokenUpdate,
)
from tallystick.contracts.verification import RejectedRequest
from tallystick_server.edge.api.accounts import NewAccount
from tallystick_server.edge.api.emailengine import AccountTokens, Deletion
from tallystick_server.edge.api.emailengine_form import EmailEngineRestrictions, EmailEngineToken
from tallystick_server.edge.api.oauth import Introspection, IntrospectionForm, TokenForm
from tallystick_server.edge.api.prometheus import Health, Stats
from tallystick_server.edge.api.tokens import (
    AccountRevocation,
    Revocation,
    Rotation,
    TokenWithSecret,
    UnknownOutcome,
)
from tallystick_server.edge.http.errors import Problem

_CREATED = datetime(2026, 11, 1, 9, tzinfo=UTC)
_EXPIRES = datetime(2030, 1, 31, tzinfo=UTC)
_ID = "tok_01m843q3qr6w1ap6798pcsndkt"
_NEXT_ID = "tok_01m84fk2c0r1nv9y5bq1d3h7ze"
# It looks like a token, but its checksum is wrong, so it cannot be valid.
_SECRET = "tly_" + "EXAMPLE" * 7
_RESTRICTIONS = Restrictions(
    addresses=("192.0.2.0/24",),
    referrers=("https://example.org/*",),
    rate_limit=RateLimit(max_requests=100, time_window=60),
)
_ACCESS = LastUse(time=datetime(2026, 11, 23, 9, tzinfo=UTC), ip="192.0.2.7")
_TOKEN = Token(
    id=_ID,
    description="nightly report",
    scopes=("api:tokens:read", "metrics"),
    account=None,
    metadata={"team": "reports"},
    restrictions=_RESTRICTIONS,
    not_before=None,
    expires=_EXPIRES,
    disabled=False,
    hint="tly_EXAM",
    created=_CREATED,
    created_by="tok_01m83s0v7pbm5h4t2w9cq8k6xa",
    rotated_to=None,
    access=_ACCESS,
)
_CHANGE = Change(
    time=_CREATED,
    action="token.updated",
    actor="cli:alice",
    address=None,
    request_id=None,
    details={"changes": {"scopes": {"from": ["metrics"], "to": ["api:tokens:read", "metrics"]}}},
)
_REJECTED_REQUEST = RejectedRequest(
    id=_ID,
    time=_CREATED,
    reason="address_not_allowed",
    address="198.51.100.9",
    route="/v1/stats",
    request_id="req_01m843q3qr6w1ap6798pcsndkt",
)
_ATTEMPT = RejectedAttempt(
    time=_CREATED,
    action="token.edit.rejected",
    code="exceeds_authority",
    actor="tok_01m83s0v7pbm5h4t2w9cq8k6xa",
    address="198.51.100.9",
    request_id="req_01m843q3qr6w1ap6798pcsndkt",
)
_ACCOUNT = Account(account="alice", name="Alice", created=_CREATED)

_ALL: tuple[Struct, ...] = (
    _RESTRICTIONS,
    RateLimit(max_requests=100, time_window=60),
    _ACCESS,
    _TOKEN,
    NewToken(
        description="nightly report",
        scopes=("api:tokens:read", "metrics"),
        metadata={"team": "reports"},
        restrictions=_RESTRICTIONS,
        expires=_EXPIRES,
    ),
    TokenUpdate(description="weekly report", disabled=True),
    TokenWithSecret(token=_SECRET, **msgspec.structs.asdict(_TOKEN)),
    UnknownOutcome(token=_SECRET),
    Rotation(grace=3600),
    TokenPage(total=1, page=0, pages=1, tokens=(_TOKEN,)),
    RestrictionsUpdate(addresses=("10.0.0.0/8",), rate_limit=None),
    RateLimitUpdate(max_requests=200),
    EditedToken(**msgspec.structs.asdict(_TOKEN)),
    Revocation(
        deleted=True,
        covered=(_ID,),
        descendants=(),
        own_chain=(),
        living_descendants=0,
        settled=True,
        edges=3,
        seconds=0.004,
    ),
    EmailEngineToken(
        description="nightly report",
        scopes="api",
        account="alice",
        metadata='{"team": "reports"}',
        restrictions=EmailEngineRestrictions(addresses="192.0.2.7/24", referrers=False),
        expires="2030-01-31",
        ip="192.0.2.7",
    ),
    EmailEngineRestrictions(addresses="192.0.2.7/24", referrers=False),
    Deletion(deleted=True, covered=(_ID,), living_descendants=0, settled=True, edges=3, seconds=0.004),
    AccountTokens(
        account="alice",
        total=1,
        truncated=False,
        tokens=(msgspec.structs.replace(_TOKEN, account="alice"),),
    ),
    AccountRevocation(account="alice", tokens=2, living_descendants=0, settled=True, edges=3, seconds=0.004),
    _CHANGE,
    _REJECTED_REQUEST,
    _ATTEMPT,
    TokenLog(changes=(_CHANGE,), refusals=(_REJECTED_REQUEST,), attempts=(_ATTEMPT,)),
    NewAccount(account="alice", name="Alice"),
    _ACCOUNT,
    AddedAccount(state="new", **msgspec.structs.asdict(_ACCOUNT)),
    AccountPage(total=1, page=0, pages=1, accounts=(_ACCOUNT,)),
    AccountLog(
        changes=(
            Change(
                time=_CREATED,
                action="account.added",
                actor="cli:alice",
                address=None,
                request_id=None,
                details={"account": "alice", "changes": {"name": {"from": None, "to": "Alice"}}},
            ),
        ),
    ),
    AccountDeleted(account="alice", deleted=True, tokens=2),
    TokenForm(token=_SECRET),
    IntrospectionForm(token=_SECRET, scope="orders:read", account="alice", address="192.0.2.7"),
    Introspection(
        active=True,
        scope="api:tokens:read metrics",
        client_id=_ID,
        token_type="Bearer",  # noqa: S106  # a type of token
        iat=int(_CREATED.timestamp()),
        exp=int(_EXPIRES.timestamp()),
        jti=_ID,
    ),
    Stats(
        version="0.1.0",
        license="Apache-2.0",
        accounts=2,
        python="3.11.7",
        nats="2.15.1",
        postgres="18.4",
        connections={
            "init": 1,
            "connected": 1,
            "connecting": 0,
            "authenticationError": 0,
            "connectError": 0,
            "unset": 0,
            "disconnected": 0,
        },
        counters={"events:thread.started": 3},
    ),
    Health(),
    Problem(
        title="Invalid request",
        status=400,
        code="bad_request",
        errors=(FieldError(field="scopes", message="at least one scope"),),
    ),
    FieldError(field="scopes", message="at least one scope"),
)
EXAMPLES: Mapping[type[Struct], Struct] = {type(example): example for example in _ALL}

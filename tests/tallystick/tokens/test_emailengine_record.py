"""Records of EmailEngine: how each field is imported, and that no import allows more than the original token."""

import base64
import fnmatch
import ipaddress
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from tallystick.contracts.records import LastUse, Restrictions, Token
from tallystick.tokens import emailengine_record, record as token_record
from tallystick.tokens.access import AccessRequest, check_access
from tallystick.tokens.emailengine_record import ACTIONS, GRANTABLE_GROUPS, loss
from tallystick.tokens.record import NotARecord, TokenRecord, decode, read
from tallystick_server.tokens import imports

DIGEST = "ab" * 32
NOW = datetime(2026, 11, 1, tzinfo=UTC)
FUTURE = int((NOW + timedelta(days=30)).timestamp() * 1000)
READ_STATS = {"actions": ["read"], "groups": ["diagnostics"]}


def packed(**fields: Any) -> str:
    raw = base64.urlsafe_b64encode(msgspec.msgpack.encode({"id": DIGEST, "scopes": ["api"], **fields}))
    return raw.decode().rstrip("=")


def rejections(text: str, *scopes: str) -> dict[str, str]:
    with pytest.raises(NotARecord) as rejected:
        read(text, scopes)
    problems = {problem.field: problem.message for problem in rejected.value.problems}
    assert len(problems) == len(rejected.value.problems), "an error is reported twice"
    return problems


def limits(**fields: Any) -> dict[str, Any]:
    return {"restrictions": fields}


# How each field is imported


def test_fields_that_restrict_nothing_are_imported_or_skipped():
    record = decode(
        packed(
            description="d",
            account="a",
            created=1_700_000_000_123,
            expires=FUTURE,
            ip="1.2.3.4",
            remoteAddress="::1",
        )
    )
    assert record.digest == DIGEST
    assert record.hint == DIGEST[:8]
    assert record.created == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
    token = record.token
    assert (token.description, token.account, token.scopes) == ("d", "a", ("api",))
    assert token.expires == NOW + timedelta(days=30)
    assert token.metadata is None
    assert token.restrictions == Restrictions()


def test_without_scopes_a_token_has_all_of_them():
    raw = base64.urlsafe_b64encode(msgspec.msgpack.encode({"id": DIGEST})).decode()
    assert decode(raw).token.scopes == ("*",)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ('{"a":{"b":[1,2]}}', {"a": {"b": [1, 2]}}),
        ({"a": 1}, {"a": 1}),
        (None, None),
        ("[1]", {"emailengine": "[1]"}),
        ('"text"', {"emailengine": '"text"'}),
        ("text", {"emailengine": "text"}),
        ('{"a":NaN}', {"emailengine": '{"a":NaN}'}),
        ("", {"emailengine": ""}),
    ],
)
def test_metadata_is_imported_without_loss(metadata: Any, expected: Any):
    assert decode(packed(metadata=metadata)).token.metadata == expected


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1/8", "127.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::/32"),
    ],
)
def test_host_bits_are_removed_from_networks(address: str, network: str):
    assert decode(packed(**limits(addresses=[address]))).token.restrictions.addresses == (network,)


def test_an_empty_list_of_referrers_restricts_nothing_as_in_the_original():
    assert decode(packed(**limits(referrers=[]))).token.restrictions.referrers is None


# Restrictions


@pytest.mark.parametrize(
    ("scopes", "permissions", "expected"),
    [
        (["api"], None, ("api",)),
        (["api"], READ_STATS, ("api:stats:read",)),
        (["*"], READ_STATS, ("api:stats:read", "metrics")),
        (["metrics"], READ_STATS, ("metrics",)),
        (["api", "metrics"], READ_STATS, ("api:stats:read", "metrics")),
        (["api"], {"actions": ["read"], "groups": ["account"]}, ("api:accounts:read",)),
        (
            ["*"],
            {"actions": ["read"], "groups": ["account", "diagnostics"]},
            ("api:accounts:read", "api:stats:read", "metrics"),
        ),
        (["api"], {"grants": [{"action": "read", "group": "account"}]}, ("api:accounts:read",)),
    ],
)
def test_permissions_become_scopes_if_these_are_equivalent(
    scopes: list[str], permissions: Any, expected: tuple[str, ...]
):
    assert decode(packed(scopes=scopes, permissions=permissions)).token.scopes == expected


WITHOUT_COUNTERPART = [
    {"scopes": ["api"], "permissions": {"actions": ["read"]}},
    {"scopes": ["api"], "permissions": {"groups": ["diagnostics"]}},
    {"scopes": ["api"], "permissions": {"actions": ["read", "write"], "groups": ["account"]}},
    {"scopes": ["api"], "permissions": {"actions": ["read"], "groups": ["account", "message"]}},
    {"scopes": ["api"], "permissions": {"actions": ["read"], "groups": ["admin"]}},
    {"scopes": ["api"], "permissions": {"actions": ["destructive"], "groups": ["account"]}},
    {"scopes": ["api"], "permissions": {"grants": [{"action": "send", "group": "submit"}]}},
    {"scopes": ["api", "mcp"], "permissions": READ_STATS},
    {"scopes": ["smtp"], "permissions": READ_STATS},
]


@pytest.mark.parametrize("fields", WITHOUT_COUNTERPART, ids=str)
def test_permissions_without_an_exact_counterpart_are_rejected_unless_scopes_are_specified(
    fields: dict[str, Any],
):
    problems = rejections(packed(**fields))
    assert list(problems) == ["permissions"]
    assert "--scope" in problems["permissions"]
    reading = read(packed(**fields), ("orders:read",))
    assert reading.replaced_scopes
    assert reading.record.token.scopes == ("orders:read",)


def test_specified_scopes_do_not_replace_scopes_with_a_counterpart():
    for fields in ({"scopes": ["api"]}, {"scopes": ["*"]}, {"scopes": ["api"], "permissions": READ_STATS}):
        reading = read(packed(**fields), ("orders:read",))
        assert not reading.replaced_scopes
        assert reading.record.token == decode(packed(**fields)).token


@pytest.mark.parametrize(
    "permissions",
    [
        {},
        [],
        "",
        "read",
        0,
        False,
        True,
        {"actions": []},
        {"actions": [], "groups": ["account"]},
        {"actions": ["read"], "groups": []},
        {"actions": "read", "groups": ["account"]},
        {"actions": ["read"], "groups": "account"},
        {"actions": ["read"], "groups": None},
        {"actions": ["READ"], "groups": ["account"]},
        {"actions": ["read"], "groups": ["accounts"]},
        {"actions": [["read"]], "groups": ["account"]},
        {"actions": ["read"], "groups": ["account"], "accounts": ["a"]},
        {"actions": ["read"], "groups": ["account"], "grants": []},
        {"grants": []},
        {"grants": {}},
        {"grants": ["read"]},
        {"grants": [{"action": "read"}]},
        {"grants": [{"action": "read", "group": "account", "account": "a"}]},
        {"grants": [{"action": "read", "group": "nothing"}]},
    ],
    ids=str,
)
def test_empty_or_malformed_permissions_are_rejected_even_if_scopes_are_specified(
    permissions: Any,
):
    assert list(rejections(packed(permissions=permissions), "api")) == ["permissions"]


@pytest.mark.parametrize(
    ("fields", "unknown"),
    [
        ({"someFutureNarrowing": 1}, ["someFutureNarrowing"]),
        (limits(methods=["GET"]), ["restrictions.methods"]),
        (limits(rateLimit={"maxRequests": 1, "timeWindow": 1, "burst": 2}), ["restrictions.rateLimit.burst"]),
        ({"a": 1, **limits(b=1)}, ["restrictions.b", "a"]),
        ({"\x1b[31m": 1}, ["(a name that is not shown)"]),
    ],
)
def test_an_unknown_field_at_any_depth_is_rejected(fields: dict[str, Any], unknown: list[str]):
    problems = rejections(packed(**fields), "api")
    assert list(problems) == unknown
    assert all("unknown field" in message for message in problems.values())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": None}, "scopes"),
        ({"scopes": ["introspect"]}, "scopes"),
        ({"scopes": ["api", "admin"]}, "scopes"),
        ({"scopes": ["api:tokens"]}, "scopes"),
        (limits(addresses=[]), "restrictions.addresses"),
        (limits(addresses=["10.0.0.0/255.0.0.0"]), "restrictions.addresses[0]"),
        (limits(addresses=["10.0.0.0/0.255.255.255"]), "restrictions.addresses[0]"),
        (limits(addresses=["10.0.0.1", "localhost"]), "restrictions.addresses[1]"),
        (limits(addresses=["10.0.0.1/33"]), "restrictions.addresses[0]"),
        (limits(addresses=["fe80::1%eth0"]), "restrictions.addresses[0]"),
        (limits(addresses="10.0.0.1"), "restrictions.addresses"),
        (limits(referrers=["good.example/*"]), "restrictions.referrers[0]"),
        (limits(referrers=["https://good.example/a"]), "restrictions.referrers[0]"),
        (limits(referrers=["HTTPS://good.example/*"]), "restrictions.referrers[0]"),
        (limits(referrers=["https://Good.example/*"]), "restrictions.referrers[0]"),
        (limits(referrers=["*", "*Good.example/*"]), "restrictions.referrers[1]"),
        (limits(rateLimit={"maxRequests": 1}), "restrictions.rateLimit.timeWindow"),
        (limits(rateLimit={"timeWindow": 1}), "restrictions.rateLimit.maxRequests"),
        (limits(rateLimit={}), "restrictions.rateLimit.maxRequests"),
        (limits(rateLimit=5), "restrictions.rateLimit"),
        ({"restrictions": []}, "restrictions"),
        ({"expires": "2030-01-01"}, "expires"),
        ({"expires": float("nan")}, "expires"),
        ({"expires": 2**62}, "expires"),
        ({"account": 5}, "account"),
        ({"id": DIGEST.upper()}, "id"),
    ],
    ids=str,
)
def test_a_field_that_would_allow_more_or_has_a_wrong_type_is_rejected(fields: dict[str, Any], field: str):
    assert field in rejections(packed(**fields))


def test_all_errors_of_a_record_are_reported_at_once():
    assert rejections(packed(a=1, account=5, scopes="api", **limits(b=1, rateLimit={}))).keys() == {
        *("a", "account", "scopes", "restrictions.b"),
        *("restrictions.rateLimit.maxRequests", "restrictions.rateLimit.timeWindow"),
    }


@pytest.mark.parametrize(
    "part",
    [{"colour": 1}, {"token": {"scopes": ["api"], "permissions": {}}}, {"token": {"restrictions": {"a": 1}}}],
)
def test_an_unknown_field_in_a_native_record_is_rejected(part: dict[str, Any]):
    record = {"id": "tok_" + "0" * 26, "digest": DIGEST, "token": {"scopes": ["api"]}, **part}
    assert any(
        "unknown field" in message for message in rejections(msgspec.json.encode(record).decode()).values()
    )


def test_a_byte_order_mark_is_skipped():
    native = msgspec.json.encode(decode(packed())).decode()
    for text in (packed(), native):
        assert decode("\ufeff" + text).digest == decode(" \ufeff " + text + "\n").digest == DIGEST


@pytest.mark.parametrize("at", [10, 30])
def test_a_record_with_an_invalid_character_is_rejected(at: int):
    text = packed()
    with pytest.raises(NotARecord):
        decode(text[:at] + "!" + text[at:])


# Fields that earlier versions dropped


@pytest.mark.parametrize(
    ("fields", "dropped", "scopes"),
    [
        ({}, None, None),
        ({"ip": "::1", "remoteAddress": "::1", "metadata": "x", "created": 1}, None, None),
        (limits(addresses=["10.0.0.1/8"], referrers=["good.example"]), None, None),
        ({"permissions": READ_STATS}, ("permissions",), ("api:stats:read",)),
        ({"permissions": {"actions": ["read"]}}, ("permissions",), None),
        ({"permissions": {}}, ("permissions",), None),
        ({"permissions": READ_STATS, "more": 1}, ("more", "permissions"), None),
        ({"more": 1}, ("more",), None),
        (limits(more=1), ("restrictions.more",), None),
        (limits(addresses=[]), ("restrictions.addresses",), None),
    ],
    ids=str,
)
def test_fields_that_earlier_versions_dropped_are_detected(fields: dict[str, Any], dropped: Any, scopes: Any):
    record_loss = loss(packed(**fields))
    assert (record_loss and record_loss.fields) == dropped
    assert (record_loss and record_loss.scopes) == scopes
    assert record_loss is None or (record_loss.digest, record_loss.imported_scopes) == (DIGEST, ("api",))


def test_specified_scopes_replace_only_well_formed_permissions():
    outside = {"actions": ["read"]}
    cases: list[tuple[dict[str, Any], tuple[str, ...] | None]] = [
        ({"permissions": outside}, ("orders",)),
        ({"permissions": {}}, None),
        ({"more": 1}, None),
        ({"permissions": outside, "more": 1}, None),
    ]
    for fields, scopes in cases:
        record_loss = loss(packed(**fields), ("orders",))
        assert record_loss is not None
        assert record_loss.scopes == scopes


# No import allows more: a model of EmailEngine's semantics, compared with the imported token


class Request(NamedTuple):
    """A request to a route here.

    Args:
        scope: the scope that the route requires here.
        account: the account that it names.
        address: the client's address.
        referrer: the Referer header.
        at: the time of the request.
    """

    scope: str
    account: str | None
    address: str
    referrer: str | None
    at: datetime


OPERATIONS: dict[str, tuple[str, tuple[str, str] | None]] = {
    "api:stats:read": ("api", ("read", "diagnostics")),
    "api:accounts:read": ("api", ("read", "account")),
    "api:accounts:delete": ("api", ("destructive", "account")),
    "api:accounts:write": ("api", ("write", "admin")),
    "api:tokens:read": ("api", ("read", "admin")),
    "api:tokens:write": ("api", ("write", "admin")),
    "api:tokens:delete": ("api", ("destructive", "admin")),
    "metrics": ("metrics", ("read", "diagnostics")),
    # EmailEngine has no such routes: only `*` without permissions allows them.
    "introspect": ("introspect", None),
    "admin": ("admin", None),
    "orders:read": ("orders:read", None),
}
"""For each scope that a route may require here, the scope and the permission that its counterpart in EmailEngine requires."""

ORIGINAL_FIELDS = {
    *(
        "id",
        "scopes",
        "description",
        "account",
        "metadata",
        "restrictions",
        "permissions",
        "expires",
        "created",
    ),
    *("ip", "remoteAddress"),
}


def original_allows(record: dict[str, Any], request: Request) -> bool:
    """Whether EmailEngine allows this request; a record with an unknown field allows nothing."""
    restrictions = record.get("restrictions") or {}
    scope, permission = OPERATIONS[request.scope]
    scopes = record.get("scopes", ["*"])
    return (
        record.keys() <= ORIGINAL_FIELDS
        and restrictions.keys() <= {"addresses", "referrers", "rateLimit"}
        and not (record.get("expires") and request.at.timestamp() * 1000 >= record["expires"])
        and (scope in scopes or "*" in scopes)
        and (not record.get("account") or record["account"] == request.account)
        and (record.get("permissions") is None or permitted(record["permissions"], permission))
        and ("addresses" not in restrictions or address_matches(restrictions["addresses"], request.address))
        and (
            not restrictions.get("referrers") or referrer_matches(restrictions["referrers"], request.referrer)
        )
    )


def permitted(permissions: Any, permission: tuple[str, str] | None) -> bool:
    if not isinstance(permissions, dict) or not permissions or permission is None:
        return False
    action, group = permission
    if group == "admin":
        return False
    if permissions.keys() == {"grants"}:
        return {"action": action, "group": group} in permissions["grants"]
    known = {"actions": {*ACTIONS}, "groups": {*GRANTABLE_GROUPS, "admin"}}
    return (
        permissions.keys() <= known.keys()
        and all(isinstance(value, list) and {*value} <= known[axis] for axis, value in permissions.items())
        and action in permissions.get("actions", ACTIONS)
        and group in permissions.get("groups", GRANTABLE_GROUPS)
    )


def address_matches(allowed: list[str], client: str) -> bool:
    """As in ipaddr.js: ``/`` and digits is CIDR, whose host bits are ignored; anything else is one address."""
    address = ipaddress.ip_address(client)
    for text in allowed:
        base, slash, bits = text.partition("/")
        try:
            if slash and not bits.isdecimal():
                continue
            if address in ipaddress.ip_network(f"{base}/{bits}" if slash else base, strict=False):
                return True
        except ValueError:
            continue
    return False


def referrer_matches(allowed: list[str], referrer: str | None) -> bool:
    """Wildcards match the whole normalized URL: lower-case scheme and host, and a path."""
    if referrer is None:
        return False
    parts = urlsplit(referrer)
    normal = f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path or '/'}" + (
        f"?{parts.query}" if parts.query else ""
    )
    return any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), normal, re.DOTALL) for pattern in allowed
    )


def import_allows(record: TokenRecord, request: Request) -> bool:
    imported = record.token
    token = Token(
        id=record.id, description="", scopes=imported.scopes, account=imported.account, metadata=None,
        restrictions=imported.restrictions, not_before=None, expires=imported.expires, disabled=False, hint="",
        created=NOW, created_by="", rotated_to=None, access=LastUse(),
    )  # fmt: skip
    access = AccessRequest(request.scope, request.account, address=request.address, referrer=request.referrer)
    return (imported.expires is None or request.at < imported.expires) and check_access(token, access) is None


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    """Lists of these values. Half of them have one value, whose effect no other one hides."""
    element = st.sampled_from(values)
    return st.one_of(element.map(lambda value: [value]), st.lists(element, max_size=3))


actions = some(*ACTIONS, "read", "read", "READ")
groups = some("account", "diagnostics", "account", "diagnostics", "message", "admin", "nothing")
permissions = st.one_of(
    st.none(),
    st.fixed_dictionaries({}, optional={"actions": actions, "groups": groups, "more": st.none()}),
    st.fixed_dictionaries({"actions": st.just(["read"]), "groups": some("account", "diagnostics")}),
    some(
        {"action": "read", "group": "account"},
        {"action": "read", "group": "diagnostics"},
        {"action": "send", "group": "submit"},
        {"action": "read"},
    ).map(lambda grants: {"grants": grants}),
    st.sampled_from([[], "", 0, False, "read"]),
)
addresses = some(
    "10.0.0.0/8", "10.1.2.3/8", "10.1.2.3", "10.0.0.0/255.0.0.0", "x", "::/0", "2001:db8::1/64", "0.0.0.0/0"
)
referrers = some(
    *(
        "https://good.example/*",
        "*good.example/*",
        "good.example/*",
        "https://good.example",
        "*",
        "https://Good.example/*",
    ),
    *("https://good.example/a", "HTTPS://good.example/*", "*", "https://*", "*/a*", "*a"),
)
scopes = st.one_of(
    some("api", "metrics", "*", "api"), some("api", "smtp", "introspect", "api:stats", "mcp", "orders:read")
)
expiries = st.sampled_from([FUTURE, 1, 0, 4_070_908_800_000])
rate_limits = st.sampled_from([{"maxRequests": 1, "timeWindow": 60}, {"maxRequests": 1}, {}, None])


def restrictions(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


SCOPES = sorted(OPERATIONS)
ACCOUNTS = [None, "acc-a", "acc-b"]
ADDRESSES = ["10.1.2.3", "10.9.9.9", "11.0.0.1", "2001:db8::2"]
REFERRERS = [
    *(None, "https://good.example/", "https://good.example/a", "https://good.example/a?b=c"),
    *("http://good.example/", "https://evil.example/?https://good.example/", "https://evilgood.example/x"),
    *("HTTPS://GOOD.example/a", "https://good.example"),
]
TIMES = [NOW, NOW + timedelta(days=31), NOW + timedelta(days=3700)]


class Kind(NamedTuple):
    """Records that vary in some fields, and the requests that distinguish their meanings."""

    optional: dict[str, st.SearchStrategy[Any]]
    scopes: list[str] = ["api:stats:read"]  # noqa: RUF012  # never modified
    accounts: list[str | None] = [None]  # noqa: RUF012
    addresses: list[str] = ["10.1.2.3"]  # noqa: RUF012
    referrers: list[str | None] = [None]  # noqa: RUF012
    times: list[datetime] = [NOW]  # noqa: RUF012


KINDS = {
    "permissions": Kind({"scopes": scopes, "permissions": permissions}, scopes=SCOPES),
    "expressed": Kind(
        {
            "scopes": some("api", "metrics", "*"),
            "permissions": st.fixed_dictionaries(
                {"actions": st.just(["read"]), "groups": some("account", "diagnostics")}
            ),
        },
        scopes=SCOPES,
    ),
    "addresses": Kind({"restrictions": restrictions(addresses=addresses)}, addresses=ADDRESSES),
    "referrers": Kind({"restrictions": restrictions(referrers=referrers)}, referrers=REFERRERS),
    "others": Kind(
        {
            "account": st.sampled_from(["acc-a", "acc-b", "", None]),
            "expires": expiries,
            "narrower": st.just(1),
            "restrictions": restrictions(rateLimit=rate_limits, narrower=st.just(1)),
            "ip": st.just("127.0.0.1"),
        },
        accounts=ACCOUNTS,
        times=TIMES,
    ),
    "all": Kind(
        {
            "scopes": scopes,
            "account": st.sampled_from(["acc-a", "acc-b"]),
            "permissions": permissions,
            "restrictions": restrictions(addresses=addresses, referrers=referrers, rateLimit=rate_limits),
            "expires": expiries,
        },
        scopes=["api:stats:read", "api:tokens:write", "metrics"],
        accounts=[None, "acc-a"],
        addresses=["10.1.2.3", "11.0.0.1"],
        referrers=[None, "https://good.example/a?b=c"],
        times=[NOW, NOW + timedelta(days=3700)],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_is_rejected_or_allows_no_more_than_the_original(kind: str):
    optional, scopes, accounts, addresses, referrers, times = KINDS[kind]
    combinations = itertools.product(scopes, accounts, addresses, referrers, times)
    requests = list(itertools.starmap(Request, combinations))
    imported = 0

    @settings(max_examples=300, deadline=None)
    @given(record=st.fixed_dictionaries({"id": st.just(DIGEST)}, optional=optional))
    def check(record: dict[str, Any]) -> None:
        nonlocal imported
        token = import_of(record)
        if token is None:
            return
        imported += 1
        for request in requests:
            assert original_allows(record, request) or not import_allows(token, request), request
        limit = (record.get("restrictions") or {}).get("rateLimit")
        assert msgspec.to_builtins(token.token.restrictions.rate_limit) == limit

    check()
    assert imported > 10


def import_of(record: dict[str, Any]) -> TokenRecord | None:
    """The imported token, or None if the record is rejected."""
    text = base64.urlsafe_b64encode(msgspec.msgpack.encode(record)).decode()
    try:
        token = imports.shortened(imports.in_utc(token_record.decode(text)), NOW)
    except NotARecord:
        return None
    return None if any(imports.problems_of(token, NOW)) else token


def test_every_route_of_a_mapped_scope_has_that_permission_in_emailengine():
    routes = {
        ("read", "account"): ["GET /v1/accounts", "GET /v1/account/*"],
        ("read", "diagnostics"): ["GET /v1/stats", "GET /metrics"],
    }
    for permission, counterparts in emailengine_record.COUNTERPARTS.items():
        for scope in counterparts.values():
            routes_of_scope = routes_requiring(scope)
            assert routes_of_scope, scope
            for route in routes_of_scope:
                assert any(fnmatch.fnmatchcase(route, pattern) for pattern in routes[permission]), route


def routes_requiring(scope: str) -> list[str]:
    from tallystick.tokens.scopes import covers
    from tallystick_server.edge.api.openapi import documented
    from tallystick_server.edge.app import create_app
    from tallystick_server.edge.authorization.routes import rules_of
    from tallystick_server.edge.settings import Settings

    app: Any = create_app(Settings(nats_url="nats://127.0.0.1:1"))._app  # type: ignore[attr-defined]
    return [
        f"{method} {route.path_format}"
        for route, handler in documented(app)
        for method in handler.http_methods - {"HEAD", "OPTIONS"}
        if (required := rules_of(handler).scope) is not None and covers([scope], required)
    ]

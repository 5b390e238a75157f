"""A file of EmailEngine's tokens, with records of every kind, and what is said of each line."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

FUTURE = 2_000_000_000_000  # in milliseconds: the year 2033
STATS = {"actions": ["read"], "groups": ["diagnostics"]}
OUTSIDE = {"actions": ["read", "send"], "groups": ["message", "submit"]}


def secret(name: str) -> str:
    """A value as EmailEngine's tokens have it: 64 hexadecimal characters."""
    return hashlib.sha256(name.encode()).hexdigest()


def digest(name: str) -> str:
    return hashlib.sha256(bytes.fromhex(secret(name))).hexdigest()


def exported(name: str, **fields: Any) -> str:
    """What EmailEngine's `tokens export` prints for a token."""
    record = {"id": digest(name), "created": datetime(2025, 1, 1, tzinfo=UTC), "scopes": ["api"], **fields}
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(record)).decode().rstrip("=")


def limits(**fields: Any) -> dict[str, Any]:
    return {"restrictions": fields}


class Case(NamedTuple):
    """A line: the token's name, its fields, and the message about it; None if it is imported without one."""

    name: str
    fields: dict[str, Any]
    message: str | None = None


CASES = [
    Case("root", {"scopes": ["*"], "description": "root"}),
    Case("api", {"ip": "192.0.2.1", "remoteAddress": "192.0.2.2"}),
    Case("metrics", {"scopes": ["metrics"]}),
    Case("smtp", {"scopes": ["smtp", "imap-proxy"]}),
    Case("bound", {"account": "acc-a"}),
    Case("bound-to-the-same", {"account": "acc-a"}),
    Case("bound-by-address", {"account": "me@example.com"}),
    Case("metadata", {"metadata": '{"example":"value"}'}),
    Case("metadata-list", {"metadata": "[1,2]"}),
    Case("metadata-text", {"metadata": "not JSON"}),
    Case("expiring", {"expires": FUTURE}),
    Case("distant", {"expires": 4_070_908_800_000}, "expires: over ten years away, set to 20"),
    Case("expired", {"expires": 1_600_000_000_000}, "skipped: expired at 2020-09-13T12:26:40Z"),
    Case(
        "expired-and-narrowed",
        {"expires": 1_600_000_000_000, "permissions": OUTSIDE},
        "skipped: expired at 2020-09-13T12:26:40Z",
    ),
    Case("host-bits", limits(addresses=["127.0.0.1/8"])),
    Case("one-address", limits(addresses=["192.0.2.7"])),
    Case("referrers", limits(referrers=["*web.domain.org/*"])),
    Case("no-referrers", limits(referrers=[])),
    Case("limited", limits(rateLimit={"maxRequests": 3, "timeWindow": 3600})),
    Case("reads-stats", {"permissions": STATS}),
    Case("reads-stats-and-metrics", {"scopes": ["*"], "permissions": STATS}),
    Case("reads-accounts", {"permissions": {"actions": ["read"], "groups": ["account"]}}),
    Case("sends", {"permissions": OUTSIDE}, "permissions: narrows the token"),
    Case("reads-all", {"permissions": {"actions": ["read"]}}, "permissions: narrows the token"),
    Case("may-nothing", {"permissions": {}}, "permissions: EmailEngine cannot read this"),
    Case("no-actions", {"permissions": {"actions": []}}, "permissions: an empty list allows nothing"),
    Case("mistyped", {"permissions": {"actions": "read"}}, "permissions: EmailEngine cannot read this"),
    Case("newer", {"someFutureNarrowing": True}, "someFutureNarrowing: unknown field"),
    Case("newer-limit", limits(methods=["GET"]), "restrictions.methods: unknown field"),
    Case("no-scopes", {"scopes": []}, "scopes: an empty list allows nothing"),
    Case("no-addresses", limits(addresses=[]), "restrictions.addresses: an empty list allows nothing"),
    Case("half-a-limit", limits(rateLimit={"maxRequests": 3}), "restrictions.rateLimit.timeWindow: missing"),
    Case("mask", limits(addresses=["10.0.0.0/255.0.0.0"]), "restrictions.addresses[0]: EmailEngine matches"),
    Case("account-with-a-slash", {"account": "ac c/é"}, "account: 1 to 128 characters"),
    Case("account-too-long", {"account": "a" * 129}, "account: 1 to 128 characters"),
    Case("large-metadata", {"metadata": json.dumps({"a": "x" * 9000})}, "metadata: over 8192 bytes"),
]
BLANK_LINES_BEFORE = 2
FILE = (
    "\ufeff" + "\n" * BLANK_LINES_BEFORE + "\r\n".join(exported(case.name, **case.fields) for case in CASES)
)
"""As an editor may have saved it: with a byte order mark, blank lines and line ends of both kinds."""
REJECTED = {
    case.name: number
    for number, case in enumerate(CASES, 1 + BLANK_LINES_BEFORE)
    if case.message and not case.message.startswith(("skipped", "expires"))
}

"""EmailEngine's exported token records: base64url of a msgpack map whose ``id`` is the token's digest.

The import is never wider than the token was: what Tallystick cannot express exactly is rejected. The semantics are
those of EmailEngine's ``lib/tokens.js``, ``lib/token-permissions.js`` and ``lib/api-routes/permission-map.js``.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from tallystick.contracts import record_fields
from tallystick.contracts.messages import Digest, FieldError
from tallystick.contracts.record_fields import NotARecord
from tallystick.contracts.records import NewToken, RateLimit, Restrictions

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")

Permission = tuple[str, str]
"""An action on a group of routes."""

SCOPES = frozenset({"*", "api", "metrics", "smtp", "imap-proxy", "mcp", "mcp-manage"})
"""EmailEngine's scopes. Any other scope allows nothing there, and might allow something here."""

ACTIONS = ("read", "write", "send", "destructive")
GRANTABLE_GROUPS = (
    *("account", "mailbox", "message", "submit", "outbox", "export", "template", "blocklist", "webhook"),
    *("gateway", "events", "diagnostics", "logs"),
)

COUNTERPARTS: dict[Permission, dict[str, str]] = {
    ("read", "account"): {"api": "api:accounts:read"},
    ("read", "diagnostics"): {"api": "api:stats:read", "metrics": "metrics"},
}
"""The permissions that Tallystick's scopes express exactly: for each, the resulting scope by the scope that it narrows. A
test compares the routes behind them.
"""

NO_COUNTERPART = (
    "narrows the token in a way that Tallystick's scopes cannot express: set its scopes with --scope, "
    "or leave the record out (--skip-rejected)"
)
UNKNOWN_SCOPE = (
    "EmailEngine has no such scope, so it allows nothing there: set the token's scopes with --scope, "
    "or leave the record out (--skip-rejected)"
)
ALLOWS_NOTHING = "allows nothing at EmailEngine"
NOTHING_TO_IMPORT = ", so there is nothing to import: leave the record out (--skip-rejected)"
WIDER_REFERRER = (
    "a pattern that does not begin with http://, https:// or '*', does not end with '*', or has upper-case "
    "letters in its host would match more here than at EmailEngine"
)
CHANGE_AND_EXPORT = ": change it there and export again"

# Both alphabets of base64, as EmailEngine reads them.
_ALPHABETS = str.maketrans("-_", "+/")
# Python takes networks that EmailEngine never matches, as 10.0.0.0/255.0.0.0.
_ADDRESS = re.compile(r"[0-9a-f.:]+(/[0-9]{1,3})?", re.ASCII | re.IGNORECASE)
REFERRER = r"((https?://|\*).*)?\*"
"""The pattern of referrers that match no more here than at EmailEngine, upper-case letters in the host aside."""
_REFERRER = re.compile(REFERRER, re.DOTALL)


class Reading(NamedTuple):
    """A record to import.

    Args:
        digest: the token's digest.
        token: its fields here.
        created: when it was created at EmailEngine.
        replaced_scopes: whether the operator's scopes replace permissions that cannot be expressed.
    """

    digest: str
    token: NewToken
    created: datetime | None
    replaced_scopes: bool


class Loss(NamedTuple):
    """The restrictions that versions up to 0.1 dropped when they imported a record.

    Args:
        digest: the token's digest.
        fields: the names of the fields that narrowed the token.
        imported_scopes: the scopes it was imported with.
        scopes: the scopes it should have had; None where no scopes are narrow enough.
    """

    digest: str
    fields: tuple[str, ...]
    imported_scopes: tuple[str, ...]
    scopes: tuple[str, ...] | None


class _Restrictions(Struct, rename="camel"):
    addresses: tuple[str, ...] | None = None
    referrers: tuple[str, ...] | None = None
    rate_limit: RateLimit | None = None


class _Record(Struct, rename="camel"):
    id: Digest
    scopes: tuple[str, ...] = ("*",)
    description: str | None = None
    account: str | None = None
    metadata: str | dict[str, Any] | None = None
    restrictions: _Restrictions | None = None
    permissions: Any = None
    expires: int | float | datetime | None = None
    created: int | float | datetime | None = None
    # Where the token was created from. They restrict nothing and are not kept.
    ip: Any = None
    remote_address: Any = None


def read(text: str, scopes: Sequence[str] = ()) -> Reading:
    """Reads one record.

    Args:
        text: the record.
        scopes: what a record gets whose own scopes and permissions cannot be expressed here.

    Raises:
        NotARecord: it is not a valid record, or cannot be imported without becoming wider.
    """
    raw = _unpack(text)
    problems = list(record_fields.problems(raw, _Record))
    expires = _time(raw.get("expires"), "expires", problems)
    created = _time(raw.get("created"), "created", problems)
    if problems:
        raise NotARecord(*problems, expires=expires, account=raw.get("account"))
    record = msgspec.convert(raw, _Record)
    scopes_here = granted(record.scopes, record.permissions)
    replaced = scopes_here is None
    if scopes_here is None:
        scopes_here = tuple(scopes) or _unexpressed(record)
    if isinstance(scopes_here, FieldError):
        problems.append(scopes_here)
    limits = record.restrictions or _Restrictions()
    addresses = networks(limits.addresses, problems)
    problems += referrer_problems(limits.referrers or ())
    if problems or isinstance(scopes_here, FieldError):
        raise NotARecord(*map(_with_advice, problems), expires=expires, account=record.account)
    return Reading(
        digest=record.id,
        token=NewToken(
            description=record.description or "",
            scopes=scopes_here,
            account=record.account,
            metadata=metadata(record.metadata),
            restrictions=Restrictions(
                addresses=addresses,
                # There an empty list of referrers means the same as none.
                referrers=limits.referrers or None,
                rate_limit=limits.rate_limit,
            ),
            expires=expires,
        ),
        created=created,
        replaced_scopes=replaced,
    )


def loss(text: str, scopes: Sequence[str] = ()) -> Loss | None:
    """The restrictions that versions up to 0.1 dropped when they imported this record; None if they dropped none.

    Args:
        text: the record.
        scopes: what a record gets whose own scopes and permissions cannot be expressed here.

    Raises:
        NotARecord: it is not a valid record.
    """
    raw = _unpack(text)
    limits = raw.get("restrictions")
    limits = limits if isinstance(limits, dict) else {}
    fields = [
        problem.field
        for problem in record_fields.problems(raw, _Record)
        if problem.message == record_fields.UNKNOWN_FIELD
    ]
    if limits.get("addresses") == []:
        fields.append("restrictions.addresses")
    digest, imported = _identity(raw)
    narrow: tuple[str, ...] | FieldError | None = None
    if raw.get("permissions") is not None:
        if not fields:
            scopes_here = granted(imported, raw["permissions"])
            narrow = tuple(scopes) or None if scopes_here is None else scopes_here
        fields.append("permissions")
    return (
        Loss(digest, tuple(fields), imported, None if isinstance(narrow, FieldError) else narrow)
        if fields
        else None
    )


def _identity(raw: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    try:
        return (
            msgspec.convert(raw.get("id"), Digest),
            msgspec.convert(raw.get("scopes", ["*"]), tuple[str, ...]),
        )
    except msgspec.ValidationError:
        raise NotARecord("neither our JSON nor a record of EmailEngine") from None


def _unpack(text: str) -> dict[str, Any]:
    try:
        encoded = text.rstrip("=").translate(_ALPHABETS)
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        value = msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        raise NotARecord("neither our JSON nor base64url of a msgpack map") from None
    if not isinstance(value, dict):
        raise NotARecord("neither our JSON nor base64url of a msgpack map")
    return value


def _unexpressed(record: _Record) -> FieldError:
    if record.permissions is None:
        return FieldError(field="scopes", message=UNKNOWN_SCOPE)
    return FieldError(field="permissions", message=NO_COUNTERPART)


def _with_advice(problem: FieldError) -> FieldError:
    """The problem of a record, with what its operator can do."""
    if problem.message.endswith(ALLOWS_NOTHING):
        return FieldError(field=problem.field, message=problem.message + NOTHING_TO_IMPORT)
    if problem.message == WIDER_REFERRER:
        return FieldError(field=problem.field, message=problem.message + CHANGE_AND_EXPORT)
    return problem


def granted(scopes: tuple[str, ...], permissions: Any) -> tuple[str, ...] | FieldError | None:
    """The scopes that allow here what scopes and permissions allow at EmailEngine; None if no scopes do.

    Returns a problem if the token allows nothing, or if EmailEngine cannot read its permissions: it denies everything then.
    """
    if not scopes:
        return FieldError(field="scopes", message=f"an empty list {ALLOWS_NOTHING}")
    if permissions is None:
        return scopes if set(scopes) <= SCOPES else None
    if not (pairs := _pairs(permissions)):
        reason = "an empty list" if pairs is not None else "EmailEngine cannot read this, and so it"
        return FieldError(field="permissions", message=f"{reason} {ALLOWS_NOTHING}")
    if not set(scopes) <= {"*", "api", "metrics"} or not pairs <= COUNTERPARTS.keys():
        return None
    narrowed = {
        counterpart
        for pair in pairs
        for scope, counterpart in COUNTERPARTS[pair].items()
        if scope in scopes or "*" in scopes
    }
    if not narrowed:
        return FieldError(field="permissions", message=f"together with the scopes, this {ALLOWS_NOTHING}")
    return tuple(sorted(narrowed))


def _pairs(permissions: Any) -> set[Permission] | None:
    """The pairs of action and group in permissions; None if EmailEngine cannot read them.

    A missing list stands for all actions or groups, an empty one for none. ``grants`` lists pairs, and allows no other key.
    """
    if not isinstance(permissions, dict) or not permissions:
        return None
    if permissions.keys() == {"grants"}:
        return _granted_pairs(permissions["grants"])
    if not permissions.keys() <= {"actions", "groups"}:
        return None
    actions = permissions.get("actions", ACTIONS)
    groups = permissions.get("groups", GRANTABLE_GROUPS)
    for values, known in ((actions, ACTIONS), (groups, (*GRANTABLE_GROUPS, "admin"))):
        if not isinstance(values, (list, tuple)) or not all(
            isinstance(value, str) and value in known for value in values
        ):
            return None
    return {(action, group) for action in actions for group in groups}


def _granted_pairs(grants: Any) -> set[Permission] | None:
    if not isinstance(grants, list):
        return None
    pairs: set[Permission] = set()
    for grant in grants:
        if not isinstance(grant, dict) or grant.keys() != {"action", "group"}:
            return None
        pair = _pairs({"actions": [grant["action"]], "groups": [grant["group"]]})
        if pair is None:
            return None
        pairs |= pair
    return pairs


def networks(addresses: tuple[str, ...] | None, problems: list[FieldError]) -> tuple[str, ...] | None:
    """The same networks without host bits, which EmailEngine ignores.

    Args:
        addresses: IP addresses and networks; None for everywhere.
        problems: the list to which their faults are added.
    """
    if addresses is None:
        return None
    if not addresses:
        problems.append(FieldError(field="restrictions.addresses", message=f"an empty list {ALLOWS_NOTHING}"))
    without_host_bits = []
    for index, text in enumerate(addresses):
        try:
            if not _ADDRESS.fullmatch(text):
                raise ValueError  # noqa: TRY301  # handled as what the library rejects
            without_host_bits.append(str(ip_network(text, strict=False)) if "/" in text else text)
        except ValueError:
            message = (
                "EmailEngine matches only IP addresses and CIDR networks, so this entry allows nothing there"
            )
            problems.append(FieldError(field=f"restrictions.addresses[{index}]", message=message))
    return tuple(without_host_bits)


def referrer_problems(referrers: tuple[str, ...]) -> Iterator[FieldError]:
    """EmailEngine compares the whole URL as it is. Tallystick compares neither the query nor, without ``://``, the
    scheme, and takes upper and lower case in scheme and host as the same.
    """
    for index, text in enumerate(referrers):
        scheme_and_host = "/".join(text.split("/")[: 3 if "://" in text else 1])
        if not _REFERRER.fullmatch(text) or scheme_and_host != scheme_and_host.lower():
            yield FieldError(field=f"restrictions.referrers[{index}]", message=WIDER_REFERRER)


def metadata(value: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """A JSON object decoded; any other text as it is, under the key ``emailengine``."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {"emailengine": value}


def _time(value: Any, field: str, problems: list[FieldError]) -> datetime | None:
    """EmailEngine's times: milliseconds since the epoch, or msgpack's timestamp extension."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return _EPOCH + timedelta(milliseconds=int(value))
    except (OverflowError, ValueError):
        problems.append(FieldError(field=field, message="a time out of range"))
        return None

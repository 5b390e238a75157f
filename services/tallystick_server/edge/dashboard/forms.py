"""Converts between a token and the fields of its form."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import NewToken, RateLimit, Restrictions, Token
from tallystick.contracts.tokens import RateLimitUpdate, RestrictionsUpdate, TokenUpdate
from tallystick.tokens import rules

Form = Mapping[str, str]


class Suggestion(NamedTuple):
    scope: str
    purpose: str


SUGGESTED = (
    Suggestion("api", "manage tokens and accounts, read statistics"),
    Suggestion("api:tokens:read", "list and view tokens"),
    Suggestion("api:tokens:write", "create, edit and rotate tokens"),
    Suggestion("api:accounts:read", "list and view accounts"),
    Suggestion("metrics", "scrape /metrics with Prometheus"),
    Suggestion("introspect", "introspect other tokens (RFC 7662)"),
    Suggestion("admin", "use this dashboard"),
    Suggestion("*", "full access"),
)
EXPIRIES = (
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("365", "1 year"),
    ("never", "Never"),
    ("at", "Custom date"),
)
WINDOWS = (("1", "second"), ("60", "minute"), ("3600", "hour"), ("86400", "day"))


class Filled(NamedTuple):
    """The token that a form describes, and the faults of the form."""

    token: NewToken
    problems: tuple[FieldError, ...]


def empty(**fields: str) -> Form:
    """A new form, with some fields filled."""
    return {"expires": "30", "window": "60", **fields}


def of(token: Token) -> Form:
    """The form of an existing token."""
    return {**_fields(token), "revision": str(token.revision)}


def _fields(token: Token | NewToken) -> Form:
    limits = token.restrictions
    fields = {
        "description": token.description,
        "scope": "\n".join(token.scopes),
        "account": token.account or "",
        "metadata": _pretty(token.metadata),
        "addresses": "\n".join(limits.addresses or ()),
        "referrers": "\n".join(limits.referrers or ()),
        "window": "60",
        "expires": "at" if token.expires else "never",
        "expires_at": _local(token.expires),
        "not_before": _local(token.not_before),
    }
    if limits.rate_limit is not None:
        fields["requests"] = str(limits.rate_limit.max_requests)
        fields["window"] = str(limits.rate_limit.time_window)
    return fields


def read(form: Form, now: datetime, stored: Token | None = None) -> Filled:
    """Reads a form. If a field cannot be read, the other fields are validated here, so that all faults are reported at
    once; otherwise the tokens service validates them.

    Args:
        form: the form.
        now: the current time.
        stored: the token that is edited; None for a new one.
    """
    problems: list[FieldError] = []

    def attempt(field: str, read_field: Any) -> Any:
        try:
            return read_field(form, now)
        except ValueError as error:
            problems.append(FieldError(field=field, message=str(error)))
            return None

    token = NewToken(
        description=form.get("description", "").strip(),
        scopes=tuple(dict.fromkeys(re.split(r"[\s,]+", form.get("scope", "").strip())))
        if form.get("scope", "").strip()
        else (),
        account=form.get("account", "").strip() or None,
        metadata=attempt("metadata", _metadata),
        restrictions=Restrictions(
            addresses=_lines(form.get("addresses", "")),
            referrers=_lines(form.get("referrers", "")),
            rate_limit=attempt("rateLimit", _rate_limit),
        ),
        not_before=attempt("notBefore", _not_before),
        expires=attempt("expires", _expires),
    )
    if problems:
        # An unchanged expiry may be in the past.
        is_unchanged = stored is not None and _local(token.expires) == _local(stored.expires)
        checked = structs.replace(token, expires=None) if is_unchanged else token
        problems += rules.problems(rules.in_utc(checked), now, stored=stored.restrictions if stored else None)
    return Filled(token, tuple(problems))


def changes(token: Token, edited: NewToken) -> TokenUpdate:
    """The update that turns a token into the edited one. A field that was not edited is left out: the form shows neither
    line breaks nor fractions of a second, so sending it back would change it.
    """
    original = read(of(token), token.created).token
    fields = {
        name: value
        for name, value in structs.asdict(edited).items()
        if name not in {"account", "restrictions", "metadata"} and value != getattr(original, name)
    }
    if edited.metadata != original.metadata:
        fields["metadata"] = _merge_patch(original.metadata, edited.metadata)
    restrictions = {
        name: value
        for name, value in structs.asdict(edited.restrictions).items()
        if value != getattr(original.restrictions, name)
    }
    limit = restrictions.get("rate_limit")
    if limit is not None:
        restrictions["rate_limit"] = RateLimitUpdate(**structs.asdict(limit))
    if restrictions:
        fields["restrictions"] = RestrictionsUpdate(**restrictions)
    return TokenUpdate(**fields)


class Difference(NamedTuple):
    """A field of two versions of a token, as text."""

    name: str
    current: str
    edited: str


def differences(current: Token, edited: NewToken) -> list[Difference]:
    """The fields in which an edited token differs from the current one."""
    names = {
        "description": "Description",
        "scope": "Scopes",
        "metadata": "Metadata",
        "addresses": "Allowed IP addresses",
        "referrers": "Allowed referrers",
        "requests": "Requests",
        "window": "Time window (seconds)",
        "expires_at": "Expires",
        "not_before": "Valid from",
    }
    theirs, yours = of(current), _fields(edited)
    return [
        Difference(label, theirs.get(name, ""), yours.get(name, ""))
        for name, label in names.items()
        if theirs.get(name, "") != yours.get(name, "")
    ]


def _merge_patch(before: Any, after: Any) -> Any:
    """The merge patch (RFC 7396) that turns one value into the other."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return after
    removed = dict.fromkeys(before.keys() - after.keys())
    return removed | {
        name: _merge_patch(before.get(name), value)
        for name, value in after.items()
        if name not in before or value != before[name]
    }


def by_field(problems: tuple[FieldError, ...], form: Form) -> dict[str, list[str]]:
    """Messages by the form field at which they are shown, in the order of the page. Those of no field are under an empty
    name.
    """
    messages: dict[str, list[str]] = {field: [] for field in ("", *_FIELDS)}
    for problem in problems:
        path = problem.field.removeprefix("restrictions.")
        name = re.split(r"[.\[]", path)[0]
        if name not in _FIELDS:
            messages[""].append(f"{problem.field}: {problem.message}".removeprefix(": "))
        elif place := re.fullmatch(r"\w+\[([0-9]+)\]", path):
            messages[name].append(f"{_place(form, name, int(place[1]))}: {problem.message}")
        else:
            messages[name].append(problem.message)
    return {
        field: [*texts[:MAX_SHOWN], *([f"{len(texts) - MAX_SHOWN} more"] if len(texts) > MAX_SHOWN else [])]
        for field, texts in messages.items()
        if texts
    }


MAX_SHOWN = 10
"""The number of messages that one field shows."""
_FIELDS = (
    "description", "scopes", "account", "expires", "addresses", "referrers", "rateLimit", "notBefore", "metadata",
)  # fmt: skip


def _place(form: Form, field: str, index: int) -> str:
    """The position of a list item in the form. Blank lines count."""
    filled = [number for number, line in enumerate(form.get(field, "").splitlines(), 1) if line.strip()]
    return f"line {filled[index]}" if index < len(filled) else f"{field.removesuffix('s')} {index + 1}"


def _lines(text: str) -> tuple[str, ...] | None:
    return tuple(line.strip() for line in text.splitlines() if line.strip()) or None


def _metadata(form: Form, _: datetime) -> dict[str, Any] | None:
    text = form.get("metadata", "").strip()
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError('must be a JSON object, such as {"team": "billing"}') from None


def _rate_limit(form: Form, _: datetime) -> RateLimit | None:
    requests, window = form.get("requests", "").strip(), form.get("window", "").strip()
    if not requests:
        return None
    if not (_whole(requests) and _whole(window)):
        raise ValueError("must be a whole number")
    return RateLimit(max_requests=int(requests), time_window=int(window))


def _not_before(form: Form, _: datetime) -> datetime | None:
    return _time(form, "not_before")


def _expires(form: Form, now: datetime) -> datetime | None:
    chosen = form.get("expires", "")
    if chosen == "never":
        return None
    if chosen == "at":
        time = _time(form, "expires_at")
        if time is None:
            raise ValueError("enter a date and time, or choose another option")
        return time
    if chosen not in {value for value, _ in EXPIRIES}:
        raise ValueError("choose one of the options")
    return (now + timedelta(days=int(chosen))).replace(microsecond=0)


def _time(form: Form, name: str) -> datetime | None:
    """The time in a field. The script adds the time with its time zone; without script, the input is in UTC."""
    text = form.get(f"{name}_utc", "").strip() or form.get(name, "").strip()
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # a time before year 1 or after year 9999 cannot be converted to UTC
        raise ValueError("must be a date and time") from None


def _local(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if time else ""


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def _pretty(metadata: dict[str, Any] | None) -> str:
    return "" if metadata is None else msgspec.json.format(msgspec.json.encode(metadata), indent=2).decode()

"""A token's fields as a form has them, and back."""

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
    what: str


SUGGESTED = (
    Suggestion("api", "everything under /v1: tokens, accounts, statistics"),
    Suggestion("api:tokens:read", "list and show tokens"),
    Suggestion("api:tokens:write", "make, edit and rotate tokens"),
    Suggestion("api:accounts:read", "list and show accounts"),
    Suggestion("metrics", "scrape /metrics, for Prometheus"),
    Suggestion("introspect", "ask about other tokens (RFC 7662)"),
    Suggestion("admin", "use this dashboard"),
    Suggestion("*", "everything, always"),
)
EXPIRIES = (
    ("7", "in 7 days"),
    ("30", "in 30 days"),
    ("90", "in 90 days"),
    ("365", "in one year"),
    ("never", "never"),
    ("at", "at a time of my choice"),
)
WINDOWS = (("1", "second"), ("60", "minute"), ("3600", "hour"), ("86400", "day"))


class Filled(NamedTuple):
    """What a form says, or what is wrong with it."""

    token: NewToken
    problems: tuple[FieldError, ...]


def empty(**given: str) -> Form:
    """A new form."""
    return {"expires": "30", "window": "60", **given}


def of(token: Token) -> Form:
    """The form that says what a token is now."""
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
    """What a form says. If some of it cannot be read, the rules judge the rest, so that all is reported at once; else the
    tokens service does.

    Args:
        form: the form.
        now: the time.
        stored: the token that is edited.
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
        # An expiry that is kept may have passed.
        is_kept = stored is not None and _local(token.expires) == _local(stored.expires)
        judged = structs.replace(token, expires=None) if is_kept else token
        problems += rules.problems(rules.in_utc(judged), now, stored=stored.restrictions if stored else None)
    return Filled(token, tuple(problems))


def changes(token: Token, wanted: NewToken) -> TokenUpdate:
    """The edit that makes a token what its form says. A field that stays as the form showed it is left out: the form
    shows neither line ends nor fractions of a second.
    """
    shown = read(of(token), token.created).token
    fields = {
        name: value
        for name, value in structs.asdict(wanted).items()
        if name not in {"account", "restrictions", "metadata"} and value != getattr(shown, name)
    }
    if wanted.metadata != shown.metadata:
        fields["metadata"] = _merge_patch(shown.metadata, wanted.metadata)
    restrictions = {
        name: value
        for name, value in structs.asdict(wanted.restrictions).items()
        if value != getattr(shown.restrictions, name)
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
    wanted: str


def differences(current: Token, wanted: NewToken) -> list[Difference]:
    """The fields in which a filled form differs from the token."""
    names = {
        "description": "Description",
        "scope": "Scopes",
        "metadata": "Metadata",
        "addresses": "Addresses",
        "referrers": "Pages",
        "requests": "Requests",
        "window": "Window in seconds",
        "expires_at": "Expires",
        "not_before": "Not before",
    }
    theirs, yours = of(current), _fields(wanted)
    return [
        Difference(label, theirs.get(name, ""), yours.get(name, ""))
        for name, label in names.items()
        if theirs.get(name, "") != yours.get(name, "")
    ]


def _merge_patch(before: Any, after: Any) -> Any:
    """What RFC 7396 merges into one value to get the other."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return after
    removed = dict.fromkeys(before.keys() - after.keys())
    return removed | {
        name: _merge_patch(before.get(name), value)
        for name, value in after.items()
        if name not in before or value != before[name]
    }


def by_field(problems: tuple[FieldError, ...], form: Form) -> dict[str, list[str]]:
    """Problems by the field of the form at which they are shown, in the order of the page; under an empty name those of
    no field.
    """
    shown: dict[str, list[str]] = {field: [] for field in ("", *_FIELDS)}
    for problem in problems:
        path = problem.field.removeprefix("restrictions.")
        name = re.split(r"[.\[]", path)[0]
        if name not in _FIELDS:
            shown[""].append(f"{problem.field}: {problem.message}".removeprefix(": "))
        elif place := re.fullmatch(r"\w+\[([0-9]+)\]", path):
            shown[name].append(f"{_place(form, name, int(place[1]))}: {problem.message}")
        else:
            shown[name].append(problem.message)
    return {
        field: [*texts[:MAX_SHOWN], *([f"{len(texts) - MAX_SHOWN} more"] if len(texts) > MAX_SHOWN else [])]
        for field, texts in shown.items()
        if texts
    }


MAX_SHOWN = 10
"""Problems that are shown at one field."""
_FIELDS = (
    "description", "scopes", "account", "expires", "addresses", "referrers", "rateLimit", "notBefore", "metadata",
)  # fmt: skip


def _place(form: Form, field: str, index: int) -> str:
    """Where an item of a list stands in the form; blank lines count."""
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
        raise ValueError('a JSON object, as in {"team": "billing"}') from None


def _rate_limit(form: Form, _: datetime) -> RateLimit | None:
    requests, window = form.get("requests", "").strip(), form.get("window", "").strip()
    if not requests:
        return None
    if not (_whole(requests) and _whole(window)):
        raise ValueError("a whole number of requests")
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
            raise ValueError("a time, or choose another expiry")
        return time
    if chosen not in {value for value, _ in EXPIRIES}:
        raise ValueError("one of the choices")
    return (now + timedelta(days=int(chosen))).replace(microsecond=0)


def _time(form: Form, name: str) -> datetime | None:
    """With script the browser adds the time with its zone; without it, what was typed is UTC."""
    text = form.get(f"{name}_utc", "").strip() or form.get(name, "").strip()
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # an instant before year 1 or after year 9999 has no name in UTC
        raise ValueError("a date and a time") from None


def _local(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if time else ""


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def _pretty(metadata: dict[str, Any] | None) -> str:
    return "" if metadata is None else msgspec.json.format(msgspec.json.encode(metadata), indent=2).decode()

"""EmailEngine's request body for a new token. What Tallystick cannot express exactly is rejected, by the same rules as
in the import: `tallystick.tokens.emailengine_record`.
"""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from tallystick.contracts import validation
from tallystick.contracts.messages import FieldError, Time
from tallystick.contracts.records import NewToken, RateLimit, Restrictions
from tallystick.tokens import emailengine_record, rules
from tallystick_server.edge.http.bodies import is_too_large
from tallystick_server.edge.http.errors import ProblemError

LONGEST = timedelta(days=3652)
"""The longest lifetime that is requested. The tokens service allows one day more, so clocks may differ."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NO_COUNTERPART = (
    "narrows the token in a way that Tallystick's scopes cannot express: omit permissions and list the scopes instead, "
    "such as api:stats:read"
)
_TIME = "must be a date (2030-01-31) or a time with a time zone (2030-01-31T09:00:00Z)"


_List = tuple[str, ...] | str | bool | None


class EmailEngineRestrictions(Struct, rename="camel", forbid_unknown_fields=True):
    """The restrictions of a token. ``false`` and null mean no restriction; so does an empty string for the lists.

    Args:
        addresses: one or more IP addresses and networks; host bits are ignored.
        referrers: one or more patterns.
    """

    addresses: _List = None
    referrers: _List = None
    rate_limit: RateLimit | bool | None = None


_Restrictions = EmailEngineRestrictions | bool | None


class EmailEngineToken(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """EmailEngine's request to create a token.

    Args:
        description: leading and trailing white space is removed.
        scopes: one or more scopes.
        account: the account that the token is bound to.
        metadata: a JSON object, or JSON in a string. JSON other than an object is stored under the key ``emailengine``.
        restrictions: restrictions by address, referrer and rate.
        permissions: EmailEngine's restriction of the scopes. It is converted if scopes express it exactly.
        not_before: a time with a time zone.
        expires: a date, or a time with a time zone. It is capped at ten years from now.
        ip: ignored.
        remote_address: ignored.
    """

    description: str = ""
    scopes: tuple[str, ...] | str = ()
    account: str | None = None
    metadata: dict[str, Any] | str | None = None
    restrictions: _Restrictions = None
    permissions: Any = None
    not_before: Time | None = None
    expires: str | None = None
    ip: Any = None
    remote_address: Any = None


def new_token(form: EmailEngineToken, now: datetime) -> NewToken:
    """The token that a form describes. The tokens service validates it like any other.

    Raises:
        ProblemError: Tallystick cannot express it exactly. The error lists all such fields.
    """
    token, problems = _read(form, now)
    if problems:
        raise ProblemError("bad_request", errors=tuple(problems))
    return token


def form_problems(form: EmailEngineToken, now: datetime) -> list[FieldError]:
    """All faults of a form that can be detected without the database."""
    token, problems = _read(form, now)
    fields = {problem.field.partition("[")[0] for problem in problems}
    limits = token.restrictions
    if "restrictions.addresses" in fields:
        limits = msgspec.structs.replace(limits, addresses=None)  # incomplete: only the readable ones
    candidate = msgspec.structs.replace(
        token,
        # The scopes that the permissions leave are unknown.
        scopes=_scopes_of(form) if "permissions" in fields else token.scopes,
        restrictions=limits,
    )
    return validation.with_others(problems, rules.problems(rules.in_utc(candidate), now))


def _read(form: EmailEngineToken, now: datetime) -> tuple[NewToken, list[FieldError]]:
    """The token that a form describes, as far as Tallystick can express it, and the faults of the rest."""
    problems: list[FieldError] = []
    token = NewToken(
        description=form.description.strip(),
        scopes=_scopes(form, problems),
        account=form.account,
        metadata=_metadata(form.metadata, problems),
        restrictions=_restrictions(form.restrictions, problems),
        not_before=form.not_before,
        expires=_expires(form.expires, now, problems),
    )
    return token, list(map(_with_advice, problems))


def _with_advice(problem: FieldError) -> FieldError:
    """The problem, with advice on how to fix it."""
    advice = ""
    if problem.message.endswith(emailengine_record.ALLOWS_NOTHING):
        advice = ": leave it out, or name what the token is to be allowed"
    elif problem.message == emailengine_record.WIDER_REFERRER:
        advice = ": write it as in https://example.org/*"
    return FieldError(field=problem.field, message=problem.message + advice)


def _scopes_of(form: EmailEngineToken) -> tuple[str, ...]:
    return (form.scopes,) if isinstance(form.scopes, str) else form.scopes


def _scopes(form: EmailEngineToken, problems: list[FieldError]) -> tuple[str, ...]:
    scopes = _scopes_of(form)
    if form.permissions is None:
        return scopes
    granted = emailengine_record.granted(scopes, form.permissions)
    if granted is None:
        granted = FieldError(field="permissions", message=_NO_COUNTERPART)
    if isinstance(granted, FieldError):
        problems.append(granted)
        return ()
    return granted


def _metadata(value: dict[str, Any] | str | None, problems: list[FieldError]) -> dict[str, Any] | None:
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        decoded = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        problems.append(FieldError(field="metadata", message="must be an object, or JSON in a string"))
        return None
    if is_too_large(decoded):
        problems.append(
            FieldError(field="metadata", message="contains a number that does not fit in 64 bits")
        )
    return emailengine_record.metadata(value)


def _restrictions(form: _Restrictions, problems: list[FieldError]) -> Restrictions:
    if not isinstance(form, EmailEngineRestrictions):
        _require_false(form, "restrictions", problems)
        return Restrictions()
    referrers = _list(form.referrers, "restrictions.referrers", problems)
    limit = form.rate_limit
    if not isinstance(limit, RateLimit):
        _require_false(limit, "restrictions.rateLimit", problems)
        limit = None
    addresses = _list(form.addresses, "restrictions.addresses", problems)
    problems += emailengine_record.referrer_problems(referrers or ())
    return Restrictions(
        addresses=emailengine_record.networks(addresses, problems),
        # At EmailEngine an empty list of referrers restricts nothing.
        referrers=referrers or None,
        rate_limit=limit,
    )


def _list(value: _List, field: str, problems: list[FieldError]) -> tuple[str, ...] | None:
    """The values as a tuple; None if they restrict nothing."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        return (value,) if value else None
    _require_false(value, field, problems)
    return None


def _require_false(value: object, field: str, problems: list[FieldError]) -> None:
    if value is True:
        problems.append(FieldError(field=field, message="must not be true: omit it, or list what is allowed"))


def _expires(text: str | None, now: datetime, problems: list[FieldError]) -> datetime | None:
    if text is None:
        return None
    try:
        expires = msgspec.convert(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text, Time)
    except msgspec.ValidationError:
        problems.append(FieldError(field="expires", message=_TIME))
        return None
    # Rounded to a day, so that a retry with the same Idempotency-Key is the same request.
    latest = datetime.combine(now.astimezone(UTC).date() + LONGEST, time(), UTC)
    return min(expires, latest)

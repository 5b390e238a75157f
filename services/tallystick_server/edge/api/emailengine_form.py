"""EmailEngine's request body for a new token. What Tallystick cannot express exactly is rejected, as by the import: the
rules are those of `tallystick.tokens.emailengine_record`.
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
"""The longest lifetime that is asked for: the tokens service allows a day more, so the clocks may differ."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NO_COUNTERPART = (
    "narrows the token in a way that Tallystick's scopes cannot express: leave permissions out and name the scopes that "
    "the token is to have, as in api:stats:read"
)
_TIME = "not a date (2030-01-31) or a time with its zone (2030-01-31T09:00:00Z)"


_List = tuple[str, ...] | str | bool | None


class EmailEngineRestrictions(Struct, rename="camel", forbid_unknown_fields=True):
    """Where and how often a token works. ``false``, null and, of the lists, the empty string restrict nothing.

    Args:
        addresses: IP addresses and networks, or one; host bits are ignored.
        referrers: patterns, or one.
    """

    addresses: _List = None
    referrers: _List = None
    rate_limit: RateLimit | bool | None = None


_Restrictions = EmailEngineRestrictions | bool | None


class EmailEngineToken(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What EmailEngine's clients send to make a token.

    Args:
        description: white space around it is removed.
        scopes: the scopes, or one.
        account: the account that the token is bound to.
        metadata: a JSON text, or an object. A JSON text that is no object is kept under the key ``emailengine``.
        restrictions: where and how often the token works.
        permissions: EmailEngine's narrowing of the scopes. It becomes scopes if those express it exactly.
        not_before: a time with its zone.
        expires: a date or a time with its zone. A later one than ten years from now becomes ten years from now.
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
    """The token that a form asks for, to be judged further as any other.

    Raises:
        ProblemError: it cannot be expressed without becoming wider; with every field that is wrong.
    """
    token, problems = _read(form, now)
    if problems:
        raise ProblemError("bad_request", errors=tuple(problems))
    return token


def form_problems(form: EmailEngineToken, now: datetime) -> list[FieldError]:
    """Everything that is wrong with a form, as far as it can be told without the database."""
    token, problems = _read(form, now)
    fields = {problem.field.partition("[")[0] for problem in problems}
    limits = token.restrictions
    if "restrictions.addresses" in fields:
        limits = msgspec.structs.replace(limits, addresses=None)  # only what was readable is left of them
    judged = msgspec.structs.replace(
        token,
        # Those that the permissions would leave cannot be told.
        scopes=_scopes_of(form) if "permissions" in fields else token.scopes,
        restrictions=limits,
    )
    return validation.with_others(problems, rules.problems(rules.in_utc(judged), now))


def _read(form: EmailEngineToken, now: datetime) -> tuple[NewToken, list[FieldError]]:
    """The token that a form asks for, as far as it can be expressed; and why the rest cannot."""
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
    """The problem, with what the client can do about it."""
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
        problems.append(FieldError(field="metadata", message="the text is not JSON"))
        return None
    if is_too_large(decoded):
        problems.append(FieldError(field="metadata", message="a number beyond 64 bits"))
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
    """A list, or a single value as a list of one; None where it restricts nothing."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        return (value,) if value else None
    _require_false(value, field, problems)
    return None


def _require_false(value: object, field: str, problems: list[FieldError]) -> None:
    if value is True:
        problems.append(
            FieldError(field=field, message="true says nothing: leave it out, or name what is allowed")
        )


def _expires(text: str | None, now: datetime, problems: list[FieldError]) -> datetime | None:
    if text is None:
        return None
    try:
        expires = msgspec.convert(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text, Time)
    except msgspec.ValidationError:
        problems.append(FieldError(field="expires", message=_TIME))
        return None
    # A whole day, so that a request that is repeated with its Idempotency-Key asks for the same.
    latest = datetime.combine(now.astimezone(UTC).date() + LONGEST, time(), UTC)
    return min(expires, latest)

"""The validation of tokens and accounts. Pure: no clock and no database; the caller passes the time."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from tallystick.contracts.input_limits import shown_value, too_deep
from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import NewToken, RateLimit, Restrictions
from tallystick.contracts.verification import RejectedRequest
from tallystick.tokens.addresses import network
from tallystick.tokens.scopes import MAX_COUNT, is_scope

MAX_DESCRIPTION = 1024  # characters
MAX_METADATA = 8192  # bytes of JSON
MAX_ADDRESSES = 256
MAX_REFERRERS = 64
MAX_REQUEST_ID = 128  # characters
MAX_REFERRER = 512  # characters
MAX_WILDCARDS = 8  # in one referrer pattern
MAX_LOGGED = 512  # characters of a rejected request's texts; a token's log of 100 then fits one answer
MAX_REQUESTS = 1_000_000_000
MAX_TIME_WINDOW = 366 * 24 * 3600  # seconds
MAX_GRACE_S = 30 * 24 * 3600
MAX_IDEMPOTENCY_KEY = 255  # characters
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_LIFETIME = timedelta(days=3653)  # ten years with their leap days

# An account's name is used as a path segment, as a header value and in logs.
MAX_ACCOUNT = 128  # characters
ACCOUNT = rf"(?!\.{{1,2}}$)[A-Za-z0-9._~!$&'()*+,;=:@-]{{1,{MAX_ACCOUNT}}}"
"""The pattern of an account's name. It means the same in JSON Schema (ECMA-262)."""
ACCOUNT_FAULT = f"1 to {MAX_ACCOUNT} characters that a URL path may hold"
_ACCOUNT = re.compile(ACCOUNT, re.ASCII)

_TOKEN_ID = re.compile(r"tok_[0-9a-z]{26}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def is_token_id(text: str) -> bool:
    return _TOKEN_ID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether this may be a token's digest, which is its id at EmailEngine."""
    return _DIGEST.fullmatch(text) is not None


def is_account(name: str) -> bool:
    """1 to 128 characters that a URL's path segment may hold unescaped, and neither ``.`` nor ``..``."""
    return _ACCOUNT.fullmatch(name) is not None


def problems(token: NewToken, now: datetime, *, stored: Restrictions | None = None) -> list[FieldError]:
    """All faults of a token to create or edit, by JSON field; empty if it is valid.

    Args:
        token: the token's fields.
        now: the current time.
        stored: the restrictions of the token that is edited. Unchanged referrers stay valid: they may have been stored
            under wider limits.
    """
    faults = [FieldError(field="description", message=text) for text in _description(token.description)]
    faults += _scopes(token.scopes)
    if token.account is not None and not is_account(token.account):
        faults.append(FieldError(field="account", message=ACCOUNT_FAULT))
    if token.metadata is not None and too_deep(token.metadata):
        faults.append(FieldError(field="metadata", message="nested too deeply"))
    elif token.metadata is not None and len(msgspec.json.encode(token.metadata)) > MAX_METADATA:
        faults.append(FieldError(field="metadata", message=f"over {MAX_METADATA} bytes"))
    elif token.metadata is not None and _holds_nul(token.metadata):
        faults.append(FieldError(field="metadata", message="a NUL character"))
    faults += _restrictions(token.restrictions, stored)
    faults += _times(token, now)
    return faults


def canonical(restrictions: Restrictions) -> Restrictions:
    """The same restrictions with each network written in one way."""
    if restrictions.addresses is None:
        return restrictions
    networks = {str(network(text)): None for text in restrictions.addresses}
    return msgspec.structs.replace(restrictions, addresses=tuple(networks))


def canonical_token(token: NewToken) -> NewToken:
    """The same token, each scope once and each network written in one way."""
    return msgspec.structs.replace(
        token, scopes=tuple(dict.fromkeys(token.scopes)), restrictions=canonical(token.restrictions)
    )


def is_past(time: datetime | None, now: datetime) -> bool:
    """Whether a token can have been created at this time; an unknown time is accepted."""
    return time is None or EPOCH <= time <= now + timedelta(days=1)  # the other clock may differ


def may_be_logged(rejected_request: RejectedRequest) -> bool:
    """Whether each text of a rejected request fits into a token's log."""
    texts = (
        rejected_request.id,
        rejected_request.reason,
        rejected_request.address or "",
        rejected_request.route,
        rejected_request.request_id or "",
    )
    return all(len(text) <= MAX_LOGGED for text in texts)


def _description(text: str) -> Iterator[str]:
    if len(text) > MAX_DESCRIPTION:
        yield f"over {MAX_DESCRIPTION} characters"
    if "\0" in text:
        yield "a NUL character"


def _scopes(scopes: tuple[str, ...]) -> Iterator[FieldError]:
    if not scopes:
        yield FieldError(field="scopes", message="at least one scope")
    if len(scopes) > MAX_COUNT:
        yield FieldError(field="scopes", message=f"over {MAX_COUNT} scopes")
    for index, scope in enumerate(scopes[:MAX_COUNT]):
        if not is_scope(scope):
            message = _named(scope, "a scope is '*' or lower-case segments joined by ':'")
            yield FieldError(field=f"scopes[{index}]", message=message)


def _restrictions(restrictions: Restrictions, stored: Restrictions | None) -> Iterator[FieldError]:
    for field, values, most, problem in (
        ("addresses", restrictions.addresses, MAX_ADDRESSES, _address_problem),
        ("referrers", restrictions.referrers, MAX_REFERRERS, _referrer_problem),
    ):
        if values is None or (field == "referrers" and stored is not None and values == stored.referrers):
            continue
        name = f"restrictions.{field}"
        if not values:
            yield FieldError(field=name, message="empty: leave it out to allow all, or name what is allowed")
        if len(values) > most:
            yield FieldError(field=name, message=f"over {most} entries")
        for index, value in enumerate(values[:most]):
            if text := problem(value):
                yield FieldError(field=f"{name}[{index}]", message=_named(value, text))
    if restrictions.rate_limit is not None:
        yield from _rate_limit(restrictions.rate_limit)


def _named(value: str, text: str) -> str:
    """The message about a value, which is repeated in it unless it may be secret."""
    shown = shown_value(value)
    return f"{shown}: {text}" if shown else text


def _address_problem(text: str) -> str | None:
    try:
        network(text)
    except ValueError as error:
        return "host bits are set" if "host bits" in str(error) else "not an IP address or CIDR network"
    return None


def _referrer_problem(text: str) -> str | None:
    if len(text) > MAX_REFERRER or not re.fullmatch(r"[\x21-\x7e]+", text):
        return f"1 to {MAX_REFERRER} visible ASCII characters, '*' for any part"
    if text.count("*") > MAX_WILDCARDS:
        return f"over {MAX_WILDCARDS} '*'"
    return None


def _rate_limit(limit: RateLimit) -> Iterator[FieldError]:
    for field, value, most in (
        ("maxRequests", limit.max_requests, MAX_REQUESTS),
        ("timeWindow", limit.time_window, MAX_TIME_WINDOW),
    ):
        if not 1 <= value <= most:
            yield FieldError(field=f"restrictions.rateLimit.{field}", message=f"1 to {most}")


def _times(token: NewToken, now: datetime) -> Iterator[FieldError]:
    for field, time in (("expires", token.expires), ("notBefore", token.not_before)):
        if time is not None and time > now + MAX_LIFETIME:
            yield FieldError(field=field, message="over ten years away")
        if time is not None and time < EPOCH:
            yield FieldError(field=field, message="before 1970")
    if token.expires is not None and token.expires <= now:
        yield FieldError(field="expires", message="in the past")
    if token.expires and token.not_before and token.expires <= token.not_before:
        yield FieldError(field="expires", message="not after notBefore")


def _holds_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(part) for item in value.items() for part in item)
        case list():
            return any(map(_holds_nul, value))
    return False


def utc(time: datetime | None) -> datetime | None:
    """The same instant in UTC, as PostgreSQL stores it and JSON shows it. A time that UTC cannot express is returned
    unchanged; `problems` reports it.
    """
    try:
        return time.astimezone(UTC) if time else None
    except OverflowError:
        return time


def in_utc(token: NewToken) -> NewToken:
    """The same token with its times in UTC."""
    return msgspec.structs.replace(token, not_before=utc(token.not_before), expires=utc(token.expires))

"""How values are shown to people: pure functions, which the templates know as filters."""

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import humanize
import msgspec

from tallystick.contracts.records import RateLimit, Token
from tallystick.contracts.tokens import EXPIRING_DAYS

UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


def relative(time: datetime, now: datetime) -> str:
    """``3 days from now``, ``2 hours ago``. Days are counted up to a year: an expiry "in a month" is too vague."""
    if abs(time - now) < timedelta(seconds=10):
        return "just now"  # the clocks of two machines differ: nothing was used a second from now
    # A distance: humanize turns times into local ones, which jump when the clocks change, and none after 9999.
    distance = humanize.naturaldelta(abs(time - now), months=False)
    return f"{distance} from now" if time > now else f"{distance} ago"


def duration(seconds: float) -> str:
    """In the largest unit that fits; between one and two years, in years and days."""
    if seconds < 0.001:
        return "under 1 millisecond"
    return humanize.naturaldelta(seconds, months=False, minimum_unit="milliseconds")


def moment(time: datetime) -> str:
    """For those without script; with it, their own zone is shown instead."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def number(value: float) -> str:
    """``12,345``, or ``12.3 million``; fractions only of small ones."""
    if abs(value) >= 10_000_000:
        return humanize.intword(value)
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def plural(count: int, noun: str) -> str:
    """``1 edge``, ``3 edges``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(number_of_bytes: float) -> str:
    return humanize.naturalsize(number_of_bytes, binary=True)


def state(token: Token, now: datetime) -> str:
    """What a token is at this moment, the most important first; `tokens.statistics` counts in the same order."""
    ends, begins = token.expires, token.not_before
    found = {
        "revoked": token.revoked is not None,
        "expired": ends is not None and ends <= now,
        "disabled": token.disabled,
        "not yet valid": begins is not None and begins > now,
        "rotated": token.rotated_to is not None,
        "expiring": ends is not None and ends <= now + timedelta(days=EXPIRING_DAYS),
    }
    return next((name for name, applies in found.items() if applies), "active")


def limit(rate: RateLimit) -> str:
    """``1,000 / minute``, or ``100 / 90 s``: exact, since it is the contract."""
    name = UNITS.get(rate.time_window, f"{rate.time_window:,} s")
    return f"{rate.max_requests:,} / {name}"


def visible(text: str) -> str:
    """The text with each character that would not be seen, or would turn its surroundings, as its code point."""
    return "".join(f"[U+{ord(each):04X}]" if _is_hidden(each) else each for each in text)


def _is_hidden(character: str) -> bool:
    # Controls, formats (which turn the direction of text, or have no width), surrogates and separators of lines.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in _JOINERS


_JOINERS = {"\u200c", "\u200d"}
"""Formats that words and emoji are spelt with."""


def pretty(value: object) -> str:
    """JSON for people: as it was sent but for its layout."""
    text = msgspec.json.format(msgspec.json.encode(value)).decode()
    return "".join(json.dumps(each)[1:-1] if each != "\n" and _is_hidden(each) else each for each in text)


ACTIONS = {
    "token.created": "Created",
    "token.updated": "Changed",
    "token.rotated": "Rotated",
    "token.revoked": "Revoked",
    "session.started": "Signed in to the dashboard",
    "session.link_made": "Sign-in link made",
}

REASONS = {
    "revoked": "it was revoked",
    "disabled": "it was disabled",
    "replaced": "it was replaced by a rotation",
    "expired": "it had expired",
    "not_yet_valid": "it was not valid yet",
    "insufficient_scope": "its scopes do not cover this",
    "account_mismatch": "it is bound to another account",
    "address_not_allowed": "it does not work from this address",
    "referrer_not_allowed": "it does not work from this page",
    "rate_limited": "its rate limit was used up",
}


def action(name: str) -> str:
    return ACTIONS.get(name, name)


def reason(name: str) -> str:
    return REASONS.get(name, name.replace("_", " "))


class Bar(NamedTuple):
    """A rectangle of a chart, in its own units."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    value: int


def bars(series: Mapping[str, Sequence[int]], width: int, height: int) -> list[Bar]:
    """A chart of stacked bars.

    Args:
        series: what each is made of, from the bottom up; all of one length.
        width: of the chart.
        height: of its highest bar.
    """
    columns = list(zip(*series.values(), strict=True))
    highest = max((sum(column) for column in columns), default=0)
    if highest == 0:
        return []
    step = width / len(columns)
    made = []
    for place, column in enumerate(columns):
        top = float(height)
        for kind, value in zip(series, column, strict=True):
            if value:
                # What happened at all is seen.
                tall = max(1.0, value / highest * height)
                top -= tall
                made.append(
                    Bar(
                        round(place * step, 2),
                        round(max(0.0, top), 2),
                        round(step * 0.8, 2),
                        round(tall, 2),
                        kind,
                        value,
                    )
                )
    return made


FILTERS: Mapping[str, Callable[..., Any]] = {
    "action": action,
    "duration": duration,
    "iso": iso,
    "limit": limit,
    "moment": moment,
    "number": number,
    "pretty": pretty,
    "reason": reason,
    "relative": relative,
    "size": size,
    "state": state,
    "visible": visible,
}
GLOBALS: Mapping[str, Callable[..., Any]] = {"bars": bars, "plural": plural}

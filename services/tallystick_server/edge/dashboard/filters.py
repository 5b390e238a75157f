"""Formats values for display: pure functions that templates use as filters."""

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
        return "just now"  # clocks of two machines differ, and a use must not be shown in the future
    # By the distance alone: humanize converts times to local ones, which jump at daylight saving, and fail after 9999.
    distance = humanize.naturaldelta(abs(time - now), months=False)
    return f"{distance} from now" if time > now else f"{distance} ago"


def duration(seconds: float) -> str:
    """A duration in the largest unit that fits; between one and two years, in years and days."""
    if seconds < 0.001:
        return "under 1 millisecond"
    return humanize.naturaldelta(seconds, months=False, minimum_unit="milliseconds")


def moment(time: datetime) -> str:
    """A time in UTC. The script replaces it with local time."""
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
    """The state of a token: the most important that applies. `tokens.statistics` counts in the same order."""
    expires, not_before = token.expires, token.not_before
    states = {
        "revoked": token.revoked is not None,
        "expired": expires is not None and expires <= now,
        "disabled": token.disabled,
        "not yet valid": not_before is not None and not_before > now,
        "rotated": token.rotated_to is not None,
        "expiring": expires is not None and expires <= now + timedelta(days=EXPIRING_DAYS),
    }
    return next((name for name, applies in states.items() if applies), "active")


def limit(rate: RateLimit) -> str:
    """``1,000 / minute``, or ``100 / 90 s``: exact, since it is the contract."""
    name = UNITS.get(rate.time_window, f"{rate.time_window:,} s")
    return f"{rate.max_requests:,} / {name}"


def visible(text: str) -> str:
    """The text with the code points of characters that are invisible or change the text direction."""
    return "".join(f"[U+{ord(character):04X}]" if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    # Control and format characters (which change the text direction or have no width), surrogates, line separators.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in _JOINERS


_JOINERS = {"\u200c", "\u200d"}
"""Format characters that words and emoji need."""


def pretty(value: object) -> str:
    """Indented JSON, with hidden characters escaped."""
    text = msgspec.json.format(msgspec.json.encode(value)).decode()
    return "".join(
        json.dumps(character)[1:-1] if character != "\n" and _is_hidden(character) else character
        for character in text
    )


ACTIONS = {
    "token.created": "Created",
    "token.updated": "Updated",
    "token.rotated": "Rotated",
    "token.revoked": "Revoked",
    "session.started": "Signed in to the dashboard",
    "session.link_made": "Login link created",
}

REASONS = {
    "revoked": "Token revoked",
    "disabled": "Token disabled",
    "replaced": "Token replaced by rotation",
    "expired": "Token expired",
    "not_yet_valid": "Token not yet valid",
    "insufficient_scope": "Insufficient scope",
    "account_mismatch": "Bound to another account",
    "address_not_allowed": "IP address not allowed",
    "referrer_not_allowed": "Referrer not allowed",
    "rate_limited": "Rate limit exceeded",
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
        series: the values by kind, from the bottom up, all of the same length.
        width: the width of the chart.
        height: the height of the highest bar.
    """
    columns = list(zip(*series.values(), strict=True))
    highest = max((sum(column) for column in columns), default=0)
    if highest == 0:
        return []
    step = width / len(columns)
    rectangles = []
    for place, column in enumerate(columns):
        top = float(height)
        for kind, value in zip(series, column, strict=True):
            if value:
                # Even the smallest value is visible.
                bar_height = max(1.0, value / highest * height)
                top -= bar_height
                rectangles.append(
                    Bar(
                        round(place * step, 2),
                        round(max(0.0, top), 2),
                        round(step * 0.8, 2),
                        round(bar_height, 2),
                        kind,
                        value,
                    )
                )
    return rectangles


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

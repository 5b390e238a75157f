"""Proactive content negotiation: the weights of a client's preferences (RFC 9110, section 12)."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
_IGNORED = {"charset", "escaping"}
"""Parameters of a media range that do not distinguish the offered formats."""


class _Preference(NamedTuple):
    value: str
    parameters: dict[str, str]
    weight: float


def media_type_weight(accept: str, media_type: str) -> float:
    """The weight that an ``Accept`` header gives a media type, 0 to 1; 0 means not acceptable.

    The most specific range decides. A range with an invalid weight is ignored. An empty header accepts everything.
    """
    (offered,) = _preferences(media_type)
    type_, _, _ = offered.value.partition("/")
    matches = [
        ((offered.value == value, value != "*/*", len(parameters)), weight)
        for value, parameters, weight in _preferences(accept)
        if value in {offered.value, f"{type_}/*", "*/*"} and parameters.items() <= offered.parameters.items()
    ]
    return max(matches)[1] if matches else float(not accept.strip())


def coding_weight(accept_encoding: str, coding: str) -> float:
    """The weight that an ``Accept-Encoding`` header gives a content coding, 0 to 1. An empty header accepts none."""
    weights = {value: weight for value, _, weight in _preferences(accept_encoding)}
    return weights.get(coding, weights.get("*", 0.0))


def _preferences(header: str) -> Iterator[_Preference]:
    for item in header.lower().split(","):
        value, *fields = (part.strip() for part in item.split(";"))
        pairs = [
            (name.strip(), text.strip().strip('"')) for name, _, text in (f.partition("=") for f in fields)
        ]
        parameters = {name: text for name, text in pairs if name and name not in _IGNORED}
        weight = parameters.pop("q", "1")
        if _WEIGHT.fullmatch(weight):
            yield _Preference(value, parameters, float(weight))

"""Referrer patterns match like regular expressions, in linear time."""

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings, strategies as st, target

from tallystick.tokens.access import MAX_REFERRER_BYTES, matches, referrer_allowed
from tallystick.tokens.rules import MAX_REFERRER

PADDED = 30_000
"""The length of text in which the matcher searches for long segments, in characters."""


def matches_as_regex(pattern: str, text: str) -> bool:
    """The meaning of a pattern as a regular expression, whose cost is exponential in the number of ``*``."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def allowed_as_regex(pattern: str, referrer: str) -> bool:
    pattern = "*/*" if pattern == "*" else pattern
    scheme, separator, rest = pattern.partition("://")
    if not separator:
        scheme, rest = "*", pattern
    host, _, path = rest.partition("/")
    try:
        parts = urlsplit(referrer)
        port = f":{parts.port}" if parts.port is not None else ""
        netloc = parts.hostname or ""
    except ValueError:
        return False
    return (
        bool(netloc)
        and matches_as_regex(scheme.lower(), parts.scheme.lower())
        and matches_as_regex(host.lower(), netloc.lower() + port)
        and matches_as_regex(path, parts.path.removeprefix("/"))
    )


@settings(max_examples=400)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
@example("a*a", "a")
@example("ab*ba", "aba")
@example("*ab*ab*", "abab")
@example("*aaaaaaaaaaaaaaaaaaaaaaaa*", "a" * 24)
@example("*aaaaaaaaaaaaaaaaaaaaaaaa*", "a" * 23)
@example("*bbbbbbbbbbbbbbbbbbbbbbbbb*b", "b" * 25)
def test_the_matcher_agrees_with_a_regular_expression(pattern: str, text: str):
    assert matches(tuple(pattern.split("*")), text) is matches_as_regex(pattern, text)


@settings(max_examples=400)
@given(
    st.one_of(
        st.text("aB*:/.", min_size=1, max_size=12),
        st.from_regex(r"(http|\*|HTTP)://[ab*]{1,3}(:8\*?)?(/[aB*/]{0,5})?", fullmatch=True),
    ),
    st.from_regex(r"(http|Http)://[aB]{1,3}(:8?)?(/[aB/]{0,6})?([?#][a/:]{0,4})?", fullmatch=True),
)
def test_whole_patterns_agree_with_regular_expressions(pattern: str, referrer: str):
    assert referrer_allowed((pattern,), referrer) is allowed_as_regex(pattern, referrer)


class SearchCounter:
    """Searches like `str.find`, and counts the searches and the characters that each one examines."""

    def __init__(self) -> None:
        self.searches = 0
        self.characters = 0

    def find(self, text: str, segment: str, start: int) -> int:
        position = text.find(segment, start)
        self.searches += 1
        # CPython searches for a long segment in linear time only in a long text.
        assert len(segment) <= 16 or len(text) >= PADDED
        self.characters += (len(text) if position < 0 else position + len(segment)) - start
        return position


REPEATING = st.builds(
    lambda part, times, end: part * times + end,
    st.text("ab*", max_size=5),
    st.integers(0, 300),
    st.text("ab*"),
)
"""Patterns and texts that repeat a few characters, for which a backtracking matcher is slow."""


@settings(max_examples=300, deadline=None)
@given(REPEATING, REPEATING)
@example("*a" * 100 + "*b", "a" * 2000)
@example("*" + "a" * 200 + "ba*", "a" * 2000)
@example("*a*" * 100 + "c", "a" * 2000 + "b")
def test_every_segment_is_searched_once_and_no_character_is_examined_twice(pattern: str, text: str):
    text = text.replace("*", "b")
    segments = tuple(pattern.split("*"))
    counter = SearchCounter()
    result = matches(segments, text, counter.find)
    target(float(counter.characters))
    assert counter.searches <= len(segments)
    assert counter.characters <= max(len(text), PADDED)
    if not any(len(segment) > 16 for segment in segments):
        assert counter.characters <= len(text)
    assert result is matches(segments, text)


@pytest.mark.parametrize("length", [MAX_REFERRER_BYTES, MAX_REFERRER_BYTES + 1])
def test_a_referrer_above_the_limit_matches_nothing(length: int):
    page = "https://shop.example/"
    referrer = page + "a" * (length - len(page))
    for pattern in ("*", f"{page}*", "shop.example/*"):
        assert referrer_allowed((pattern,), referrer) is (length <= MAX_REFERRER_BYTES)


def test_the_longest_pattern_and_referrer_are_matched():
    pattern = ("https://h/" + "*a" * MAX_REFERRER)[: MAX_REFERRER - 1] + "b"
    assert not referrer_allowed((pattern,), "https://h/" + "a" * (MAX_REFERRER_BYTES - 10))
    assert referrer_allowed((pattern,), "https://h/" + "a" * (MAX_REFERRER_BYTES - 11) + "b")

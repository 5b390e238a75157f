"""How the dashboard formats values."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tallystick.contracts.records import RateLimit
from tallystick_server.edge.dashboard import filters


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ((100, 90), "100 / 90 s"),
        ((1000, 3600), "1,000 / hour"),
        ((5, 7200), "5 / 7,200 s"),
        ((1, 1), "1 / second"),
    ],
)
def test_a_rate_limit_is_displayed_exactly(limit, text):
    assert filters.limit(RateLimit(*limit)) == text


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (timedelta(seconds=9), "just now"),
        (timedelta(seconds=-9), "just now"),
        (timedelta(seconds=40), "40 seconds from now"),
        (timedelta(hours=-2), "2 hours ago"),
        (timedelta(days=40), "40 days from now"),
        (timedelta(days=-400), "1 year, 35 days ago"),
    ],
)
def test_a_time_is_displayed_relative_to_now(offset, text):
    now = datetime(2026, 2, 3, tzinfo=UTC)
    assert filters.relative(now + offset, now) == text


@pytest.fixture
def central_europe() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def test_a_relative_time_is_correct_after_daylight_saving_time_ends(central_europe):
    now = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # ten minutes after the change
    assert filters.relative(now - timedelta(minutes=20), now) == "20 minutes ago"
    assert filters.relative(now - timedelta(hours=3), now) == "3 hours ago"


def test_the_earliest_and_the_latest_datetime_are_displayed():
    now = datetime(2026, 10, 25, tzinfo=UTC)
    assert filters.relative(datetime.max.replace(tzinfo=UTC), now) == "7,978 years from now"
    assert filters.relative(datetime.min.replace(tzinfo=UTC), now) == "2,027 years ago"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "under 1 millisecond"),
        (0.0009, "under 1 millisecond"),
        (0.0123, "12 milliseconds"),
        (30, "30 seconds"),
        (7200, "2 hours"),
        (40 * 86400, "40 days"),
    ],
)
def test_a_duration_is_displayed_in_its_largest_unit(seconds, text):
    assert filters.duration(seconds) == text


def test_sizes_and_large_numbers_are_shortened():
    assert [filters.size(size) for size in (57 * 2**20, 3.2 * 2**30)] == ["57.0 MiB", "3.2 GiB"]
    assert [filters.number(number) for number in (0.25, 1.5, 12345, 12_345_678)] == [
        "0.25",
        "1.5",
        "12,345",
        "12.3 million",
    ]


@pytest.mark.parametrize(
    ("text", "displayed"),
    [
        ("a\x07\r\n\x7f\x85b", "a[U+0007][U+000D][U+000A][U+007F][U+0085]b"),
        ("\u202eevil\u2066\u200b\ufeff\u00ad", "[U+202E]evil[U+2066][U+200B][U+FEFF][U+00AD]"),
        ("a\u2028b\u2029c", "a[U+2028]b[U+2029]c"),
        ("a\ud800b", "a[U+D800]b"),
        ("می\u200cخواهم 👩\u200d💻 ä <b>", "می\u200cخواهم 👩\u200d💻 ä <b>"),
    ],
)
def test_an_invisible_character_is_displayed_as_its_code_point(text, displayed):
    assert filters.visible(text) == displayed


def test_json_is_indented_and_invisible_characters_are_escaped():
    text = filters.pretty({"z": "\u202e\n", "a": "ä<b>"})
    assert text == '{\n  "z": "\\u202e\\n",\n  "a": "ä<b>"\n}'


def test_a_chart_shows_every_count_above_0_and_stays_within_its_height():
    assert filters.bars({"ok": (0, 0), "no": (0, 0)}, 100, 10) == []
    assert filters.bars({"ok": (), "no": ()}, 100, 10) == []
    assert filters.bars({"ok": (999, 0), "no": (1, 1)}, 100, 10) == [
        filters.Bar(0, 0.01, 40, 9.99, "ok", 999),
        filters.Bar(0, 0, 40, 1, "no", 1),
        filters.Bar(50, 9, 40, 1, "no", 1),
    ]

"""How values are shown, wherever that is."""

import pytest

from tallystick.contracts.records import RateLimit
from tallystick_server.edge.dashboard import filters


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        ((100, 90), "100 / 90 s"),
        ((1000, 3600), "1,000 / hour"),
        ((5, 7200), "5 / 7,200 s"),
        ((1, 1), "1 / second"),
    ],
)
def test_a_rate_limit_is_shown_exactly(limit, shown):
    assert filters.limit(RateLimit(*limit)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x07\r\n\x7f\x85b", "a[U+0007][U+000D][U+000A][U+007F][U+0085]b"),
        ("\u202eevil\u2066\u200b\ufeff\u00ad", "[U+202E]evil[U+2066][U+200B][U+FEFF][U+00AD]"),
        ("a\u2028b\u2029c", "a[U+2028]b[U+2029]c"),
        ("a\ud800b", "a[U+D800]b"),
        ("می\u200cخواهم 👩\u200d💻 ä <b>", "می\u200cخواهم 👩\u200d💻 ä <b>"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_its_code_point(text, shown):
    assert filters.visible(text) == shown


def test_json_is_laid_out_and_nothing_in_it_hides():
    shown = filters.pretty({"z": "\u202e\n", "a": "ä<b>"})
    assert shown == '{\n  "z": "\\u202e\\n",\n  "a": "ä<b>"\n}'


def test_a_chart_shows_whatever_happened_and_stays_in_its_frame():
    assert filters.bars({"ok": (0, 0), "no": (0, 0)}, 100, 10) == []
    assert filters.bars({"ok": (), "no": ()}, 100, 10) == []
    assert filters.bars({"ok": (999, 0), "no": (1, 1)}, 100, 10) == [
        filters.Bar(0, 0.01, 40, 9.99, "ok", 999),
        filters.Bar(0, 0, 40, 1, "no", 1),
        filters.Bar(50, 9, 40, 1, "no", 1),
    ]

"""Parsing a submitted token form, and filling a form from a stored token."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import LastUse, Restrictions, Token
from tallystick.contracts.tokens import RestrictionsUpdate, TokenUpdate
from tallystick_server.edge.dashboard import forms

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WELL_FORMED = {"scope": "orders", "expires": "never"}
STORED = Token(
    id="tok_1",
    description="stored",
    scopes=("orders",),
    account=None,
    metadata={"team": {"name": "a", "city": "b"}, "old": 1},
    restrictions=Restrictions(referrers=("https://münchen.example/*",)),
    not_before=None,
    expires=NOW - timedelta(days=1),
    disabled=False,
    hint="tly_1234",
    created=NOW - timedelta(days=9),
    created_by="test",
    rotated_to=None,
    access=LastUse(),
)


PARSED: list[tuple[dict[str, str], str, object]] = [
    ({"description": " a\t"}, "description", "a"),
    ({"scope": " orders,invoices\n orders\r\n"}, "scopes", ("orders", "invoices")),
    ({"scope": " "}, "scopes", ()),
    ({"account": " acme "}, "account", "acme"),
    ({"account": " "}, "account", None),
    ({"metadata": " \n"}, "metadata", None),
    ({"addresses": "\n 192.0.2.1 \r\n\r\n"}, "restrictions", Restrictions(addresses=("192.0.2.1",))),
    ({"addresses": " \n", "referrers": "\r\n"}, "restrictions", Restrictions()),
    ({"requests": " ", "window": "x"}, "restrictions", Restrictions()),
    # In whole seconds, as tokens are stored and forms show them.
    ({"expires": "7"}, "expires", datetime(2030, 1, 9, 3, 4, 5, tzinfo=UTC)),
    ({"expires": "never", "expires_at": "2031-01-01T00:00"}, "expires", None),
    ({"expires": "at", "expires_at": "2031-01-01T00:00"}, "expires", datetime(2031, 1, 1, tzinfo=UTC)),
    (
        {"expires": "at", "expires_at": "2031-01-01T00:00", "expires_at_utc": "2030-12-31T15:00:00.000Z"},
        "expires",
        datetime(2030, 12, 31, 15, tzinfo=UTC),
    ),
    ({"not_before_utc": "2031-01-01T00:00+09:00"}, "not_before", datetime(2030, 12, 31, 15, tzinfo=UTC)),
]
"""The fields of a form, and the name and the value of one field of the parsed token."""


@pytest.mark.parametrize(("fields", "name", "value"), PARSED)
def test_a_form_is_parsed(fields: dict[str, str], name: str, value: object):
    filled = forms.read({**WELL_FORMED, **fields}, NOW)
    assert filled.problems == ()
    assert getattr(filled.token, name) == value


def test_all_problems_are_reported_at_once():
    sent = {"scope": "A", "addresses": "here", "metadata": "[", "not_before": "soon"}
    sent |= {"requests": "9" * 16, "window": "60"}
    problems = {problem.field: problem.message for problem in forms.read(sent, NOW).problems}
    assert list(problems) == [
        *("metadata", "rateLimit", "notBefore", "expires", "scopes[0]", "restrictions.addresses[0]")
    ]
    assert problems["metadata"].startswith("must be a JSON object")
    assert problems["rateLimit"] == "must be a whole number"
    assert problems["notBefore"] == "must be a date and time"
    assert problems["expires"] == "choose one of the options"


def test_an_unchanged_stored_value_is_accepted_beside_a_problem():
    sent = {**forms.of(STORED), "metadata": "["}
    assert [problem.field for problem in forms.read(sent, NOW, STORED).problems] == ["metadata"]
    moved = {**sent, "expires_at": "2029-01-01T00:00", "referrers": "https://köln.example/*"}
    fields = [problem.field for problem in forms.read(moved, NOW, STORED).problems]
    assert fields == ["metadata", "restrictions.referrers[0]", "expires"]


CHANGED: list[tuple[dict[str, str], TokenUpdate]] = [
    ({}, TokenUpdate()),
    ({"description": "b"}, TokenUpdate(description="b")),
    (
        {"metadata": '{"team": {"name": "c"}}'},
        TokenUpdate(metadata={"old": None, "team": {"name": "c", "city": None}}),
    ),
    ({"metadata": ""}, TokenUpdate(metadata=None)),
    (
        {"addresses": "192.0.2.1"},
        TokenUpdate(restrictions=RestrictionsUpdate(addresses=("192.0.2.1",))),
    ),
]
"""The fields that are changed in the form of `STORED`, and the resulting edit."""


@pytest.mark.parametrize(("fields", "changes"), CHANGED)
def test_an_edit_has_the_changed_fields_only(fields: dict[str, str], changes: TokenUpdate):
    filled = forms.read({**forms.of(STORED), **fields}, NOW, STORED)
    assert forms.changes(STORED, filled.token) == changes


def fault(field: str) -> FieldError:
    return FieldError(field=field, message="wrong")


PLACES: list[tuple[tuple[str, ...], dict[str, list[str]]]] = [
    (("scopes[2]",), {"scopes": ["scope 3: wrong"]}),
    (("restrictions.addresses[1]",), {"addresses": ["line 4: wrong"]}),
    (("restrictions.rateLimit.timeWindow",), {"rateLimit": ["wrong"]}),
    (("metadata", "description"), {"description": ["wrong"], "metadata": ["wrong"]}),
    (("revision", ""), {"": ["revision: wrong", "wrong"]}),
    (("metadata",) * 10, {"metadata": ["wrong"] * 10}),
    (("metadata",) * 12, {"metadata": ["wrong"] * 10 + ["2 more"]}),
]
"""The fields of problems, and the messages at each field of the form."""


@pytest.mark.parametrize(("fields", "messages"), PLACES)
def test_a_problem_is_displayed_at_its_field(fields: tuple[str, ...], messages: dict[str, list[str]]):
    form: dict[str, Any] = {"addresses": "\n192.0.2.1\n \nhere\n", "scope": "a b C"}
    places = forms.by_field(tuple(map(fault, fields)), form)
    assert places == messages
    assert list(places) == list(messages)  # in the order of the page

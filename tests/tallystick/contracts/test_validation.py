"""All errors of a request are reported at once, each with its field, and no false ones."""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from tallystick.contracts import registry, validation
from tallystick.contracts.records import NewToken
from tallystick.contracts.tokens import CreateToken, TokenUpdate
from tallystick.tokens import format as token_format

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KINDS = registry.messages()


def errors(value: Any, kind: type[msgspec.Struct] = NewToken) -> dict[str, str]:
    return {problem.field: problem.message for problem in validation.problems(value, kind, NOW)}


def test_every_error_is_reported_in_the_order_of_the_fields():
    messages = errors(
        {
            "expires": "tomorrow",
            "foo": 1,
            "scope": ["api"],
            "scopes": ["api", "BAD", 5],
            "description": 7,
            "metadata": [],
            "account": "a/b",
            "restrictions": {
                "addresses": ["10.0.0.0/8", "10.0.0.1/8", 7, "here"],
                "referrers": [],
                "rateLimit": {"maxRequests": 0, "timewindow": 1},
            },
        }
    )
    assert messages == {
        "description": "Expected `str`, got `int`: 7",
        "scopes[2]": "Expected `str`, got `int`: 5",
        "metadata": "Expected `object | null`, got `array`",
        "restrictions.addresses[2]": "Expected `str`, got `int`: 7",
        "restrictions.rateLimit.timeWindow": "missing",
        "restrictions.rateLimit.timewindow": "unknown field; did you mean timeWindow?",
        "expires": 'Invalid RFC3339 encoded datetime: "tomorrow"',
        "foo": "unknown field; known are description, scopes, account, metadata, restrictions, notBefore, expires",
        "scope": "unknown field; did you mean scopes?",
        "scopes[1]": "\"BAD\": a scope is '*' or lower-case segments joined by ':'",
        "account": "1 to 128 characters that a URL path may hold",
        "restrictions.addresses[1]": '"10.0.0.1/8": host bits are set',
        "restrictions.addresses[3]": '"here": not an IP address or CIDR network',
        "restrictions.referrers": "empty: leave it out to allow all, or name what is allowed",
    }
    assert list(messages)[:2] == ["description", "scopes[2]"]


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({"expires": 1, "scopes": []}, {"expires", "scopes"}),
        ({"expires": 1}, {"expires"}),
        ({"expires": 1, "scopes": None}, {"expires", "scopes"}),
        ({"expires": 1, "restrictions": {"rateLimit": {"maxRequests": 5}}}, {"expires"}),
        ({"expires": 1, "restrictions": {"rateLimit": {"timeWindow": "x"}}}, {"expires", "restrictions.rateLimit.timeWindow"}),
        ({"expires": 1, "restrictions": {"addresses": ["x"]}}, {"expires", "restrictions.addresses[0]"}),
        ({"disabled": 1, "notBefore": None, "description": None}, {"disabled"}),
        ({"acount": "alice", "metadata": {"a": None}}, {"acount"}),
    ],
)  # fmt: skip
def test_an_edit_is_validated_by_the_fields_it_has(value: Any, fields: set[str]):
    assert errors(value, TokenUpdate).keys() == fields


def test_a_token_and_its_request_are_validated_together():
    value = {"token": {"scopes": ["X"], "expires": 1}, "hint": 1, "actor": {"nam": "x"}}
    assert list(errors(value, CreateToken)) == [
        "actor.nam",
        "token.expires",
        "digest",
        "hint",
        "token.scopes[0]",
    ]


SECRETS = [token_format.mint(), "f" * 64, "opaque-value-1234567", "x" * 300]


@pytest.mark.parametrize("secret", SECRETS, ids=["ours", "hexadecimal", "opaque", "long"])
def test_a_value_that_may_be_a_secret_is_not_repeated(secret: str):
    for value in (
        {secret: 1},
        {"scopes": [secret.upper()], "expires": 1},
        {"scopes": secret},
        {"expires": secret},
        {"restrictions": {"addresses": [secret], secret: 1}},
        {"restrictions": secret},
        {"restrictions": {"rateLimit": {"maxRequests": secret}}},
    ):
        assert secret.lower() not in repr(errors(value)).lower()


def test_control_characters_are_not_repeated():
    assert "\x1b" not in repr(errors({"\x1b[2J": 1, "expires": "\x1b[2J"}))
    assert "\u202e" not in "".join(errors({"expires": "\u202e"}).values())


def test_the_number_of_errors_and_the_time_are_limited():
    names = {f"scopes{number}": 1 for number in range(20_000)}
    started = time.process_time()
    values: list[Any] = [names, {"scopes": [1] * 20_000}, {"restrictions": {"addresses": [[]] * 20_000}}]
    for value in values:
        problems = validation.problems(value, NewToken, NOW)
        assert len(problems) == validation.MAX_ERRORS + 1
        assert problems[-1].field == ""
    assert time.process_time() - started < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.sampled_from(["2030-01-01T00:00:00Z"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(st.data(), st.sampled_from(KINDS))
def test_there_are_errors_exactly_if_the_decoder_rejects_the_value(
    data: st.DataObject, kind: type[msgspec.Struct]
):
    """The types are declared once: validation accepts and rejects the same values as msgspec."""
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    value = data.draw(st.dictionaries(st.sampled_from([*names, "more"]), JSON))
    raw = msgspec.json.decode(msgspec.json.encode(value))
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        assert validation.problems(raw, kind, NOW)
    else:
        assert not validation.problems(raw, kind, NOW)

"""Scopes, addresses, referrers and records: the rules that the edge and the tokens service share."""

import base64
import contextlib

import msgspec
import pytest
from hypothesis import given, strategies as st

from tallystick.tokens import record as token_record
from tallystick.tokens.access import address_allowed, referrer_allowed
from tallystick.tokens.addresses import address, network
from tallystick.tokens.record import NotARecord, TokenRecord
from tallystick.tokens.scopes import covers, is_scope
from tests.support.examples import VECTOR

DIGEST = "ea3873f9234fb3b8b700043373138c730c56fd2f7fa27dbcdc61d4c9c2b2df8d"


@pytest.mark.parametrize(
    ("granted", "required", "covered"),
    [
        (["api"], "api", True),
        (["api"], "api:tokens:read", True),
        (["api:tokens"], "api:tokens:read", True),
        (["*"], "anything", True),
        (["api"], "apix", False),
        (["api:tokens"], "api", False),
        (["api:tok"], "api:tokens", False),
        (["metrics", "orders"], "orders:read", True),
        ([], "api", False),
        (["api"], "*", False),
    ],
)
def test_a_scope_covers_itself_and_whole_segments_below(granted: list[str], required: str, covered: bool):
    assert covers(granted, required) is covered


@pytest.mark.parametrize(
    "text", ["", "API", "a b", "a:", ":a", "a::b", "**", "a:*", "ä", "a" * 129, 'a"b', "a\n"]
)
def test_an_invalid_scope_is_rejected(text: str):
    assert not is_scope(text)


@pytest.mark.parametrize(
    ("allowed", "client", "expected"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("fe80::/10", "10.0.0.1", False),
        ("0.0.0.0/0", "::1", False),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", None, False),
    ],
)
def test_an_address_matches_its_networks_only(allowed: str, client: str | None, expected: bool):
    assert address_allowed((allowed,), client) is expected


@pytest.mark.parametrize(
    "text", ["10.0.0.1/33", "10.0.0.1/8", "x", "", "10.0.0/8", "::1/129", "fe80::1%eth0/64"]
)
def test_an_invalid_network_is_rejected(text: str):
    with pytest.raises(ValueError, match=r"."):
        network(text)


def test_an_ipv4_mapped_address_equals_its_ipv4_address():
    assert address("::ffff:1.2.3.4") == address("1.2.3.4")


@pytest.mark.parametrize(
    ("pattern", "referrer", "expected"),
    [
        ("https://good.example/*", "https://good.example/a/b", True),
        ("https://good.example/*", "https://good.example/a?b=https://evil.example/", True),
        ("https://good.example/*", "HTTPS://GOOD.example/a", True),
        ("https://good.example/*", "http://good.example/a", False),
        ("https://good.example/*", "https://evil.example/?https://good.example/", False),
        ("https://good.example/*", "https://evil.example/#https://good.example/", False),
        ("https://good.example/*", "https://good.example@evil.example/", False),
        ("https://good.example/*", "https://good.example.evil.example/", False),
        ("https://good.example/*", "https://good.example:8443/", False),
        ("*.good.example/*", "https://a.good.example/x", True),
        ("*.good.example/*", "https://evil.example/a.good.example/", False),
        ("*host/*", "https://evil.example/?host/", False),
        ("https://good.example", "https://good.example/", True),
        ("https://good.example", "https://good.example/a", False),
        ("*", "https://any.example/a", True),
        ("*", None, False),
        ("*", "", False),
        ("*", "not a url", False),
        ("https://good.example/*", "https://good.example\\@evil.example/", False),
    ],
)
def test_referrers_match_within_scheme_host_and_path(pattern: str, referrer: str | None, expected: bool):
    assert referrer_allowed((pattern,), referrer) is expected


def test_a_record_of_emailengine_is_decoded():
    record = token_record.decode(VECTOR)
    assert record.digest == DIGEST
    assert record.token.scopes == ("*",)
    assert record.token.description == "test token"
    assert str(record.created) == "2024-12-23 11:36:54.623000+00:00"


@pytest.mark.parametrize("created", [1734953814623, msgspec.msgpack.Ext(-1, (1734953814).to_bytes(4)), None])
def test_the_time_of_a_record_may_be_a_number_or_a_timestamp(created: object):
    raw = msgspec.msgpack.encode({"id": DIGEST, "scopes": ["api"], "created": created})
    record = token_record.decode(base64.urlsafe_b64encode(raw).decode())
    assert (record.created is None) is (created is None)
    assert created is None or (record.created is not None and record.created.year == 2024)


def test_a_native_record_survives_a_round_trip():
    record = token_record.decode(VECTOR)
    assert token_record.decode(msgspec.json.encode(record).decode()) == record


@given(st.integers(0, len(VECTOR) - 3))
def test_a_truncated_record_is_rejected(length: int):
    with pytest.raises(NotARecord):
        token_record.decode(VECTOR[:length])


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_any_text_is_decoded_or_rejected(text: str):
    with contextlib.suppress(NotARecord):
        assert isinstance(token_record.decode(text), TokenRecord)

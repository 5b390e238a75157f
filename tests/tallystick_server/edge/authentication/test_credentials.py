"""The token comes off the request, and nothing of it stays behind."""

import pytest
from hypothesis import given, strategies as st

from tallystick.tokens.addresses import network
from tallystick_server.edge.authentication.credentials import AMBIGUOUS, NONE, Credential, forwarded, take
from tallystick_server.edge.http.proxies import client_address

TOKEN = b"abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("headers", "query", "left"),
    [
        ([(b"authorization", b"Bearer " + TOKEN)], b"", b""),
        ([(b"authorization", TOKEN)], b"a=1", b"a=1"),
        ([(b"authorization", b"Basic " + TOKEN), (b"authorization", b"Bearer " + TOKEN)], b"", b""),
        ([], b"access_token=" + TOKEN, b""),
        ([], b"a=1&access_token=" + TOKEN + b"&b=2", b"a=1&b=2"),
        ([], b"a=1&access%5Ftoken=" + TOKEN, b"a=1"),
        ([], b"%61ccess_token=" + TOKEN, b""),
        ([], b"access_token=" + TOKEN + b"&access_token=" + TOKEN, b""),
        ([(b"authorization", b"Bearer " + TOKEN)], b"access_token=" + TOKEN + b"&x", b"x"),
    ],
)
def test_nothing_of_it_stays_on_the_request(headers: list[tuple[bytes, bytes]], query: bytes, left: bytes):
    other = (b"host", b"x")
    taken = take([*headers, other], query)
    assert list(taken.headers) == [other]
    assert taken.query == left


def test_a_request_without_a_token_stays_as_it_is():
    headers = [(b"host", b"x"), (b"cookie", b"access_token=" + TOKEN)]
    taken = take(headers, b"a=%31&b")
    assert (taken.credential, list(taken.headers), taken.query) == (NONE, headers, b"a=%31&b")


URI = b"/page?access_token=" + TOKEN
OTHER = b"/page?access_token=" + TOKEN[::-1]
FOUND = Credential("query", TOKEN.decode())


@pytest.mark.parametrize(
    ("uris", "found"),
    [
        ([URI], FOUND),
        ([b"https://example.org" + URI + b"&a=1"], FOUND),
        ([b"/?a=1&access%5ftoken=" + TOKEN], FOUND),
        ([URI, URI], FOUND),
        ([URI, b"/page"], FOUND),
        ([URI, OTHER], AMBIGUOUS),
        ([URI + b"&access_token=" + TOKEN], AMBIGUOUS),
        ([URI, URI + b"&access_token=" + TOKEN], AMBIGUOUS),
        ([b"/?access_token="], AMBIGUOUS),
        ([b"/?access_token"], AMBIGUOUS),
        ([], NONE),
        ([b""], NONE),
        ([b"access_token=" + TOKEN], NONE),
        ([b"/access_token=" + TOKEN + b"?a"], NONE),
        ([b"/page#?access_token=" + TOKEN], NONE),
        ([b"/page%3Faccess_token=" + TOKEN], NONE),
        ([b"/page?a=?access_token=" + TOKEN], NONE),
        ([b"/page?ACCESS_TOKEN=" + TOKEN], NONE),
    ],
)
def test_the_token_of_a_request_that_a_proxy_asks_about(uris: list[bytes], found: Credential):
    for names in ((b"x-forwarded-uri", b"x-original-uri"), (b"x-original-uri", b"x-forwarded-uri")):
        credential = forwarded(
            [*zip(names, uris, strict=False), (b"referer", URI), (b"x-forwarded-url", URI)]
        )
        assert credential == found


@given(st.lists(st.binary(), max_size=3))
def test_any_forwarded_bytes_are_one_credential_none_or_ambiguous(uris: list[bytes]):
    credential = forwarded([(b"x-forwarded-uri", uri) for uri in uris])
    assert credential in {NONE, AMBIGUOUS} or (credential.kind == "query" and credential.value)


@given(st.binary(), st.binary())
def test_any_bytes_are_one_credential_none_or_ambiguous(value: bytes, query: bytes):
    taken = take([(b"authorization", value)], query)
    assert taken.credential in {NONE, AMBIGUOUS} or taken.credential.value
    assert all(name != b"authorization" for name, _ in taken.headers)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("1.1.1.1", [b"9.9.9.9"], "1.1.1.1"),  # not one of ours: not believed
        ("10.0.0.1", [b"9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", [b"8.8.8.8, 9.9.9.9"], "9.9.9.9"),  # the left is the client's own word
        ("10.0.0.1", [b"8.8.8.8, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", [b"8.8.8.8", b"9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [b"9.9.9.9:1234"], "9.9.9.9"),
        ("10.0.0.1", [b"[2001:db8::1]:1234"], "2001:db8::1"),
        ("10.0.0.1", [b"::ffff:9.9.9.9"], "9.9.9.9"),
        ("::ffff:10.0.0.1", [b"9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", [b"unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"9.9.9.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [b"\xff"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, [b"9.9.9.9"], None),
    ],
)
def test_the_client_is_who_trusted_proxies_say(
    peer: str | None, forwarded: list[bytes], expected: str | None
):
    assert client_address(peer, forwarded, [network("10.0.0.0/8")]) == expected


def test_nobody_is_trusted_by_default():
    assert client_address("127.0.0.1", [b"9.9.9.9"], []) == "127.0.0.1"

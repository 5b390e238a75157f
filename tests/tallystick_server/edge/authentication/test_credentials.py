"""Extraction of the credential and of the client's address from a request."""

import pytest
from hypothesis import given, strategies as st

from tallystick.tokens.addresses import network
from tallystick_server.edge.authentication.credentials import AMBIGUOUS, NONE, Credential, forwarded, take
from tallystick_server.edge.http.proxies import client_address

TOKEN = b"abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("headers", "query", "remaining_query"),
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
def test_the_credential_is_removed_from_the_request(
    headers: list[tuple[bytes, bytes]], query: bytes, remaining_query: bytes
):
    other = (b"host", b"x")
    request = take([*headers, other], query)
    assert list(request.headers) == [other]
    assert request.query == remaining_query


def test_a_request_without_a_token_is_unchanged():
    headers = [(b"host", b"x"), (b"cookie", b"access_token=" + TOKEN)]
    request = take(headers, b"a=%31&b")
    assert (request.credential, list(request.headers), request.query) == (NONE, headers, b"a=%31&b")


URI = b"/page?access_token=" + TOKEN
OTHER = b"/page?access_token=" + TOKEN[::-1]
IN_QUERY = Credential("query", TOKEN.decode())


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        ([URI], IN_QUERY),
        ([b"https://example.org" + URI + b"&a=1"], IN_QUERY),
        ([b"/?a=1&access%5ftoken=" + TOKEN], IN_QUERY),
        ([URI, URI], IN_QUERY),
        ([URI, b"/page"], IN_QUERY),
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
def test_forward_auth_reads_the_token_in_the_forwarded_query(uris: list[bytes], expected: Credential):
    for names in ((b"x-forwarded-uri", b"x-original-uri"), (b"x-original-uri", b"x-forwarded-uri")):
        credential = forwarded(
            [*zip(names, uris, strict=False), (b"referer", URI), (b"x-forwarded-url", URI)]
        )
        assert credential == expected


@given(st.lists(st.binary(), max_size=3))
def test_any_forwarded_bytes_are_one_credential_none_or_ambiguous(uris: list[bytes]):
    credential = forwarded([(b"x-forwarded-uri", uri) for uri in uris])
    assert credential in {NONE, AMBIGUOUS} or (credential.kind == "query" and credential.value)


@given(st.binary(), st.binary())
def test_any_bytes_are_one_credential_none_or_ambiguous(value: bytes, query: bytes):
    request = take([(b"authorization", value)], query)
    assert request.credential in {NONE, AMBIGUOUS} or request.credential.value
    assert all(name != b"authorization" for name, _ in request.headers)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("1.1.1.1", [b"9.9.9.9"], "1.1.1.1"),  # the peer is not a trusted proxy
        ("10.0.0.1", [b"9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", [b"8.8.8.8, 9.9.9.9"], "9.9.9.9"),  # the client itself can send the left one
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
def test_the_client_address_is_the_last_one_before_the_trusted_proxies(
    peer: str | None, forwarded: list[bytes], expected: str | None
):
    assert client_address(peer, forwarded, [network("10.0.0.0/8")]) == expected


def test_no_proxy_is_trusted_by_default():
    assert client_address("127.0.0.1", [b"9.9.9.9"], []) == "127.0.0.1"

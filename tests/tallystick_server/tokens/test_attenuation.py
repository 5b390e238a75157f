"""No chain of creations, edits and rotations yields a token that exceeds its first creator."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, strategies as st

from tallystick.contracts.records import LastUse, NewToken, RateLimit, Restrictions, Token
from tallystick.tokens.access import AccessRequest, check_access
from tallystick.tokens.rules import problems
from tallystick_server.tokens.attenuation import exceeds
from tallystick_server.tokens.store.rows import as_new_token

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCOPES = ("*", "api", "api:tokens", "api:tokens:read", "metrics", "orders:read")
ADDRESSES = (
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3/32",
    "::/0",
    "fe80::/10",
    "::ffff:10.0.0.0/104",
)
REFERRERS = ("*", "https://good.example/*", "https://other.example/*")

some = st.one_of


def tuples(values: tuple[str, ...]):
    return st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)


tokens = st.builds(
    NewToken,
    description=st.just(""),
    scopes=tuples(SCOPES),
    account=st.sampled_from([None, "alice", "bob"]),
    restrictions=st.builds(
        Restrictions,
        addresses=some(st.none(), tuples(ADDRESSES)),
        referrers=some(st.none(), tuples(REFERRERS)),
        rate_limit=some(
            st.none(), st.builds(RateLimit, max_requests=st.integers(1, 2), time_window=st.just(60))
        ),
    ),
    expires=some(st.none(), st.integers(1, 5).map(lambda hours: NOW + timedelta(hours=hours))),
)
access_requests = st.builds(
    AccessRequest,
    scope=st.sampled_from([*SCOPES[1:], "api:tokens:write", "other"]),
    account=st.sampled_from([None, "alice", "bob"]),
    address=st.sampled_from(["10.1.2.3", "10.9.9.9", "192.168.0.1", "fe80::1", "::1", "::ffff:10.1.2.3"]),
    referrer=st.sampled_from(
        [None, "https://good.example/a", "https://other.example/", "https://evil.example/"]
    ),
)


def token_of(new: NewToken) -> Token:
    return Token(
        id="tok_x",
        hint="",
        created=NOW,
        created_by="",
        rotated_to=None,
        access=LastUse(),
        disabled=False,
        **msgspec.structs.asdict(new),
    )


@given(first=tokens, chain=st.lists(tokens, max_size=6), access=access_requests)
def test_no_chain_grants_more_than_its_first_creator_has(
    first: NewToken, chain: list[NewToken], access: AccessRequest
):
    """Each step is a creation, an edit or a rotation: the same rule allows all three."""
    creator = token_of(first)
    last = creator
    for step in chain:
        if not problems(step, NOW) and not exceeds(last, step):
            last = token_of(step)
    if check_access(last, access) is None:
        assert check_access(creator, access) is None
    if creator.expires is not None:
        assert last.expires is not None
        assert last.expires <= creator.expires
    if creator.restrictions.rate_limit is not None:
        assert last.restrictions.rate_limit == creator.restrictions.rate_limit


@given(tokens)
def test_a_token_may_create_one_with_the_same_grant(token: NewToken):
    assert exceeds(token_of(token), as_new_token(token_of(token))) == []


@given(tokens)
def test_an_unrestricted_token_may_create_any_token(token: NewToken):
    assert exceeds(token_of(NewToken(scopes=("*",))), token) == []

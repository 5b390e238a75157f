"""Whether a token may be created, changed or rotated by another: it never exceeds its creator. Pure."""

from collections.abc import Iterator

from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import NewToken, Token
from tallystick.tokens.addresses import network
from tallystick.tokens.scopes import covers


def exceeds(creator: Token | NewToken, token: NewToken) -> list[FieldError]:
    """Everything that the token could do and its creator may not, by JSON field; empty if there is nothing."""
    return list(_excess(creator, token))


def _excess(creator: Token | NewToken, token: NewToken) -> Iterator[FieldError]:
    if missing := [scope for scope in token.scopes if not covers(creator.scopes, scope)]:
        yield FieldError(field="scopes", message=f"beyond the creator's: {', '.join(missing)}")
    if creator.account is not None and token.account != creator.account:
        yield FieldError(field="account", message="the creator is bound to another account")
    if creator.expires is not None and (token.expires is None or token.expires > creator.expires):
        yield FieldError(field="expires", message="later than the creator's")
    limits, token_limits = creator.restrictions, token.restrictions
    if limits.addresses is not None and not _within(token_limits.addresses, limits.addresses):
        yield FieldError(field="restrictions.addresses", message="not within the creator's")
    if limits.referrers is not None and not (
        token_limits.referrers is not None and set(token_limits.referrers) <= set(limits.referrers)
    ):
        yield FieldError(field="restrictions.referrers", message="not among the creator's")
    # The two share one count, so a limited creator cannot multiply its limit.
    if limits.rate_limit is not None and token_limits.rate_limit != limits.rate_limit:
        yield FieldError(field="restrictions.rateLimit", message="not the creator's, which both share")


def _within(networks: tuple[str, ...] | None, allowed: tuple[str, ...]) -> bool:
    if networks is None:
        return False
    outer = [network(text) for text in allowed]
    return all(
        any(inner.version == net.version and inner.subnet_of(net) for net in outer)  # type: ignore[arg-type]
        for inner in map(network, networks)
    )

"""Whether a token may be made, changed or rotated with another: never may it do what its maker may not. Pure."""

from collections.abc import Iterator

from tallystick.contracts.messages import FieldError
from tallystick.contracts.records import NewToken, Token
from tallystick.tokens.addresses import network
from tallystick.tokens.scopes import covers


def exceeds(maker: Token | NewToken, wanted: NewToken) -> list[FieldError]:
    """Everything the wanted token could do that its maker may not, by JSON field; empty when it may be."""
    return list(_excess(maker, wanted))


def _excess(maker: Token | NewToken, wanted: NewToken) -> Iterator[FieldError]:
    if missing := [scope for scope in wanted.scopes if not covers(maker.scopes, scope)]:
        yield FieldError(field="scopes", message=f"beyond the maker's: {', '.join(missing)}")
    if maker.account is not None and wanted.account != maker.account:
        yield FieldError(field="account", message="the maker is bound to another account")
    if maker.expires is not None and (wanted.expires is None or wanted.expires > maker.expires):
        yield FieldError(field="expires", message="later than the maker's")
    limits, wanted_limits = maker.restrictions, wanted.restrictions
    if limits.addresses is not None and not _within(wanted_limits.addresses, limits.addresses):
        yield FieldError(field="restrictions.addresses", message="not within the maker's")
    if limits.referrers is not None and not (
        wanted_limits.referrers is not None and set(wanted_limits.referrers) <= set(limits.referrers)
    ):
        yield FieldError(field="restrictions.referrers", message="not among the maker's")
    # The two share one count, so a limited maker cannot multiply its limit.
    if limits.rate_limit is not None and wanted_limits.rate_limit != limits.rate_limit:
        yield FieldError(field="restrictions.rateLimit", message="not the maker's, which both share")


def _within(wanted: tuple[str, ...] | None, allowed: tuple[str, ...]) -> bool:
    if wanted is None:
        return False
    outer = [network(text) for text in allowed]
    return all(
        any(inner.version == net.version and inner.subnet_of(net) for net in outer)  # type: ignore[arg-type]
        for inner in map(network, wanted)
    )

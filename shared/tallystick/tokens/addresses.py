"""Client addresses and networks, with IPv4-mapped IPv6 equal to its IPv4."""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


def address(text: str) -> Address | None:
    """Parse an address, without its zone id; None if the text is not an address."""
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def network(text: str) -> Network:
    """Parse a CIDR network; IPv4-mapped IPv6 becomes IPv4.

    Raises:
        ValueError: the text is not a network, or has bits set right of its prefix; the message says which.
    """
    parsed = ip_network(text)
    if isinstance(parsed, IPv6Network) and parsed.subnet_of(_MAPPED):
        return IPv4Network((int(parsed.network_address) & 0xFFFFFFFF, parsed.prefixlen - 96))
    return parsed

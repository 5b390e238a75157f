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
    """The address a text names, without its zone id; None where it names none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def network(text: str) -> Network:
    """The CIDR network a text names, mapped IPv6 as IPv4.

    Raises:
        ValueError: it names none, or has bits set right of its prefix; the message says which.
    """
    found = ip_network(text)
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        return IPv4Network((int(found.network_address) & 0xFFFFFFFF, found.prefixlen - 96))
    return found

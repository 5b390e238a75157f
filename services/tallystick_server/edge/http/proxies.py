"""Whose request it is: the socket's peer, or what trusted proxies say, read from the right."""

from collections.abc import Iterable, Sequence

from tallystick.tokens.addresses import Network, address


def client_address(peer: str | None, forwarded: Sequence[bytes], trusted: Iterable[Network]) -> str | None:
    """The client's address.

    Args:
        peer: the address of the socket's other end.
        forwarded: the values of the X-Forwarded-For headers, in order.
        trusted: the networks of our own proxies; nobody else is believed.
    """
    trusted = tuple(trusted)
    found = address(peer) if peer is not None else None
    if found is None or not trusted or not any(found in network for network in trusted):
        return str(found) if found else peer
    direct = found
    hops = b",".join(forwarded).decode("latin-1").split(",") if forwarded else []
    while hops and any(found in network for network in trusted):
        hop = address(_without_port(hops.pop().strip()))
        if hop is None:
            return str(direct)  # unreadable: what is certain is the peer
        found = hop
    return str(found)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text

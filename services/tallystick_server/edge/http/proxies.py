"""The client's address, scheme and host: from the socket, or from the headers of trusted proxies."""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from tallystick.tokens.addresses import Network, address

Headers = Collection[tuple[bytes, bytes]]


class TrustedProxies:
    """Args:
    networks: the networks of trusted proxies. Headers from other peers are ignored.
    """

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks

    def client_address(self, peer: str | None, headers: Headers) -> str | None:
        """The client's address.

        Args:
            peer: the address of the socket's other end.
            headers: the header fields of the request.
        """
        if not self._networks:
            return _normalized(peer)
        forwarded = [value for name, value in headers if name == b"x-forwarded-for"]
        return client_address(peer, forwarded, self._networks)

    def is_encrypted(self, scheme: str, peer: str | None, headers: Headers) -> bool:
        """Whether the client speaks HTTPS."""
        return (
            scheme == "https" or self._forwarded_value(peer, headers, b"x-forwarded-proto").lower() == "https"
        )

    def hosts(self, peer: str | None, headers: Headers) -> tuple[str, ...]:
        """The hosts that the client may have addressed, with ports: Host, and the proxy's X-Forwarded-Host with and
        without X-Forwarded-Port.
        """
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if host := self._forwarded_value(peer, headers, b"x-forwarded-host"):
            hosts.append(host)
            if port := self._forwarded_value(peer, headers, b"x-forwarded-port"):
                hosts.append(f"{host}:{port}")
        return tuple(hosts)

    def _forwarded_value(self, peer: str | None, headers: Headers, name: bytes) -> str:
        """A header as the proxy next to us has set it: the last value of the list. Empty if that is not trusted."""
        proxy = address(peer) if peer is not None else None
        if proxy is None or not any(proxy in network for network in self._networks):
            return ""
        values = [value for field, value in headers if field == name]
        return values[-1].rpartition(b",")[2].strip().decode("latin-1") if values else ""


def client_address(peer: str | None, forwarded: Sequence[bytes], trusted: Iterable[Network]) -> str | None:
    """The client's address.

    Args:
        peer: the address of the socket's other end.
        forwarded: the values of the X-Forwarded-For headers, in order.
        trusted: the networks of our own proxies.
    """
    trusted = tuple(trusted)
    client = address(peer) if peer is not None else None
    if client is None or not trusted or not any(client in network for network in trusted):
        return str(client) if client else peer
    direct = client
    hops = b",".join(forwarded).decode("latin-1").split(",") if forwarded else []
    while hops and any(client in network for network in trusted):
        hop = address(_without_port(hops.pop().strip()))
        if hop is None:
            return str(direct)  # unreadable: what is certain is the peer
        client = hop
    return str(client)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


@lru_cache(4096)
def _normalized(peer: str | None) -> str | None:
    return client_address(peer, (), ())

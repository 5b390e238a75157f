"""Where an HTTP server listens: its socket, and its URL for those who connect."""

import socket
from ipaddress import ip_address
from typing import NamedTuple

from tallystick.errors import Unavailable


class Place(NamedTuple):
    """An address of this machine.

    Args:
        host: as it was given, for people.
        address: the IP address, with its zone.
        port: TCP.
        family: of the address.
    """

    host: str
    address: str
    port: int
    family: socket.AddressFamily

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def reachable(self) -> str:
        """The host to connect to: loopback for a server that listens on all addresses."""
        if ip_address(self.address).is_unspecified:
            return "::1" if self.family == socket.AF_INET6 else "127.0.0.1"
        return self.host

    def url(self, scheme: str) -> str:
        return f"{scheme}://{_bracketed(self.reachable)}:{self.port}"

    def open(self) -> socket.socket:
        """The socket, bound; ``::`` takes IPv4 connections too.

        Raises:
            Unavailable: the port is taken, or the address is not this machine's.
        """
        opened = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            # Resolved again for the number of an IPv6 zone.
            opened.bind(socket.getaddrinfo(self.address, self.port, self.family, socket.SOCK_STREAM)[0][4])
        except OSError as error:
            opened.close()
            raise Unavailable(f"cannot listen on {self}: {error.strerror}") from None
        return opened


def resolve(host: str, port: int) -> Place:
    """Resolves a host to an address; if it has several, to an IPv4 one.

    Raises:
        Unavailable: the host has no address.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise Unavailable(f"cannot listen on {_bracketed(host)}:{port}: {reason}") from None
    family, _, _, _, address = min(entries, key=lambda entry: entry[0] != socket.AF_INET)
    return Place(host, str(address[0]), port, family)


def _bracketed(host: str) -> str:
    """A host as it stands in a URL (RFC 3986, 3.2.2; a zone as in RFC 6874)."""
    return f"[{host.replace('%', '%25')}]" if ":" in host else host

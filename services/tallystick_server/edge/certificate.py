"""The edge's TLS certificate: validated before it is used, and reloaded when it is renewed."""

import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tallystick_server.runtime.settings import SettingsError, variable

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
_NOT_YET_VALID, _EXPIRED = 9, 10
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

State = tuple[tuple[int, int, int], ...] | None


class Pair(NamedTuple):
    """A certificate chain and its matching key, copied into memory so that changes on disk do not affect them.

    Args:
        chain: the file descriptor of the chain, inherited by forked processes.
        key: the file descriptor of the key, likewise.
    """

    chain: int
    key: int

    @property
    def paths(self) -> tuple[str, str]:
        return f"/proc/self/fd/{self.chain}", f"/proc/self/fd/{self.key}"

    def close(self) -> None:
        os.close(self.chain)
        os.close(self.key)


class Certificate(NamedTuple):
    """The PEM files of a certificate chain, with the server's certificate first, and of its key."""

    chain: Path
    key: Path

    def load(self) -> Pair:
        """Reads the files. Logs a warning if the certificate is currently not valid; it is served nevertheless.

        Raises:
            SettingsError: the files cannot be read, are not a certificate and a key, or do not match.
        """
        chain, key = _read("tls_cert_file", self.chain), _read("tls_key_file", self.key)
        pair = Pair(_in_memory(chain), _in_memory(key))
        try:
            self._check(pair)
        except SettingsError:
            pair.close()
            raise
        return pair

    def _check(self, pair: Pair) -> None:
        chain, key = pair.paths
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            client.load_verify_locations(chain)
        except ssl.SSLError:
            raise SettingsError(
                f"{variable('tls_cert_file')}: {self.chain} is not a PEM certificate"
            ) from None
        try:
            # Without a password callback, OpenSSL would prompt at the terminal.
            server.load_cert_chain(chain, key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                fault = f"{self.key} is not the key of {self.chain}"
            else:
                fault = f"{self.key} is not a PEM private key without a passphrase"
            raise SettingsError(f"{variable('tls_key_file')}: {fault}") from None
        if reason := _validity_fault(server, client):
            log.warning("%s: %s; clients will reject it", self.chain, reason)

    def watch(self, renewed: Callable[[Pair], None]) -> None:
        """Calls ``renewed`` whenever the files have changed and can be used. Never returns."""
        loaded = current = self._state()
        while True:
            time.sleep(POLL_INTERVAL_S)
            # The two files are rarely replaced at the same moment, so they are read once they stop changing.
            previous, current = current, self._state()
            if current == loaded or current != previous:
                continue
            loaded = current
            try:
                pair = self.load()
            except SettingsError as error:
                log.error("the renewed certificate cannot be used: %s", error)  # noqa: TRY400  # the message says all
            else:
                log.info("using the renewed certificate")
                renewed(pair)

    def _state(self) -> State:
        try:
            stats = (self.chain.stat(), self.key.stat())
        except OSError:
            return None
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{variable(name)}: {path} cannot be read: {error.strerror}") from None


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("certificate")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def _validity_fault(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Why a client that trusts this certificate rejects its validity period; None if it accepts it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message if error.verify_code in {_NOT_YET_VALID, _EXPIRED} else None
    return None

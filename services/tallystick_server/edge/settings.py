"""What can be set about the edge."""

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from tallystick.tokens.addresses import Network, network
from tallystick_server.edge.certificate import Certificate
from tallystick_server.edge.http import cors
from tallystick_server.edge.http.line_writer import open_for_appending
from tallystick_server.runtime.settings import SettingsError, variable


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: Annotated[str, Meta(min_length=1, description="where NATS is, with this service's credentials")]
    host: Annotated[str, Meta(min_length=1, description="the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="the port to listen on")] = 3000
    trusted_proxies: Annotated[
        str,
        Meta(
            description="networks of our own proxies, separated by commas: their X-Forwarded-For is believed"
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Meta(
            description="origins whose pages may call the API from a browser, separated by commas; * for all"
        ),
    ] = ""
    workers: Annotated[int, Meta(ge=1, le=256, description="how many processes serve requests")] = 1
    connections: Annotated[
        int,
        Meta(
            ge=1, le=1_000_000, description="how many connections each process keeps open; more have to wait"
        ),
    ] = 10_000
    access_log: Annotated[
        Literal["off", "rejected", "all"],
        Meta(description="which requests are logged, a JSON object a line: none, rejected ones, or all"),
    ] = "off"
    access_log_path: Annotated[
        str | None,
        Meta(description="file that the access log is appended to; without it standard output"),
    ] = None
    docs: Annotated[bool, Meta(description="whether /docs is there")] = True
    dashboard: Annotated[bool, Meta(description="whether /admin is there")] = True

    cached_tokens: Annotated[
        int, Meta(ge=1, le=10_000_000, description="how many tokens each process remembers at most")
    ] = 50_000
    nats_authority: Annotated[
        str | None,
        Meta(description="certificates (PEM) of those who may vouch for NATS; without it the system's"),
    ] = None
    certificate: Annotated[
        str | None,
        Meta(description="path of this server's certificate chain (PEM): it then speaks HTTPS only"),
    ] = None
    certificate_key: Annotated[str | None, Meta(description="path of that certificate's key (PEM)")] = None
    tls_min_version: Annotated[
        Literal["1.2", "1.3"], Meta(description="the oldest version of TLS to accept")
    ] = "1.2"
    thread: Annotated[
        str | None,
        Meta(
            description="the id under which `tallystick up` counts this process; without it the service counts itself"
        ),
    ] = None

    def trusted_networks(self) -> tuple[Network, ...]:
        """Raises:
        SettingsError: an entry is no network; ``*`` is none, since then anyone could choose their address.
        """
        try:
            return tuple(network(text.strip()) for text in self.trusted_proxies.split(",") if text.strip())
        except ValueError:
            raise SettingsError(f"{variable('trusted_proxies')}: not a list of networks") from None

    def allowed_origins(self) -> frozenset[str]:
        """Raises:
        SettingsError: an entry is no origin.
        """
        try:
            return cors.read_origins(self.cors_origins)
        except ValueError:
            raise SettingsError(
                f"{variable('cors_origins')}: not a list of origins, as in https://app.example.com; or * alone"
            ) from None

    def access_log_file(self) -> Path | None:
        """Raises:
        SettingsError: it cannot be written to.
        """
        if self.access_log == "off" or self.access_log_path is None:
            return None
        path = Path(self.access_log_path)
        try:
            os.close(open_for_appending(path))
        except OSError as error:
            raise SettingsError(f"{variable('access_log_path')}: {error.strerror}") from None
        return path

    def certificate_files(self) -> Certificate | None:
        """Raises:
        SettingsError: only one of the two is set.
        """
        if (self.certificate is None) != (self.certificate_key is None):
            raise SettingsError(
                f"{variable('certificate')} and {variable('certificate_key')} belong together"
            )
        if self.certificate is None or self.certificate_key is None:
            return None
        return Certificate(Path(self.certificate), Path(self.certificate_key))

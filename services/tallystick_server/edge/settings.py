"""The settings of the edge."""

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
    nats_url: Annotated[
        str, Meta(min_length=1, description="URL of NATS, with the credentials of this service")
    ]
    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="port to listen on")] = 3000
    trusted_proxies: Annotated[
        str,
        Meta(
            description="networks of trusted proxies, separated by commas, whose X-Forwarded-* headers are used"
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Meta(
            description="origins whose pages may call the API from a browser, separated by commas; * for all"
        ),
    ] = ""
    workers: Annotated[int, Meta(ge=1, le=256, description="number of worker processes")] = 1
    max_connections: Annotated[
        int,
        Meta(
            ge=1, le=1_000_000, description="maximum number of open connections of each process; others wait"
        ),
    ] = 10_000
    access_log: Annotated[
        Literal["off", "rejected", "all"],
        Meta(description="requests in the access log, one JSON object per line: none, rejected ones, or all"),
    ] = "off"
    access_log_path: Annotated[
        str | None,
        Meta(description="file to append the access log to; without it standard output"),
    ] = None
    docs: Annotated[bool, Meta(description="whether to serve the API reference at /docs")] = True
    dashboard: Annotated[bool, Meta(description="whether to serve the dashboard at /admin")] = True

    cache_max_tokens: Annotated[
        int, Meta(ge=1, le=10_000_000, description="maximum number of tokens in the cache of each process")
    ] = 50_000
    nats_ca: Annotated[
        str | None,
        Meta(
            description="CA certificates (PEM) for verifying the NATS server; without it those of the system"
        ),
    ] = None
    tls_cert_file: Annotated[
        str | None,
        Meta(description="path of the certificate chain (PEM); the edge then serves HTTPS only"),
    ] = None
    tls_key_file: Annotated[
        str | None, Meta(description="path of the private key of that certificate (PEM)")
    ] = None
    tls_min_version: Annotated[Literal["1.2", "1.3"], Meta(description="minimum TLS version")] = "1.2"
    thread: Annotated[
        str | None,
        Meta(
            description="the id under which `tallystick up` counts this process; without it the service counts itself"
        ),
    ] = None

    def trusted_networks(self) -> tuple[Network, ...]:
        """Raises:
        SettingsError: an entry is not a network. ``*`` is rejected: any client could choose its address.
        """
        try:
            return tuple(network(text.strip()) for text in self.trusted_proxies.split(",") if text.strip())
        except ValueError:
            raise SettingsError(
                f"{variable('trusted_proxies')} must be a list of networks, such as 10.0.0.0/8"
            ) from None

    def allowed_origins(self) -> frozenset[str]:
        """Raises:
        SettingsError: an entry is not an origin.
        """
        try:
            return cors.read_origins(self.cors_origins)
        except ValueError:
            raise SettingsError(
                f"{variable('cors_origins')} must be a list of origins, such as https://app.example.com, or * alone"
            ) from None

    def access_log_file(self) -> Path | None:
        """Raises:
        SettingsError: the file cannot be written.
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
        SettingsError: only one of the two files is set.
        """
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise SettingsError(
                f"{variable('tls_cert_file')} and {variable('tls_key_file')} must be set together"
            )
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        return Certificate(Path(self.tls_cert_file), Path(self.tls_key_file))

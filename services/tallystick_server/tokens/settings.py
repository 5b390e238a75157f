"""The settings of the tokens service."""

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: Annotated[
        str, Meta(min_length=1, description="URL of NATS, with the credentials of this service")
    ]
    database_url: Annotated[
        str, Meta(min_length=1, description="URL of PostgreSQL, with the role of this service")
    ]
    startup_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="how long to wait for NATS and PostgreSQL at startup, in seconds"),
    ] = 60
    prepared_token: Annotated[
        str | None,
        Meta(
            description="a token record, ours or EmailEngine's, imported at startup unless the token exists"
        ),
    ] = None
    cache_lease_s: Annotated[
        float,
        Meta(
            ge=0.5,
            le=300,
            description="how long an edge may use its cache without renewing its lease, in seconds: for so long it"
            " survives an outage of this service, and for so long a revocation waits for an edge that has died",
        ),
    ] = 5
    nats_ca: Annotated[
        str | None,
        Meta(
            description="CA certificates (PEM) for verifying the NATS server; without it those of the system"
        ),
    ] = None
    heartbeat_file: Annotated[
        str | None,
        Meta(description="file to write every second while the service is ready, for health checks"),
    ] = None
    thread: Annotated[
        str | None,
        Meta(
            description="the id under which `tallystick up` counts this process; without it the service counts itself"
        ),
    ] = None
    max_clock_skew_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="maximum difference between the clocks of machines, in seconds: a change is still made so long"
            " after its deadline",
        ),
    ] = 2
    self_rotation_max_grace_s: Annotated[
        int,
        Meta(
            ge=0,
            le=30 * 24 * 3600,
            description="maximum grace period, in seconds, with which a token may rotate itself",
        ),
    ] = 24 * 3600
    max_tokens_per_creator: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="maximum number of valid tokens that one token may have created",
        ),
    ] = 100_000

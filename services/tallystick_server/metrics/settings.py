"""What can be set about the metrics service."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: Annotated[
        str, Meta(min_length=1, description="URL of NATS, with the credentials of this service")
    ]
    events_nats_url: Annotated[
        str | None,
        Meta(
            description="NATS, as the user of the account that holds the event stream; without it `nats_url`",
        ),
    ] = None
    database_url: Annotated[
        str, Meta(min_length=1, description="URL of PostgreSQL, with the role of this service")
    ]
    startup_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="how long to wait for NATS and PostgreSQL at startup, in seconds"),
    ] = 60
    stream_max_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 62,
            description="limit of the event stream on NATS, in bytes; full of uncounted events, it accepts no more",
        ),
    ] = 1 << 30
    stream_replicas: Annotated[
        Literal[1, 3, 5], Meta(description="number of NATS servers that replicate the event stream")
    ] = 1
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

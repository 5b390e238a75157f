"""What can be set about the metrics service."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: Annotated[str, Meta(min_length=1, description="where NATS is, with this service's credentials")]
    events_nats_url: Annotated[
        str | None,
        Meta(
            description="NATS, as the user of the account that holds the event stream; without it `nats_url`",
        ),
    ] = None
    database_url: Annotated[
        str, Meta(min_length=1, description="where PostgreSQL is, with this service's role")
    ]
    wait_s: Annotated[
        float, Meta(ge=0.1, le=3600, description="how long to wait for both at the start, in seconds")
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
        Literal[1, 3, 5], Meta(description="how many NATS nodes keep a copy of the event stream")
    ] = 1
    nats_authority: Annotated[
        str | None,
        Meta(description="certificates (PEM) of those who may vouch for NATS; without it the system's"),
    ] = None
    heartbeat: Annotated[
        str | None, Meta(description="a file that is written every second for as long as this service serves")
    ] = None
    thread: Annotated[
        str | None,
        Meta(
            description="the id under which `tallystick up` counts this process; without it the service counts itself"
        ),
    ] = None

"""What can be set about the metrics service."""

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: Annotated[str, Meta(min_length=1, description="where NATS is, with this service's credentials")]
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
            description="size of the event stream on NATS; full, it refuses events, in bytes",
        ),
    ] = 1 << 30

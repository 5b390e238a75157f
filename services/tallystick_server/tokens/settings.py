"""What can be set about the tokens service."""

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
    prepared_token: Annotated[
        str | None,
        Meta(description="a token record, ours or EmailEngine's, imported at the start unless it is there"),
    ] = None
    lease_s: Annotated[
        float,
        Meta(
            ge=0.5,
            le=300,
            description="how long an edge may rely on its cache without hearing from us, in seconds: it rides out"
            " outages as long, and a revocation waits as long for an edge that died",
        ),
    ] = 5
    nats_authority: Annotated[
        str | None,
        Meta(description="certificates (PEM) of those who may vouch for NATS; without it the system's"),
    ] = None
    heartbeat: Annotated[
        str | None, Meta(description="a file that is touched every second for as long as this service serves")
    ] = None
    thread: Annotated[
        str | None,
        Meta(
            description="the id under which `tallystick up` counts this process; without it the service counts itself"
        ),
    ] = None
    clocks_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="how far the clocks of machines may differ, in seconds: so much later than its"
            " deadline a change is still carried out",
        ),
    ] = 2
    self_rotation_max_grace_s: Annotated[
        int,
        Meta(
            ge=0,
            le=30 * 24 * 3600,
            description="the longest grace period, in seconds, with which a token may rotate itself",
        ),
    ] = 24 * 3600
    max_tokens_per_creator: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="how many tokens that are still valid one token may have created",
        ),
    ] = 100_000

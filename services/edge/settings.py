"""What can be set about the edge."""

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: Annotated[str, Meta(min_length=1, description="where NATS is, with this service's credentials")]
    host: Annotated[str, Meta(min_length=1, description="the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="the port to listen on")] = 3000
    workers: Annotated[int, Meta(ge=1, le=256, description="how many processes serve requests")] = 1

"""What the command line's own commands take from the environment."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    data_dir: Annotated[str, Meta(min_length=1, description="where `up` keeps everything")] = "data"
    nats_port: (
        Annotated[int, Meta(ge=1, le=65535, description="the port of `up`'s NATS, on loopback")] | None
    ) = None

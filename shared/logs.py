"""Log lines: one per event, on standard error, never with a token in them."""

import logging


def set_up(service: str, level: str = "INFO") -> None:
    """Sets the root logger. Called by the entry point, once per process."""
    logging.basicConfig(
        level=level,
        format=f"%(asctime)s {service} %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    # nats-py logs each failed attempt to connect; `shared.bus` says it once.
    logging.getLogger("nats").setLevel(logging.CRITICAL)

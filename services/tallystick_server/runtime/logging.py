"""Log lines: one per event, on standard error, never with a token in them; as text, or as JSON for machines."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from tallystick.rpc import tracing


class Settings(Struct, frozen=True, kw_only=True):
    log_format: Annotated[Literal["text", "json"], Meta(description="format of log lines")] = "text"


def set_up(service: str, settings: Settings) -> None:
    """Sets the root logger. Called by the entry point, once per process."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(service, settings.log_format))
    logging.basicConfig(level="INFO", handlers=[handler], force=True)
    # nats-py logs each failed attempt to connect; `tallystick.connection` says it once.
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def formatter(service: str, form: Literal["text", "json"]) -> logging.Formatter:
    if form == "json":
        return _Json(service)
    return logging.Formatter(
        f"%(asctime)s {service} %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if origin := tracing.current():
            line["request"] = origin.request
            if origin.trace_id:
                line["trace"] = origin.trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()

"""Prints records and errors."""

import json
import sys
from typing import NoReturn

import click
import msgspec


def show_record(record: msgspec.Struct) -> None:
    # As JSON, so that nothing in a description reaches the terminal as anything but text.
    click.echo(msgspec.json.format(as_ascii(record), indent=2))


def as_ascii(record: object) -> str:
    """JSON with everything beyond ASCII escaped."""
    return json.dumps(msgspec.to_builtins(record))


def fail(message: str, code: int) -> NoReturn:
    """Prints one line and ends the program with an exit code of sysexits.h."""
    click.echo(f"tallystick: {message}", err=True)
    sys.exit(code)

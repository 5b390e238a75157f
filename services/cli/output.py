"""Prints records."""

import json

import click
import msgspec


def show_record(record: msgspec.Struct) -> None:
    # As JSON, so that nothing in a description reaches the terminal as anything but text.
    click.echo(msgspec.json.format(as_ascii(record), indent=2))


def as_ascii(record: object) -> str:
    """JSON with everything beyond ASCII escaped."""
    return json.dumps(msgspec.to_builtins(record))

"""A group of commands whose modules are imported when they are used, so that each command starts fast."""

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, NamedTuple

import click


class Lazy(NamedTuple):
    """Args:
    module: where the command is.
    name: its name there.
    summary: its help in the list of commands.
    """

    module: str
    name: str
    summary: str


class LazyGroup(click.Group):
    """As click's documentation describes it, except that listing the commands loads none of them."""

    lazy: ClassVar[Mapping[str, Lazy]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        lazy = self.lazy[cmd_name]
        command: click.Command = getattr(import_module(lazy.module), lazy.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.lazy:
                rows.append((name, self.lazy[name].summary))
            elif command := self.get_command(ctx, name):
                rows.append((name, command.get_short_help_str()))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

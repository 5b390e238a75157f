"""`tallystick counting ...`: shows whether events are counted, and resumes counting after it was halted."""

import click

from tallystick.contracts.metrics import COUNTING, RESUME_COUNTING, AskCounting, ResumeCounting
from tallystick_server.cli.connection import ask, operator
from tallystick_server.cli.output import fail
from tallystick_server.runtime.lifecycle import EX_UNAVAILABLE


@click.group()
def counting() -> None:
    """Show whether events are counted, and resume counting."""


@counting.command()
def status() -> None:
    """Print whether events are counted and stored; exits 69 if they are not."""
    state = ask(COUNTING, AskCounting())
    click.echo(f"counting: {f'halted: {state.refusal}' if state.refusal else 'yes'}")
    click.echo(f"stream: {state.stream}")
    if state.refusal or state.stream != "writable":
        fail("see docs/incidents.md", EX_UNAVAILABLE)


@counting.command()
@click.option("--yes", is_flag=True, help="do not ask for confirmation")
def resume(*, yes: bool) -> None:
    """Count the current event stream from its first event.

    Numbered events that were counted before are not counted again. Events that only a lost stream held stay lost.
    """
    state = ask(COUNTING, AskCounting())
    if state.refusal is None:
        click.echo("counting is not halted")
        return
    click.echo(state.refusal)
    if not yes:
        click.confirm("Count the current event stream?", abort=True)
    ask(RESUME_COUNTING, ResumeCounting(actor=operator()))
    click.echo("counting resumes within seconds")

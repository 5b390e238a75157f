"""`tallystick counting ...`: whether events are counted, and the operator's decision after counting has stopped."""

import click

from tallystick.contracts.metrics import COUNTING, RESUME_COUNTING, AskCounting, ResumeCounting
from tallystick_server.cli.connection import ask, operator
from tallystick_server.cli.output import fail
from tallystick_server.runtime.lifecycle import EX_UNAVAILABLE


@click.group()
def counting() -> None:
    """Show whether events are counted, and decide what to do about another stream."""


@counting.command()
def status() -> None:
    """Print whether events are counted and stored; exits 69 if they are not."""
    state = ask(COUNTING, AskCounting())
    click.echo(f"counting: {f'refused: {state.refusal}' if state.refusal else 'yes'}")
    click.echo(f"stream: {state.stream}")
    if state.refusal or state.stream != "writable":
        fail("see docs/incidents.md", EX_UNAVAILABLE)


@counting.command()
@click.option("--yes", is_flag=True, help="decide without being asked")
def resume(*, yes: bool) -> None:
    """Count the event stream that is there, from its first event.

    Numbered events that were counted before are not counted again. What the lost stream held uncounted stays lost.
    """
    state = ask(COUNTING, AskCounting())
    if state.refusal is None:
        click.echo("nothing to decide: events are counted")
        return
    click.echo(state.refusal)
    if not yes:
        click.confirm("Count the stream that is there?", abort=True)
    ask(RESUME_COUNTING, ResumeCounting(actor=operator()))
    click.echo("counting resumes within seconds")

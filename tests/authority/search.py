"""Searches for a program on which the services and the model differ."""

import asyncio
from collections.abc import Callable

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.authority.driver import System
from tests.authority.programs import Program

PROGRAM_TIMEOUT_S = 60


def search(
    system: System,
    loop: asyncio.AbstractEventLoop,
    strategy: st.SearchStrategy[Program],
    *,
    examples: int,
    chosen_seed: int | None = None,
    before: Callable[[Program], None] = lambda _: None,
) -> None:
    """Runs generated programs from a thread beside the loop that the services run in.

    Args:
        system: the services.
        loop: their loop.
        strategy: what to generate.
        examples: how many programs.
        chosen_seed: of the generator; None for the same programs each time.
        before: called with each program before it runs.
    """

    def check(program: Program) -> None:
        before(program)
        asyncio.run_coroutine_threadsafe(system.check(program), loop).result(PROGRAM_TIMEOUT_S)

    property_ = given(strategy)(check)
    if chosen_seed is not None:
        property_ = seed(chosen_seed)(property_)
    settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=chosen_seed is None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )(property_)()

"""Searches for a program on which the services and the model differ."""

import asyncio
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, seed, settings
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
    failed: Callable[[Program, BaseException], None] = lambda _, __: None,
    before: Callable[[Program], None] = lambda _: None,
    shrink: bool = True,
) -> None:
    """Runs generated programs from a thread beside the loop that the services run in.

    Args:
        system: the services.
        loop: their loop.
        strategy: what to generate.
        examples: how many programs.
        chosen_seed: of the generator; None for the same programs each time.
        failed: called with each program that fails, the shortest one last unless it succeeds when it is repeated.
        before: called with each program before it runs.
        shrink: look for the shortest program that fails.
    """

    def check(program: Program) -> None:
        before(program)
        try:
            asyncio.run_coroutine_threadsafe(system.check(program), loop).result(PROGRAM_TIMEOUT_S)
        except BaseException as error:
            failed(program, error)
            raise

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
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )(property_)()

"""Searches for a program for which the services and the model differ."""

import asyncio
from collections.abc import Callable, Iterator

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

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
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Runs generated programs from another thread than that of the services' event loop.

    Args:
        system: the services.
        loop: the event loop of the services.
        strategy: generates the programs.
        examples: the number of programs.
        chosen_seed: the seed of the generator; None for the same programs each time.
        failed: called with each program that fails, the shortest one last unless it succeeds when it is repeated.
        before: called with each program before it runs.
        shrink: search for the shortest program that fails.
        is_over: whether the time is over, in which case the remaining programs are skipped.
    """

    def check(program: Program) -> None:
        if is_over():
            return
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


async def reduce(system: System, program: Program, times: int = 3) -> Program:
    """Removes every step and command without which the program still fails.

    Args:
        system: the services.
        program: a program that fails.
        times: how often a shorter program is run, since concurrent commands may run in an order that succeeds.
    """
    shortest = program
    for candidate in _shorter(program):
        if await _fails(system, candidate, times):
            shortest = await reduce(system, candidate, times)
            break
    return shortest


def _shorter(program: Program) -> Iterator[Program]:
    """The program without one of its steps, the latest first, or without one command of a step."""
    for number in reversed(range(len(program))):
        before, step, after = program[:number], program[number], program[number + 1 :]
        yield (*before, *after)
        if len(step.commands) > 1:
            for index in range(len(step.commands)):
                commands = (*step.commands[:index], *step.commands[index + 1 :])
                yield (*before, msgspec.structs.replace(step, commands=commands), *after)


async def _fails(system: System, program: Program, times: int) -> bool:
    for _ in range(times):
        try:
            await system.check(program)
        except AssertionError:
            return True
    return False

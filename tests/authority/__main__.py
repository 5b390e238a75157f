"""Attacks a tokens service and an edge on loopback with generated programs until the time is over.

python -m tests.authority --minutes 10 [--seed 1]
python -m tests.authority --replay FILE [--times 100]

A failure prints the program as JSON, one step on each line. It can be saved to a file and replayed.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.authority.driver import System
from tests.authority.programs import Program, from_json, programs, to_json
from tests.authority.search import reduce, search
from tests.authority.servers import serve
from tests.support.paths import temporary_folder
from tests.support.servers import TEMPLATE, _database, _embedded_postgres, _make_template, start_nats

EXAMPLES = 100
"""Programs with one seed."""


class Attack:
    def __init__(self, minutes: float, chosen_seed: int, *, shrink: bool) -> None:
        self.shrink = shrink
        self.ends = time.monotonic() + minutes * 60
        self.seed = chosen_seed
        self.programs = 0
        self.commands = 0
        self.failures: list[tuple[Program, BaseException]] = []

    def is_over(self) -> bool:
        """Whether the time is over. After a failure it never is: the search for a shorter program continues."""
        return not self.failures and time.monotonic() > self.ends

    def count(self, program: Program) -> None:
        self.programs += 1
        self.commands += sum(len(step.commands) for step in program)

    async def run(self, system: System) -> bool:
        """Whether the services agreed with the model in every program."""
        loop = asyncio.get_running_loop()
        while not self.is_over():
            print(f"seed {self.seed}: {self.programs} programs, {self.commands} commands", flush=True)
            try:
                await asyncio.to_thread(
                    search,
                    system,
                    loop,
                    programs(),
                    examples=EXAMPLES,
                    chosen_seed=self.seed,
                    before=self.count,
                    failed=lambda program, error: self.failures.append((program, error)),
                    shrink=self.shrink,
                    is_over=self.is_over,
                )
            except Exception as error:
                if not self.failures:
                    raise
                program, failure = self.failures[-1]
                print(
                    f"seed {self.seed}: {type(error).__name__}, {len(self.failures)} failures, the last one:"
                )
                print(f"{type(failure).__name__}: {failure}", flush=True)
                if self.shrink:
                    program = await reduce(system, program)
                print(f"the program to replay:\n{to_json(program)}")
                return False
            self.seed += 1
        deadlocks = await system.deadlocks()
        print(
            f"{self.programs} programs, {self.commands} commands, no difference;"
            f" {system.unknown_outcomes} unknown outcomes, {deadlocks} deadlocks"
        )
        return deadlocks == 0


async def replay(system: System, program: Program, times: int) -> bool:
    for number in range(times):
        try:
            await system.check(program)
        except AssertionError as error:
            print(f"run {number + 1} of {times}: {error}")
            return False
    print(f"{times} runs, no difference")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--no-shrink", action="store_true", help="print the first program that fails as it is"
    )
    parser.add_argument("--replay", type=Path, help="a file with a program as JSON")
    parser.add_argument("--times", type=int, default=1, help="how often to replay it")
    arguments = parser.parse_args()
    if arguments.replay:
        program = from_json(arguments.replay.read_text())
        agrees = run(lambda system: replay(system, program, arguments.times))
    else:
        agrees = run(Attack(arguments.minutes, arguments.seed, shrink=not arguments.no_shrink).run)
    sys.exit(0 if agrees else 1)


def run(work: Callable[[System], object]) -> bool:
    with temporary_folder() as name, _embedded_postgres(Path(name)) as url:
        asyncio.run(_make_template(url))
        return asyncio.run(_serve(Path(name), _database(url, TEMPLATE), work))


async def _serve(folder: Path, database_url: str, work: Callable[[System], object]) -> bool:
    async with start_nats(folder / "nats") as nats, serve(database_url, nats) as system:
        return bool(await work(system))  # type: ignore[misc]


if __name__ == "__main__":
    main()

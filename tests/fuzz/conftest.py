"""`pytest tests/fuzz --minutes 10` goes on for that long, with ever new input; in the suite a short run suffices,
the same each time.
"""

import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=0, help="how long to fuzz, all tests together")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """This test's share of the time; 0 for a short run."""
    minutes: float = request.config.getoption("--minutes", default=0)
    return minutes * 60 / len(request.session.items)


@pytest.fixture
def fuzz(seconds: float) -> Callable[..., None]:
    """Runs a property again and again."""

    def run(check: Callable[[], None], examples: int) -> None:
        ends = time.monotonic() + seconds
        set_up = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=not seconds,
            suppress_health_check=list(HealthCheck),
        )
        checked = set_up(check)
        checked()
        while time.monotonic() < ends:
            checked()

    return run

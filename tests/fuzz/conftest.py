"""`pytest tests/fuzz --minutes 10` runs for ten minutes with new input. Without the option, a short run uses the same input
each time.
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
    """Runs a property repeatedly until its share of the time is over."""

    def run(check: Callable[[], None], examples: int) -> None:
        ends = time.monotonic() + seconds
        configure = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=not seconds,
            suppress_health_check=list(HealthCheck),
        )
        checked = configure(check)
        checked()
        while time.monotonic() < ends:
            checked()

    return run

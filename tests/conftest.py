"""What holds for every test: the fixtures there are, how processes share the tests, and Hypothesis's profile."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Those that others import come first: pytest rewrites the assertions only of what is not loaded yet.
pytest_plugins = [
    "tests.support.polling",
    "tests.support.servers",
    "tests.support.services",
    "tests.support.api",
    "tests.support.counting",
    "tests.support.dashboard",
    "tests.support.up",
    "tests.support.docs",
    "tests.support.surroundings",
]
# How long an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
SHARING_NOTHING = ("tests/authority/", "tests/chaos/", "tests/tallystick/", "tests/tallystick_server/")
"""Where no module has a fixture that costs much and that its tests share."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `--numprocesses auto` means: two processes more than there are cores, since tests wait for much of their time;
    not more, since the deadlines of services are short. A single one where all tests share one NATS.
    """
    # Imported before it is a plugin, its assertions would not be rewritten.
    from tests.support.servers import which_servers

    return min(len(os.sched_getaffinity(0)) + 2, 8) if which_servers() == "embedded" else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each test to the next process that is free, but the tests of a module that share an `up` to the same one.

    The marks of `--dist loadgroup` do nothing: pytest-xdist 3.8 writes them into ids that pytest 9.2 does not read.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(SHARING_NOTHING) else nodeid.partition("::")[0]

    return Scheduling(config, log)

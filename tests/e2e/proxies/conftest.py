"""The table that is printed after the tests with real proxies."""

import re

import pytest

from tests.e2e.proxies.harness import PROGRAMS

CASE = re.compile(rf"::test_(\w+)\[({'|'.join(PROGRAMS)})(?:-(.*))?\]$")
MARKS = {"passed": "yes", "failed": "NO", "error": "NO", "skipped": "skipped"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    table: dict[str, dict[str, str]] = {}
    for outcome, mark in MARKS.items():
        for report in terminalreporter.stats.get(outcome, []):
            if match := CASE.search(report.nodeid):
                name, proxy, parameters = match.groups()
                case = " ".join([name.replace("_", " "), f"({parameters})" if parameters else ""])
                table.setdefault(case.strip(), {})[proxy] = mark
    if table:
        width = max(map(len, table))
        terminalreporter.section("proxies")
        for case, marks in [("", {name: name for name in PROGRAMS}), *table.items()]:
            cells = (marks.get(name, "-").ljust(8) for name in PROGRAMS)
            terminalreporter.write_line(f"{case.ljust(width)}  {' '.join(cells)}")

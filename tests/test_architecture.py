"""What may import what: the library nothing of the services, and no service another one."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# A statement, at the beginning of a string.
SQL = re.compile(r"\s*(select|insert into|update|delete from|with) [a-z_(*]", re.ASCII)
SERVICES = ("edge", "tokens", "metrics")


def modules() -> dict[str, Path]:
    """Every module of the two packages, by its dotted name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for root in (ROOT / "shared", ROOT / "services")
        for path in root.rglob("*.py")
    }


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported(package: str) -> set[str]:
    return {
        name
        for module, path in modules().items()
        if f"{module}.".startswith(f"{package}.")
        for name in imports(path)
    }


def test_the_library_imports_nothing_of_the_services():
    assert {name for name in imported("tallystick") if name.startswith("tallystick_server")} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other_part_of_the_server(service: str):
    allowed = (f"tallystick_server.{service}", "tallystick_server.runtime")
    of_server = {
        name for name in imported(f"tallystick_server.{service}") if name.startswith("tallystick_server")
    }
    assert {name for name in of_server if not name.startswith(allowed)} == set()


def test_what_every_service_needs_imports_none_of_them():
    of_server = {
        name for name in imported("tallystick_server.runtime") if name.startswith("tallystick_server")
    }
    assert {name for name in of_server if not name.startswith("tallystick_server.runtime")} == set()


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    graph = {
        module: {name for name in imports(path) if name in known and name != module}
        - {module.rpartition(".")[0]}
        for module, path in known.items()
    }
    TopologicalSorter(graph).prepare()


def test_there_are_two_packages_and_no_other():
    assert {name.partition(".")[0] for name in modules()} == {"tallystick", "tallystick_server"}
    assert not list((ROOT / "deploy").rglob("__init__.py"))


def strings(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    prose = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.value


@pytest.mark.parametrize("service", ["tokens", "metrics"])
def test_all_sql_of_a_service_stands_in_its_store_and_names_its_columns(service: str):
    statements = {
        module: [text for text in strings(path) if SQL.match(text)]
        for module, path in modules().items()
        if module.startswith(f"tallystick_server.{service}.")
    }
    store = f"tallystick_server.{service}.store"
    inside = [text for module, texts in statements.items() if module.startswith(store) for text in texts]
    outside = {
        module: texts for module, texts in statements.items() if texts and not module.startswith(store)
    }
    assert len(inside) > 10
    assert outside == {}
    assert [text for text in inside if re.search(r"select (\w+\.)?\*(?! from unnest)", text)] == []


def test_only_entry_points_read_the_environment():
    allowed = {
        "services/tallystick_server/__main__.py",
        "services/tallystick_server/cli/connection.py",
        "services/tallystick_server/cli/psql.py",  # hands its own environment on to psql
        "services/tallystick_server/edge/server.py",
        "services/tallystick_server/local/up.py",  # hands its own environment on to its children
        "services/tallystick_server/local/stack.py",  # so does this
    }
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }
    assert readers <= allowed

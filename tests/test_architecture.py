"""A service imports `shared` and itself, never another service; `shared` imports none."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = ("edge", "tokens", "metrics")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other_service(service: str):
    allowed = f"services.{service}"
    found = {
        name
        for path in (ROOT / "services" / service).rglob("*.py")
        for name in imports(path)
        if name.startswith(("services.", "deploy")) and not name.startswith(allowed)
    }
    assert found == set()


def test_shared_imports_no_service():
    found = {
        name
        for path in (ROOT / "shared").rglob("*.py")
        for name in imports(path)
        if name.startswith(("services", "deploy"))
    }
    assert found == set()


def test_only_entry_points_read_the_environment():
    allowed = {
        "services/__main__.py",
        "services/cli/connection.py",
        "services/cli/psql.py",  # hands its own environment on to psql
        "services/edge/server.py",
        "deploy/up.py",  # hands its own environment on to its children
        "deploy/cluster/local.py",  # so does this
    }
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("services", "shared", "deploy")
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }
    assert readers <= allowed

"""What `pip install .` brings: two packages, and for the library alone no more than msgspec and nats-py."""

import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from tallystick_server.__main__ import Program, program
from tests.support.paths import PYTHON_PATH, ROOT

BUILD = "import hatchling.build, sys; hatchling.build.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True)
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> list[str]:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist") or []


def run(code: str, *paths: Path) -> str:
    """What a Python prints that finds these folders and the standard library only."""
    program = f"import sys; sys.path[:0] = {[str(path) for path in paths]}\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_wheel_holds_two_packages(wheel: zipfile.ZipFile):
    names = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"tallystick", "tallystick_server"}


@pytest.mark.parametrize("folder", ["shared", "services"])
def test_every_file_of_the_packages_is_in_the_wheel(wheel: zipfile.ZipFile, folder: str):
    files = {
        str(path.relative_to(ROOT / folder))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(files) > 20
    assert files <= set(wheel.namelist())


def test_the_library_needs_msgspec_and_nats_py_only(wheel: zipfile.ZipFile, tmp_path: Path):
    required = [requirement for requirement in metadata(wheel) if "extra ==" not in requirement]
    assert sorted(requirement.partition(">")[0] for requirement in required) == ["msgspec", "nats-py"]
    wheel.extractall(tmp_path / "installed")
    alone = tmp_path / "dependencies"
    alone.mkdir()
    for name in ("msgspec", "nats"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (alone / name).symlink_to(Path(spec.origin).parent)
    modules = [
        ".".join(path.relative_to(tmp_path / "installed").with_suffix("").parts)
        for path in (tmp_path / "installed" / "tallystick").rglob("*.py")
    ]
    imports = "\n".join(f"import {module.removesuffix('.__init__')}" for module in modules)
    code = f"from tallystick import *\n{imports}\nprint(Producer.__name__, VERSION)"
    assert run(code, tmp_path / "installed", alone).startswith("Producer ")


def test_the_command_says_what_is_missing_where_only_the_library_is(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    code = "import tallystick_server\ntry: tallystick_server.main()\nexcept SystemExit as error: print(error)"
    assert run(code, tmp_path).startswith(
        "tallystick: click is not installed; install 'tallystick[server,local]'"
    )


def test_importing_the_library_loads_nothing_else():
    loaded = "[name for name in sys.modules if name.partition('.')[0] in ('asyncio', 'msgspec', 'nats')]"
    assert run(f"import tallystick\nprint({loaded})", *map(Path, PYTHON_PATH.split(":"))) == "[]"


def test_the_list_of_commands_shows_their_own_summaries():
    context = click.Context(program)
    for name, lazy in Program.lazy.items():
        command = program.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == lazy.summary

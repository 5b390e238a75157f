"""The commands of README and docs, and somebody who runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT
from tests.support.up import Up, environment

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:^ *<!-- needs: (?P<needs>.*?) -->\n)?^(?P<indent> *)```(?P<language>sh|console)\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    page: str
    language: str
    needs: str | None
    text: str


def blocks() -> list[Block]:
    return [
        Block(
            page.name,
            match["language"],
            match["needs"],
            re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
        )
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text())
    ]


class Reader:
    """Somebody who pastes the commands of the docs into a shell, in a clone in which `deploy/scripts/setup.sh` has run."""

    def __init__(self, up: Up, clone: Path) -> None:
        self.clone = clone
        self.address = up.http
        shutil.copytree(
            ROOT / "deploy", clone / "deploy", ignore=shutil.ignore_patterns("secrets", "__pycache__")
        )
        for name in ("services", "shared", "examples"):
            (clone / name).symlink_to(ROOT / name)
        binaries = clone / ".venv/bin"
        binaries.mkdir(parents=True)
        self._write_program(binaries / "tallystick", f'exec "{sys.executable}" -m tallystick_server "$@"')
        self._write_program(binaries / "python", f'exec "{sys.executable}" "$@"')
        (clone / ".curlrc").write_text("silent\nfail-with-body\nnoproxy = *\nmax-time = 20\n")
        self.environment = {
            **environment(data_dir=str(up.data)),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": f"{clone}/shared:{clone}/services",
            "CURL_HOME": str(clone),
            "TOKEN": up.admin_token,
        }
        self.admin_id = self.issue("*", describe=True)
        self.environment["METRICS_TOKEN"] = self.issue("metrics")
        self.environment["ORDERS_API_TOKEN"] = self.issue("introspect")

    def _write_program(self, path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def issue(self, scope: str, *, describe: bool = False) -> str:
        done = self.run(f"tallystick tokens create --scope '{scope}'" + (" --json" if describe else ""))
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["id"]) if describe else done.stdout.strip()

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """One command or script; addresses of the docs are those of the `up` that runs."""
        for address in ("http://127.0.0.1:3000", "https://tokens.example"):
            command = command.replace(address, self.address)
        return subprocess.run(
            ["sh", "-euc", command],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def reader(up: Up) -> Iterator[Reader]:
    with tempfile.TemporaryDirectory(prefix="tally-") as clone:
        yield Reader(up, Path(clone))

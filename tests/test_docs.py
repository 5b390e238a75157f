"""The docs say what the code does."""

import re
from pathlib import Path

import msgspec

from tallystick_server.cli.settings import Settings as CommandLineSettings
from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.metrics.settings import Settings as MetricsSettings
from tallystick_server.runtime import nats_reference
from tallystick_server.runtime.logging import Settings as LogSettings
from tallystick_server.runtime.settings import variable
from tallystick_server.tokens import operations
from tallystick_server.tokens.settings import Settings as TokensSettings
from tests.support.paths import ROOT


def test_every_setting_is_documented_and_no_other():
    settings = {
        variable(field.name)
        for kind in (EdgeSettings, TokensSettings, MetricsSettings, CommandLineSettings, LogSettings)
        for field in msgspec.structs.fields(kind)
    }
    table = [
        line for line in (ROOT / "docs/operating.md").read_text().splitlines() if line.startswith("| `TALLY")
    ]
    documented = set(re.findall(r"TALLYSTICK_[A-Z_]+", " ".join(line.split("|")[1] for line in table)))
    assert documented == settings


def test_the_reference_of_nats_is_what_the_contracts_say(tmp_path: Path):
    nats_reference.write(tmp_path)
    for name in ("asyncapi.json", "nats.md"):
        assert (ROOT / "docs" / name).read_text() == (tmp_path / name).read_text(), "run: just nats-reference"


def test_the_security_model_holds_the_table_of_operations():
    assert operations.table() in (ROOT / "docs/security-model.md").read_text()


def test_links_between_the_docs_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_licence_of_every_dependency_is_listed():
    pinned = re.findall(
        r"^([A-Za-z0-9._-]+)==[^;\n]*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    listed = re.findall(r"^\| ?([A-Za-z0-9._-]+) ?\|", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    missing = {normal(name) for name in pinned} - {normal(name) for name in listed}
    assert not missing, "run: sh deploy/scripts/audit.sh"


def normal(name: str) -> str:
    return re.sub(r"[._-]+", "-", name).lower()


def test_what_is_deployed_sets_only_what_there_is():
    files = [ROOT / "compose.yaml", ROOT / "deploy/docker/Dockerfile", *(ROOT / "deploy").rglob("*.yaml")]
    used = {
        name
        for file in files
        for name in re.findall(r"^ .*?(TALLYSTICK_[A-Z_]+)(?=:|, value|=)", file.read_text(), re.MULTILINE)
    }
    known = {
        variable(field.name)
        for kind in (EdgeSettings, TokensSettings, MetricsSettings, LogSettings)
        for field in msgspec.structs.fields(kind)
    }
    assert len(used) > 5
    # The port that compose.yaml publishes, and the names that its proxy's certificate is for.
    known |= {"TALLYSTICK_BIND", "TALLYSTICK_HOSTS"}
    assert {name for name in used if name not in known and name.removesuffix("_FILE") not in known} == set()

"""The commands of the README and the docs: each block runs as it is written, or names a requirement that is missing here."""

import os
import re
import shlex
from collections.abc import Mapping
from importlib.util import find_spec

import click
import pytest

from tallystick.contracts.events import EVENTS_STREAM
from tallystick_server.__main__ import program
from tallystick_server.runtime import nats_permissions
from tests.support.docs import PAGES, Reader, blocks
from tests.support.paths import ROOT

NEEDS = {
    "docker": "a container engine",
    "emailengine": "an EmailEngine to move from",
    "jq": "jq; `tests/tallystick_server/edge/api/test_lists.py` follows cursors in the same way",
    "kubernetes": "a cluster",
    "nats": "the `nats` command line; `tests/tallystick_server/runtime/test_permissions.py` sends the same requests",
    "network": "installs packages, and runs every test: `.ci/run` does it",
    "prometheus": "Prometheus; `just prometheus` starts it",
}
"""Requirements of blocks that are not on every machine, and what tests these blocks instead."""

_SECRET = re.compile(r"\b(?:tok_[0-9a-z]{26}|tly_[0-9A-Za-z]{49})\b")


def spans(*prefixes: str) -> list[tuple[str, str]]:
    """Commands within a line of text, with the page that they are on."""
    return [
        (page.name, span)
        for page in PAGES
        for span in re.findall(
            r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        )
        if span.startswith(prefixes)
    ]


def test_every_block_of_commands_is_tested():
    """A block in another language, or with an invalid mark, would never be run."""
    for page in PAGES:
        text = page.read_text()
        fences = re.findall(r"^ *```(\S*)$", text, re.MULTILINE)
        assert not {"bash", "shell", "zsh"} & set(fences), page.name
        in_page = [block for block in blocks() if block.page == page.name]
        assert len(in_page) == fences.count("sh") + fences.count("console"), page.name
        assert text.count("<!-- needs:") == sum(block.needs is not None for block in in_page), page.name
    assert {block.needs for block in blocks()} - {None} == NEEDS.keys()


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in blocks() if not block.needs))
def test_the_commands_of_a_page_run_in_sequence(reader: Reader, page: str):
    # The ids of tokens on the page differ from those of this installation.
    local_secrets: dict[str, str] = {}
    for block in blocks():
        if block.page != page or block.needs:
            continue
        if block.language == "sh":
            result = reader.run(block.text)
            assert result.returncode == 0, (block.text, result.stdout, result.stderr)
            continue
        for command, output in commands(block.text):
            result = reader.run(with_ids(command, local_secrets, reader.admin_id))
            assert result.returncode == (22 if '"status":4' in output else 0), (
                command,
                result.stdout,
                result.stderr,
            )
            assert keys(result.stdout) >= keys(output), (command, result.stdout)
            local_secrets |= zip(_SECRET.findall(output), _SECRET.findall(result.stdout), strict=False)


def commands(console: str) -> list[tuple[str, str]]:
    """Each command of a `console` block, and its output on the page."""
    parts = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    matches = [re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)", part, re.DOTALL) for part in parts]
    return [(match[1], match[2]) for match in matches if match]


def with_ids(command: str, local_secrets: Mapping[str, str], default: str) -> str:
    """The command with the ids of this installation."""
    return _SECRET.sub(lambda match: local_secrets.get(match[0], default), command)


def keys(output: str) -> set[str]:
    """The parts of the output that are compared: the fields of JSON, the names of metrics."""
    return set(re.findall(r'"(\w+)":', output)) | set(re.findall(r"^# TYPE \w+ \w+$", output, re.MULTILINE))


@pytest.mark.parametrize("span", dict.fromkeys(span for _, span in spans("tallystick psql ")))
def test_the_sql_of_the_docs_runs(reader: Reader, span: str):
    """As it is written; a change is made in a transaction that is rolled back."""
    before, quoted, sql = span.replace("\n", " ").partition('-c "')
    assert quoted, span
    result = reader.run(f'{before} -v ON_ERROR_STOP=1 -c "begin" -c "{sql} -c "rollback"')
    assert result.returncode == 0, (span, result.stderr)


@pytest.mark.parametrize(
    "span",
    dict.fromkeys(
        span for _, span in spans("tallystick ", ".venv/bin/tallystick ") if "..." not in span[-4:]
    ),
)
def test_commands_and_options_in_the_text_exist(span: str):
    words = shlex.split(span.replace("[", "").replace("]", ""))[1:]
    command: click.Command = program
    while isinstance(command, click.Group):
        assert words, span
        subcommand = command.get_command(click.Context(command), words.pop(0))
        assert subcommand is not None, span
        command = subcommand
    options = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    if not command.context_settings.get("ignore_unknown_options"):
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options, span


def test_programs_modules_and_recipes_in_the_text_exist():
    recipes = re.findall(r"^([a-z-]+)[^:\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE)
    for page, span in spans(".venv/bin/", "just ", "sh ", "deploy/", "python -m "):
        words = span.split()
        if words[0] == "just":
            assert words[1] in recipes, (page, span)
        elif words[0] == "python":
            # Without .venv it would be another Python; a container has only one.
            raise AssertionError((page, span))
        elif words[1:2] == ["-m"]:
            assert find_spec(words[2]), (page, span)
        elif words[0] in {"sh", ".venv/bin/pytest"}:
            assert (ROOT / words[1]).exists(), (page, span)
        elif len(words) > 1 and words[0].startswith("deploy/"):
            assert os.access(ROOT / words[0], os.X_OK), (page, span)


def test_scripts_can_be_run():
    scripts = [
        path
        for folder in ("deploy/scripts", "services", "examples", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]
    scripts = [path for path in scripts if path.read_bytes().startswith(b"#!/bin/sh")]
    assert len(scripts) > 4
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []


NATS_COMMANDS = {
    "micro": ("operator", ["$SRV.PING", "$SRV.INFO.x", "$SRV.STATS.x.y"]),
    "server": ("operator", [*nats_permissions.SERVER_READS, nats_permissions.CONNECTIONS_READ]),
    "stream ls": ("operator", ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"]),
    "stream info": ("operator", [f"$JS.API.STREAM.INFO.{EVENTS_STREAM}"]),
    "stream report": ("operator", ["$JS.API.STREAM.LIST", f"$JS.API.STREAM.INFO.{EVENTS_STREAM}"]),
    "consumer": (
        "operator",
        [f"$JS.API.CONSUMER.{verb}.{EVENTS_STREAM}" for verb in ("LIST", "NAMES", "INFO")][:2],
    ),
    "stream get": ("events-operator", [f"$JS.API.STREAM.MSG.GET.{EVENTS_STREAM}"]),
    "stream view": (
        "events-operator",
        [
            f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}.pager.tallystick.events.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.pager",
            f"$JS.ACK.{EVENTS_STREAM}.pager.1.1.1.1.0",
        ],
    ),
    "stream backup": (
        "events-operator",
        [f"$JS.API.STREAM.SNAPSHOT.{EVENTS_STREAM}", f"$JS.SNAPSHOT.ACK.{EVENTS_STREAM}.x"],
    ),
    "stream restore": (
        "events-operator",
        [f"$JS.API.STREAM.RESTORE.{EVENTS_STREAM}", f"$JS.SNAPSHOT.RESTORE.{EVENTS_STREAM}.x"],
    ),
    "stream rm": ("events-operator", [f"$JS.API.STREAM.DELETE.{EVENTS_STREAM}"]),
}
"""The user that runs a command of `nats`, and what the command publishes."""


def test_each_nats_command_has_a_user_with_its_permissions():
    for page, span in spans("nats "):
        words = span.split()
        user, subjects = NATS_COMMANDS.get(words[1]) or NATS_COMMANDS[" ".join(words[1:3])]
        for subject in subjects:
            assert nats_permissions.allows(nats_permissions.USERS[user], "publish", subject), (
                page,
                span,
                subject,
            )

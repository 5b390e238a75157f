"""The example and the docs' commands for the `nats` command line:
`.venv/bin/pytest tests/e2e/test_nats_command.py`.

A command of its own, since `nats` (of nats-io/natscli) comes with neither PyPI nor Debian.
"""

import subprocess

from tests.support.docs import Reader, blocks
from tests.support.paths import ROOT
from tests.support.up import Up, environment


def test_the_script_tells_who_may(up: Up):
    assert up.running
    value = up.command("tokens", "create", "-s", "orders").stdout.strip()

    def verified(token: str, scope: str) -> int:
        return subprocess.run(
            ["examples/verify.sh", scope],
            cwd=ROOT,
            env={**environment(), "NATS_URL": up.running.service_url if up.running else ""},
            input=token,
            text=True,
            capture_output=True,
            check=False,
        ).returncode

    assert verified(f"{value}\n", "orders:read") == 0
    assert verified(f"{value}\n", "invoices") == 1
    assert verified("unknown-but-long-enough\n", "orders:read") == 1


def test_the_commands_of_the_docs_run(reader: Reader):
    in_docs = [block.text for block in blocks() if block.needs == "nats"]
    assert in_docs
    for text in in_docs:
        done = reader.run(text)
        assert done.returncode == 0, (text, done.stdout, done.stderr)

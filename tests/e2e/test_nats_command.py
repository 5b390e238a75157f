"""The example and the docs' commands for the `nats` command line:
`.venv/bin/pytest tests/e2e/test_nats_command.py`.

A separate command, since `nats` (of nats-io/natscli) is in neither PyPI nor Debian.
"""

import subprocess

from tests.support.docs import Reader, blocks
from tests.support.paths import ROOT
from tests.support.up import Up, environment


def test_the_script_authorizes_tokens(up: Up):
    assert up.running
    value = up.command("tokens", "create", "-s", "orders").stdout.strip()

    def verify(token: str, scope: str) -> int:
        return subprocess.run(
            ["examples/verify.sh", scope],
            cwd=ROOT,
            env={**environment(), "NATS_URL": up.running.service_url if up.running else ""},
            input=token,
            text=True,
            capture_output=True,
            check=False,
        ).returncode

    assert verify(f"{value}\n", "orders:read") == 0
    assert verify(f"{value}\n", "invoices") == 1
    assert verify("unknown-but-long-enough\n", "orders:read") == 1


def test_the_commands_of_the_docs_run(reader: Reader):
    in_docs = [block.text for block in blocks() if block.needs == "nats"]
    assert in_docs
    for text in in_docs:
        result = reader.run(text)
        assert result.returncode == 0, (text, result.stdout, result.stderr)

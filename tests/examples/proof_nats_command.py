"""The example for the `nats` command line: `.venv/bin/pytest tests/examples/proof_nats_command.py`.

A command of its own, since `nats` (of nats-io/natscli) comes with neither PyPI nor Debian.
"""

import subprocess

from tests.system.conftest import ROOT, Up, environment, up  # noqa: F401


def test_the_script_tells_who_may(up: Up):  # noqa: F811
    assert up.running
    value = up.command("tokens", "issue", "-s", "orders").stdout.strip()

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

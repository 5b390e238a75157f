"""The recipe of docs/services.md for nats.js: `.venv/bin/pytest tests/e2e/test_nats_js.py`.

A separate command, since it needs node, and `npm install @nats-io/transport-node` in a folder that NODE_FOLDER names.
"""

import os
import re
import subprocess
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.up import Up, environment

NODE = Path(os.environ.get("NODE_FOLDER", "/nonexistent"))


def test_nats_js_verifies_a_token(up: Up):
    assert (NODE / "node_modules/@nats-io/transport-node").exists(), (
        "needs node, and NODE_FOLDER with @nats-io/transport-node"
    )
    (recipe,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs/services.md").read_text(), re.DOTALL)
    up.command("services", "add", "mailer")
    (NODE / "mailer.json").write_text(up.command("nats-url", "--role", "mailer", "--json").stdout)
    (NODE / "recipe.mjs").write_text(recipe)

    def verify(token: str) -> str:
        return subprocess.run(
            ["node", "recipe.mjs"],
            cwd=NODE,
            env={**environment(), "TOKEN": token},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout

    assert verify(up.command("tokens", "create", "-s", "orders").stdout.strip()) == "active [ 'orders' ]\n"
    assert verify("unknown") == "invalid_token undefined\n"

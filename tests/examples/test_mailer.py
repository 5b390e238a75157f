"""The example of a producer, run as its reader would."""

import subprocess
import sys

from tests.support.paths import PYTHON_PATH, ROOT
from tests.support.polling import until
from tests.support.up import Up, environment


def test_what_the_example_reports_is_counted(up: Up):
    assert up.running
    subprocess.run(
        [sys.executable, "examples/mailer.py", "alice", "bob"],
        cwd=ROOT,
        env={
            **environment(),
            "NATS_URL": up.command("services", "add", "mailer").stdout.strip(),
            "PYTHONPATH": PYTHON_PATH,
        },
        check=True,
        timeout=30,
    )
    expected = (
        'events{event="mail.sent"} 2\n',
        'tallystick_accounts{state="connected"} 2\n',
        "thread_stops 1\n",
    )
    with up.client(up.admin_token) as admin:
        until(lambda: all(line in admin.get("/metrics").text for line in expected))

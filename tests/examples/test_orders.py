"""The example of another service, run as its reader would."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.up import Up, environment


@pytest.fixture
def orders(up: Up) -> Iterator[str]:
    assert up.running
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "examples/orders.py", str(port)],
        cwd=ROOT,
        env={**environment(), "NATS_URL": up.command("services", "add", "orders").stdout.strip()},
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline().startswith(b"listening")
    yield f"http://127.0.0.1:{port}/orders"
    process.terminate()
    process.wait(5)
    process.stdout.close()


def test_the_example_lets_in_whom_tallystick_does(up: Up, orders: str):
    def issued(*options: str) -> str:
        return up.command("tokens", "create", *options).stdout.strip()

    limited = issued("-s", "orders", "--rate-limit", "1/86400")
    elsewhere = issued("-s", "orders", "--address", "10.0.0.0/8")
    expected = [
        (issued("-s", "orders"), 200),
        (issued("-s", "invoices"), 403),
        (elsewhere, 403),
        (limited, 200),
        (limited, 429),
        ("f" * 64, 401),
        ("x", 401),
    ]
    for token, status in expected:
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(orders, headers=headers, trust_env=False).status_code == status
    assert httpx.get(orders, trust_env=False).status_code == 401
    with up.client(up.admin_token) as admin:
        until(lambda: admin.get("/v1/stats").json()["counters"].get("events:order.listed") == 2)

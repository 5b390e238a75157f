"""An unavailable dependency causes a 503 within a second, never a hang or a 401."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.polling import until
from tests.support.up import Up, with_children


@contextmanager
def suspend(pids: list[int]) -> Iterator[None]:
    """Suspends processes: a caller that waits for them gets neither a reply nor an error."""
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("words", [("nats-server",), ("serve", "tokens"), ("postgres",)], ids=" ".join)
def test_an_unavailable_dependency_causes_503_within_a_second(up: Up, words: tuple[str, ...]):
    with up.client(up.admin_token) as client:
        with suspend(with_children(up.pids(*words))):
            for _ in range(3):
                start = time.monotonic()
                response = client.get("/v1/stats")
                assert time.monotonic() - start < 1.2
                assert response.status_code == 503, response.text
                assert response.headers["retry-after"] == "1"
                assert "www-authenticate" not in response.headers
                assert response.json()["code"] == "unavailable"
            assert client.get("/health/live").status_code == 200
            assert client.get("/health/ready").status_code == 503
        until(lambda: client.get("/v1/stats").status_code == 200, 20)
        until(lambda: client.get("/health/ready").status_code == 200)


def test_without_metrics_tokens_are_still_checked(up: Up):
    with up.client(up.admin_token) as client:
        with suspend(up.pids("serve", "metrics")):
            start = time.monotonic()
            response = client.get("/metrics")
            assert time.monotonic() - start < 1.2
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert client.get("/v1/self").status_code == 200
            assert client.get("/health/ready").status_code == 200
        until(lambda: client.get("/metrics").status_code == 200, 20)


def test_malformed_tokens_are_rejected_without_a_lookup(up: Up):
    with up.client("tly_mistyped") as client, suspend(up.pids("nats-server")):
        assert client.get("/v1/stats").status_code == 401
    with up.client(up.admin_token) as client:
        until(lambda: client.get("/v1/stats").status_code == 200, 20)

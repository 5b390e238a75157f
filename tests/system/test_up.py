"""How `tallystick up` starts, survives, and stops."""

import os
import re
import signal
import time

import pytest

from tests.conftest import until
from tests.system.conftest import Up, run

VECTOR = (
    "hKJpZNlAZWEzODczZjkyMzRmYjNiOGI3MDAwNDMzNzMxMzhjNzMwYzU2ZmQyZjdmYTI3ZGJjZGM2MWQ0YzljMmIyZGY4ZKdjcmVhdGVk"
    "1_-UiOcAZ2lLVqZzY29wZXORoSqrZGVzY3JpcHRpb26qdGVzdCB0b2tlbg"
)
VECTOR_TOKEN = "2aa97ad0456d6624a55d30780aa2ff61bfb7edc6fa00935b40814b271e718660"


def thread_starts(up: Up, token: str) -> int:
    with up.client(token) as client:
        match = re.search(r"^thread_starts (\d+)$", client.get("/metrics").text, re.MULTILINE)
    assert match
    return int(match[1])


def status(up: Up, token: str) -> int | None:
    try:
        with up.client(token) as client:
            return client.get("/v1/stats").status_code
    except OSError:
        return None
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return None
        raise


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_the_next_start_goes_on(fresh: Up, number: signal.Signals):
    token = fresh.start().ready().admin_token
    started = time.monotonic()
    assert fresh.stop(number) == 0
    assert time.monotonic() - started < 5
    assert fresh.processes() == {}
    assert fresh.running is None
    fresh.start().ready()
    assert fresh.printed.count("shown this once") == 1
    assert status(fresh, token) == 200
    until(lambda: thread_starts(fresh, token) == 6)


def test_killed_it_leaves_nothing_behind_and_the_next_start_works(fresh: Up):
    token = fresh.start().ready().admin_token
    assert len(fresh.processes()) > 6
    fresh.stop(signal.SIGKILL)
    until(lambda: not fresh.processes())
    fresh.start().ready()
    assert status(fresh, token) == 200


def test_a_second_one_on_the_same_folder_is_refused(up: Up):
    refused = run("up", "--data-dir", str(up.data), "--port", str(up.port + 1 if up.port < 65535 else 1024))
    assert refused.returncode == 69
    assert refused.stderr.splitlines()[-1].startswith("tallystick: another 'tallystick up' runs on")
    assert "Traceback" not in refused.stderr


def test_a_taken_port_is_told(up: Up, fresh: Up):
    refused = run("up", "--data-dir", str(fresh.data), "--port", str(up.port))
    assert refused.returncode == 69
    assert f"cannot listen on 127.0.0.1:{up.port}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "words",
    [("serve", "edge"), ("serve", "tokens"), ("serve", "metrics"), ("nats-server",), ("postgres", "-D")],
    ids=" ".join,
)
def test_a_killed_child_is_started_again_and_nothing_is_uncounted(up: Up, words: tuple[str, ...]):
    token = up.admin_token
    before = thread_starts(up, token)
    pid = up.pids(*words)[0]
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in up.pids(*words) and up.pids(*words), 20)
    until(lambda: status(up, token) == 200, 20)
    until(lambda: thread_starts(up, token) >= before)


def test_a_prepared_token_is_imported_once_and_no_other_is_made(fresh: Up):
    fresh.settings["prepared_token"] = VECTOR
    fresh.start().ready()
    assert "shown this once" not in fresh.printed
    assert status(fresh, VECTOR_TOKEN) == status(fresh, VECTOR_TOKEN.upper()) == 200
    fresh.stop()
    fresh.start().ready()
    with fresh.client(VECTOR_TOKEN) as client:
        assert client.get("/v1/tokens").json()["total"] == 1


@pytest.mark.parametrize("garbage", [VECTOR[:-8], "garbage!", "{}", "x" * 100_000])
def test_a_prepared_token_that_is_none_is_refused_in_one_line(fresh: Up, garbage: str):
    refused = run("up", "--data-dir", str(fresh.data), prepared_token=garbage)
    assert refused.returncode == 65
    assert len(refused.stderr.splitlines()) == 1
    assert garbage not in refused.stderr
    assert not fresh.data.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("prot", "1"), ("port", "0"), ("port", "many"), ("trusted_proxies", "*"), ("workers", "-1")],
)
def test_a_wrong_setting_is_named_without_its_value(fresh: Up, name: str, value: str):
    refused = run("up", "--data-dir", str(fresh.data), **{name: value})
    assert refused.returncode == 78
    assert len(refused.stderr.splitlines()) == 1
    assert f"TALLYSTICK_{name.upper()}" in refused.stderr


def test_secrets_in_the_folder_are_this_user_s_only(up: Up):
    assert up.data.stat().st_mode & 0o777 == 0o700
    for name in ("credentials.json", "running.json", "nats/server.conf"):
        assert (up.data / name).stat().st_mode & 0o777 == 0o600, name

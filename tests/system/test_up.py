"""`tallystick up` starts, recovers and stops."""

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.examples import VECTOR, VECTOR_TOKEN
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.up import Up, run


def thread_starts(up: Up, token: str) -> int:
    return threads_counted(up, token)[0]


def threads_counted(up: Up, token: str) -> tuple[int, int]:
    """How many threads have started and stopped."""
    with up.client(token) as client:
        text = client.get("/metrics").text
    starts = re.search(r"^thread_starts (\d+)$", text, re.MULTILINE)
    stops = re.search(r"^thread_stops (\d+)$", text, re.MULTILINE)
    assert starts
    assert stops
    return int(starts[1]), int(stops[1])


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
def test_a_signal_stops_all_processes_and_the_next_start_continues(fresh: Up, number: signal.Signals):
    token = fresh.start().ready().admin_token
    started = time.monotonic()
    assert fresh.stop(number) == 0
    assert time.monotonic() - started < 5
    assert fresh.processes() == {}
    assert fresh.running is None
    assert "Traceback" not in fresh.printed
    fresh.start().ready()
    assert fresh.printed.count("shown this once") == 1
    assert status(fresh, token) == 200
    until(lambda: thread_starts(fresh, token) == 6)


def test_after_a_kill_no_process_remains_and_the_next_start_works(fresh: Up):
    token = fresh.start().ready().admin_token
    assert len(fresh.processes()) > 6
    until(lambda: thread_starts(fresh, token) == 3)
    fresh.stop(signal.SIGKILL)
    until(lambda: not fresh.processes(), 5)
    fresh.start().ready()
    assert status(fresh, token) == 200
    until(lambda: threads_counted(fresh, token) == (6, 3))


@pytest.mark.parametrize(
    ("started_file", "number"), [("postgres*/PG_VERSION", signal.SIGKILL), ("log/nats.log", signal.SIGTERM)]
)
def test_a_start_works_after_the_first_one_was_interrupted(
    fresh: Up, started_file: str, number: signal.Signals
):
    fresh.start()
    until(lambda: any(fresh.data.glob(started_file)), 20)
    started = time.monotonic()
    assert fresh.stop(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: not fresh.processes(), 5)
    assert time.monotonic() - started < 5
    assert status(fresh.start().ready(), fresh.admin_token) == 200


@pytest.mark.parametrize("same_port", [False, True])
def test_a_second_instance_on_the_same_folder_is_rejected(up: Up, *, same_port: bool):
    result = run("up", "--data-dir", str(up.data), "--port", str(up.port if same_port else free_port()))
    assert result.returncode == 69
    assert up.process is not None
    assert result.stderr == (
        f"tallystick: already running on {up.data}: process {up.process.pid} at {up.http}. Stop it, or choose another "
        "folder with --data-dir\n"
    )
    assert status(up, up.admin_token) == 200


def test_a_port_in_use_is_reported(up: Up, fresh: Up):
    result = run("up", "--data-dir", str(fresh.data), "--port", str(up.port))
    assert result.returncode == 69
    (line,) = result.stderr.splitlines()
    assert line.endswith(
        f"cannot listen on 127.0.0.1:{up.port}: Address already in use; choose another port with --port, or address "
        "with --host"
    )
    assert not fresh.data.exists()


@pytest.mark.parametrize(
    ("words", "which", "threads"),
    [
        (("serve", "edge"), 0, 1),
        (("serve", "edge"), -1, 1),
        (("serve", "tokens"), 0, 1),
        (("serve", "metrics"), 0, 1),
        (("nats-server",), 0, 0),
        (("postgres", "-D"), 0, 0),
    ],
    ids=["edge", "edge's worker", "tokens", "metrics", "nats", "postgres"],
)
def test_a_killed_child_is_restarted_and_no_count_is_lost(
    up: Up, words: tuple[str, ...], which: int, threads: int
):
    token = up.admin_token
    until(lambda: thread_starts(up, token) >= 3)
    counted = [threads_counted(up, token)]
    expected = (counted[0][0] + threads, counted[0][1] + threads)
    pid = up.pids(*words)[which]
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in up.pids(*words) and up.pids(*words), 20)
    until(lambda: status(up, token) == 200, 20)

    def counts_again() -> bool:
        counted.append(threads_counted(up, token))
        return counted[-1] >= expected

    until(counts_again)
    assert counted == sorted(counted)
    assert counted[-1] == expected


def test_a_prepared_token_is_imported_once_and_no_other_is_created(fresh: Up):
    fresh.settings["prepared_token"] = VECTOR
    fresh.start().ready()
    assert "shown this once" not in fresh.printed
    assert "'tallystick tokens create --scope \"*\"' creates it" in fresh.printed
    assert status(fresh, VECTOR_TOKEN) == status(fresh, VECTOR_TOKEN.upper()) == 200
    fresh.stop()
    fresh.start().ready()
    with fresh.client(VECTOR_TOKEN) as client:
        assert client.get("/v1/tokens").json()["total"] == 1


@pytest.mark.parametrize("garbage", [VECTOR[:-8], "garbage!", "{}", "x" * 100_000])
def test_an_invalid_prepared_token_is_rejected_in_one_line(fresh: Up, garbage: str):
    result = run("up", "--data-dir", str(fresh.data), prepared_token=garbage)
    assert result.returncode == 65
    assert len(result.stderr.splitlines()) == 1
    assert garbage not in result.stderr
    assert not fresh.data.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("prot", "1"), ("port", "0"), ("port", "many"), ("trusted_proxies", "*"), ("workers", "-1")],
)
def test_an_invalid_setting_is_named_without_its_value(fresh: Up, name: str, value: str):
    result = run("up", "--data-dir", str(fresh.data), **{name: value})
    assert result.returncode == 78
    assert len(result.stderr.splitlines()) == 1
    assert f"TALLYSTICK_{name.upper()}" in result.stderr


def test_only_the_user_can_read_the_secrets_in_the_folder(up: Up):
    credentials = json.loads((up.data / "credentials.json").read_bytes())
    secrets = [password for users in credentials.values() for password in users.values()]
    assert len(secrets) > 6

    def contains_secret(path: Path) -> bool:
        with suppress(FileNotFoundError):  # PostgreSQL still writes
            return any(secret.encode() in path.read_bytes() for secret in secrets)
        return False

    secret_files = {path for path in up.data.rglob("*") if path.is_file() and contains_secret(path)}
    assert {path.name for path in secret_files} == {"credentials.json", "running.json", "server.conf"}
    assert {path.stat().st_mode & 0o777 for path in secret_files} == {0o600}
    folders = [up.data, *(path for path in up.data.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert not any(secret in command for secret in secrets for command in up.processes().values())

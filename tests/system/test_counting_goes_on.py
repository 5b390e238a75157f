"""Conditions that stop counting are reported, and are resolved automatically or with one command."""

import resource
import shutil
import signal
from pathlib import Path

from tests.support.polling import until
from tests.support.up import Up


def metric(up: Up, name: str) -> float | None:
    with up.client(up.admin_token) as client:
        text = client.get("/metrics").text
    values = [float(line.split()[-1]) for line in text.splitlines() if line.split(" ")[0] == name]
    return values[0] if values else None


def test_nats_is_restarted_if_it_no_longer_stores_events(up: Up):
    (pid,) = up.pids("nats-server")
    until(lambda: metric(up, "tallystick_stream_writable") == 1)
    starts = metric(up, 'events{event="metrics.reported"}')
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    until(lambda: "the event stream stores nothing; restarting NATS" in up.printed, 40)
    until(lambda: up.pids("nats-server") not in ([], [pid]), 20)
    until(lambda: (metric(up, 'events{event="metrics.reported"}') or 0) > (starts or 0) + 3, 40)
    assert metric(up, "tallystick_event_gaps_total") == 0


def test_counting_of_an_older_copy_of_the_stream_resumes_with_one_command(fresh: Up, folder: Path):
    def reports() -> float:
        return metric(fresh, 'events{event="metrics.reported"}') or 0

    nats, copy = fresh.data / "nats", folder / "copy"
    fresh.start().ready()
    until(lambda: reports() > 3, 20)
    assert fresh.stop() == 0
    shutil.copytree(nats, copy)
    fresh.start().ready()
    before = reports()
    until(lambda: reports() > before + 3, 20)
    assert fresh.stop(signal.SIGKILL) < 0
    until(lambda: not fresh.processes(), 10)
    shutil.rmtree(nats)
    copy.rename(nats)
    fresh.start().ready()
    until(lambda: metric(fresh, "tallystick_counting_refused") == 1, 20)
    before_resume = reports()
    result = fresh.command("counting", "status")
    assert (result.returncode, result.stdout.startswith("counting: halted: the event stream is not")) == (
        69,
        True,
    )
    assert fresh.command("counting", "resume").returncode == 1, (
        "it asks for confirmation, and standard input is empty"
    )
    assert reports() == before_resume
    result = fresh.command("counting", "resume", "--yes")
    assert (result.returncode, "resumes" in result.stdout) == (0, True), result
    until(lambda: reports() > before_resume, 20)
    assert metric(fresh, "tallystick_counting_refused") == 0
    assert fresh.command("counting", "status").returncode == 0
    assert "counting is not halted" in fresh.command("counting", "resume", "--yes").stdout

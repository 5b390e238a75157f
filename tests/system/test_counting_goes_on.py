"""What keeps an installation from counting: it is shown, and ends by itself or by one command."""

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


def test_a_nats_that_stores_nothing_any_more_is_restarted(up: Up):
    (pid,) = up.pids("nats-server")
    until(lambda: metric(up, "tallystick_stream_writable") == 1)
    starts = metric(up, 'events{event="metrics.reported"}')
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    until(lambda: "the event stream stores nothing; restarting NATS" in up.printed, 40)
    until(lambda: up.pids("nats-server") not in ([], [pid]), 20)
    until(lambda: (metric(up, 'events{event="metrics.reported"}') or 0) > (starts or 0) + 3, 40)
    assert metric(up, "tallystick_event_gaps_total") == 0


def test_an_older_copy_of_the_stream_is_counted_by_one_command(fresh: Up, folder: Path):
    def beats() -> float:
        return metric(fresh, 'events{event="metrics.reported"}') or 0

    nats, copy = fresh.data / "nats", folder / "copy"
    fresh.start().ready()
    until(lambda: beats() > 3, 20)
    assert fresh.stop() == 0
    shutil.copytree(nats, copy)
    fresh.start().ready()
    before = beats()
    until(lambda: beats() > before + 3, 20)
    assert fresh.stop(signal.SIGKILL) < 0
    until(lambda: not fresh.processes(), 10)
    shutil.rmtree(nats)
    copy.rename(nats)
    fresh.start().ready()
    until(lambda: metric(fresh, "tallystick_counting_refused") == 1, 20)
    stands = beats()
    status = fresh.command("counting", "status")
    assert (status.returncode, status.stdout.startswith("counting: halted: the event stream is not")) == (
        69,
        True,
    )
    assert fresh.command("counting", "resume").returncode == 1, "asks, and nobody answers"
    assert beats() == stands
    done = fresh.command("counting", "resume", "--yes")
    assert (done.returncode, "resumes" in done.stdout) == (0, True), done
    until(lambda: beats() > stands, 20)
    assert metric(fresh, "tallystick_counting_refused") == 0
    assert fresh.command("counting", "status").returncode == 0
    assert "counting is not halted" in fresh.command("counting", "resume", "--yes").stdout

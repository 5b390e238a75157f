"""How a process behaves as PID 1."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.up import environment

NAMESPACE = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child"]

PROGRAM = """
import os, signal, subprocess, sys, time
from tallystick_server.runtime.lifecycle import run_below_init
assert os.getpid() == 1
run_below_init()
assert os.getppid() == 1
"""


def as_pid_1(program: str, *, signals: tuple[signal.Signals, ...] = ()) -> tuple[int, str]:
    """The exit code and the output of a program that starts as PID 1; the signals are sent after its first line."""
    with subprocess.Popen(
        [*NAMESPACE, sys.executable, "-P", "-c", PROGRAM + program],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.readline()
        for number in signals:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), number)
            printed += process.stdout.readline()
        printed += process.stdout.read()
    return process.returncode, printed


def test_the_exit_code_is_forwarded():
    assert as_pid_1("sys.exit(7)") == (7, "")
    assert as_pid_1("os.kill(os.getpid(), signal.SIGKILL)") == (128 + signal.SIGKILL, "")


def test_signals_are_forwarded():
    program = """
def handle(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")  # not print, which the signal may interrupt
    if number == signal.SIGTERM:
        sys.exit(3)
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, handle)
print("ready", flush=True)
while True:
    signal.pause()
"""
    sent = (signal.SIGHUP, signal.SIGTERM)
    assert as_pid_1(program, signals=sent) == (3, "ready\nSIGHUP\nSIGTERM\n")


def test_orphans_are_reaped():
    program = """
orphan = int(subprocess.check_output(["sh", "-c", "sleep 0 >/dev/null & echo $!"]))
deadline = time.monotonic() + 10
while True:
    try:
        os.kill(orphan, 0)  # a zombie still accepts it
    except ProcessLookupError:
        sys.exit(0)
    if time.monotonic() > deadline:
        sys.exit(1)
"""
    assert as_pid_1(program) == (0, "")


def test_a_child_of_pid_1_is_not_killed():
    program = """
from tallystick_server.runtime.lifecycle import die_with_parent
die_with_parent(1)
"""
    assert as_pid_1(program) == (0, "")

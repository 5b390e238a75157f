"""`tallystick up` in any environment: data folder, user, shell, current folder and address, and as PID 1."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tallystick.errors import Unavailable
from tallystick_server.local import nats, postgres
from tallystick_server.local.data_dir import DataFolder, NotOurs
from tallystick_server.local.processes import python_path
from tallystick_server.local.up import Options, up
from tallystick_server.runtime.lifecycle import Shutdown
from tallystick_server.runtime.listening import resolve
from tests.support.paths import PYTHON_PATH, ROOT
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.surroundings import Surroundings, placed, serves
from tests.support.up import Up, run

SOME = (
    Surroundings("données a&b#c+d,e 50% 'f' \"g\"", "::", https=True, first=True, root=True),
    Surroundings("plain", "localhost", https=False, first=False, root=False),
)
"""Together they cover each of the surroundings; `just surroundings` tests every combination."""


@pytest.mark.parametrize("surroundings", SOME, ids=["container", "user"])
def test_it_serves_in_any_surroundings(surroundings: Surroundings, certificates: Path):
    with (
        tempfile.TemporaryDirectory(prefix="tally-") as folder,
        placed(surroundings, certificates, Path(folder)) as up,
    ):
        serves(up, certificates)
        assert f"New data folder: {up.data}\n" in up.printed
        if surroundings.host == "::":
            assert up.status(f"https://127.0.0.1:{up.port}", certificates / "authority.pem") == 200
        assert up.running is not None
        nats_address = up.running.nats
        up.stop(signal.SIGKILL)
        until(lambda: not up.processes(), 20)
        with stale(up):
            serves(up, certificates)
        assert up.printed.count("New data folder") == 1
        assert up.running.nats == nats_address
        assert up.stop() == 0


@contextmanager
def stale(up: Up) -> Iterator[None]:
    """Files that a previous `up` left behind, with the PID of an unrelated process."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):
                path = up.data / "postgres" / lock
                content = path.read_text() if path.exists() else f"0\n{up.data}/postgres\n"
                _, _, rest = content.partition("\n")
                path.write_text(f"{stranger.pid}\n{rest}")
            with socket.socket(socket.AF_UNIX) as stale_socket, suppress(OSError):
                stale_socket.bind(str(up.data / "postgres" / ".s.PGSQL.5432"))
            state_file = up.data / "running.json"
            state_file.write_text(re.sub(r'"pid":\d+', f'"pid":{stranger.pid}', state_file.read_text()))
            assert up.running is None
            yield
        finally:
            stranger.kill()


@pytest.mark.parametrize("name", ["x" * 100, "a,b", "données", "a&b", "50%", "a b", "a'b"])
def test_a_socket_is_in_another_folder_if_its_path_would_not_work(name: str):
    with postgres.socket_folder(Path("/short") / name) as folder:
        assert re.fullmatch(r"[\w/-]{,90}", str(folder), re.ASCII)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    with postgres.socket_folder(Path("/short")) as folder:
        assert folder == Path("/short")


async def start(
    folder: Path, host: str = "127.0.0.1", port: int | None = None, nats_port: int | None = None
) -> None:
    await up(Options(folder, host, port or free_port(), workers=1, nats_port=nats_port), Shutdown())


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "2001:db8::1", "[::1]", "a b", "x" * 300])
async def test_an_unknown_or_foreign_address_is_rejected_at_once(host: str, tmp_path: Path):
    with pytest.raises(Unavailable, match="cannot listen on "):
        await start(tmp_path / "data", host)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_an_edge_that_cannot_listen_reports_it_in_one_line(host: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        result = run("serve", "edge", nats_url="nats://127.0.0.1:1", host=host, port=port)
    assert (result.returncode, len(result.stderr.splitlines())) == (69, 1)
    assert result.stderr.startswith(f"tallystick: cannot listen on {host}:{port}: ")


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("::", 1, "http://[::1]:1"),
        ("0::0", 1, "http://[::1]:1"),
        ("::1", 1, "http://[::1]:1"),
        ("fe80::1%lo", 1, "http://[fe80::1%25lo]:1"),
        ("0.0.0.0", 1, "http://127.0.0.1:1"),  # noqa: S104  # resolved, not bound
        ("0", 1, "http://127.0.0.1:1"),
        ("127.1", 1, "http://127.1:1"),
        ("localhost", 443, "http://localhost:443"),
    ],
)
def test_the_url_of_a_host_is_valid(host: str, port: int, url: str):
    assert resolve(host, port).url("http") == url


async def test_a_folder_of_another_program_is_not_changed(tmp_path: Path):
    (tmp_path / "wal").mkdir()
    with pytest.raises(NotOurs, match="choose another with --data-dir"):
        await start(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["wal"]
    result = run("up", "--data-dir", str(tmp_path))
    assert (result.returncode, len(result.stderr.splitlines())) == (69, 1)
    result = run("services", "add", "mailer", data_dir=str(tmp_path))
    assert (result.returncode, len(result.stderr.splitlines())) == (69, 1)
    assert [path.name for path in tmp_path.rglob("*")] == ["wal"]


def test_a_new_volume_is_an_empty_folder(tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    assert DataFolder(tmp_path).is_new()


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", os.fsdecode(b"\xff")])
async def test_a_folder_whose_name_is_not_text_is_rejected(name: str, tmp_path: Path):
    with pytest.raises(NotOurs, match="must be UTF-8 without control characters"):
        await start(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "file", "file/below"])
async def test_an_invalid_folder_is_rejected(name: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"File name too long|Not a directory"):
        await start(tmp_path / name)


async def test_a_nats_port_in_use_is_rejected_and_not_replaced(tmp_path: Path):
    folder = DataFolder(tmp_path)
    os.close(folder.open())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} .*--nats-port"):
            folder.nats_port(port)
        (tmp_path / "nats.port").write_text(str(port))
        with pytest.raises(Unavailable, match=f"port {port} .*--nats-port"):
            folder.nats_port(None)
        new_port = nats.lasting_port()
        assert folder.nats_port(new_port) == folder.nats_port(None) == new_port


def test_the_nats_port_is_outside_the_range_of_outgoing_connections():
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(nats.lasting_port() < max(first, 20_001) or first <= 20_000 for _ in range(20))


LOOKING = """
import importlib.util, os, pathlib, threading, time

def look():
    report = pathlib.Path(os.environ["TEST_LOOKS"]) / str(os.getpid())
    while True:
        spec = importlib.util.find_spec("only_in_the_current_folder")
        report.with_suffix(".new").write_text("" if spec is None else spec.origin)
        report.with_suffix(".new").rename(report)
        time.sleep(0.1)

def start():
    threading.Thread(target=look, daemon=True).start()

os.register_at_fork(after_in_child=start)
start()
"""
"""A `sitecustomize` that checks repeatedly, in every Python process, whether it could import from the current folder."""


def test_no_process_could_import_from_the_current_folder_later(tmp_path: Path):
    """The modules that a process imports at its start are found nowhere else. A later import, on a rare path, is found
    in the current folder if that was added to ``sys.path``, as granian's own loader does in a worker.
    """
    hook, looks, current = (tmp_path / name for name in ("hook", "looks", "current"))
    for folder in (hook, looks, current):
        folder.mkdir()
    (hook / "sitecustomize.py").write_text(LOOKING)
    (current / "only_in_the_current_folder.py").touch()
    with tempfile.TemporaryDirectory(prefix="tally-") as parent:
        up = Up(Path(parent) / "data")
        up.directory = current
        up.prefix = ["env", f"PYTHONPATH={PYTHON_PATH}{os.pathsep}{hook}", f"TEST_LOOKS={looks}"]
        try:
            up.start().ready()
            with up.client(up.admin_token) as client:
                assert client.get("/v1/stats").status_code == 200
            response_time = time.time()
            pids = up.pids(f"{sys.executable} -P -m tallystick_server ")
            # The edge and its worker, the tokens and the metrics service, and `up` itself.
            assert len(pids) >= 5
            reports = [looks / str(pid) for pid in pids]
            until(
                lambda: all(report.exists() and report.stat().st_mtime > response_time for report in reports)
            )
            assert {report.read_text() for report in reports} == {""}
        finally:
            up.stop(signal.SIGKILL)
            until(lambda: not up.processes(), 20)


def test_a_service_imports_nothing_from_the_current_folder():
    entries = python_path(os.pathsep.join(["", ".", "lib", "/opt/lib"])).split(os.pathsep)
    assert entries == [f"{ROOT}/shared", f"{ROOT}/services", "/opt/lib"]

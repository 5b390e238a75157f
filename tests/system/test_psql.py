"""`tallystick psql` on the database of a running `up`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.up import Up, environment, run

SELECT = ("-qAtX", "-c")


def test_it_reads_every_schema_and_changes_nothing(up: Up):
    counted = up.command(
        "psql", *SELECT, "select count(*) from tokens.token, metrics.stream_position, pg_stat_activity"
    )
    assert counted.returncode == 0, counted.stderr
    assert int(counted.stdout) > 0
    before = up.command("psql", *SELECT, "select count(*) from metrics.dead_letter").stdout
    refused = up.command("psql", *SELECT, "delete from metrics.dead_letter")
    assert refused.returncode == 1
    assert "read-only transaction" in refused.stderr
    assert up.command("psql", *SELECT, "select count(*) from metrics.dead_letter").stdout == before


def test_a_change_has_to_be_asked_for(up: Up):
    assert up.command("psql", "--write", *SELECT, "create table public.mine as select 1 as n").returncode == 0
    assert up.command("psql", *SELECT, "select n from public.mine").stdout == "1\n"
    assert up.command("psql", *SELECT, "drop table public.mine", "--write").returncode == 0


@pytest.mark.parametrize(
    ("role", "own", "other"), [("tokens", "token", "metrics"), ("metrics", "dead_letter", "tokens")]
)
def test_a_service_s_role_sees_its_own_schema(up: Up, role: str, own: str, other: str):
    assert up.command("psql", "--role", role, *SELECT, "select current_user").stdout == f"{role}\n"
    assert up.command("psql", "--role", role, *SELECT, f"table {role}.{own}").returncode == 0
    refused = up.command("psql", "--role", role, *SELECT, f"create table {other}.mine (n int)")
    assert refused.returncode == 1


def test_psql_s_own_settings_lead_nowhere_else(up: Up):
    """Another PostgreSQL that the user's shell is set for."""
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "tallystick_server",
            "psql",
            *SELECT,
            "select current_user, current_database()",
        ],
        cwd=ROOT,
        env={
            **environment(data_dir=str(up.data)),
            "PGHOST": "127.0.0.1",
            "PGPORT": "1",
            "PGSERVICE": "x",
            "PGUSER": "x",
            "PGOPTIONS": "-c default_transaction_read_only=off",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout == "postgres|tallystick\n", shown.stderr


def test_arguments_and_input_go_to_psql(up: Up):
    assert "psql (PostgreSQL)" in up.command("psql", "--", "--version").stdout
    assert up.command("psql", "-qAtX", stdin="select 1;\nselect 2;\n").stdout == "1\n2\n"


def test_the_password_is_no_argument(up: Up):
    process = subprocess.Popen(
        [sys.executable, "-m", "tallystick_server", "psql", "-qAtX"],
        cwd=ROOT,
        env={**environment(data_dir=str(up.data)), "TEST_FOLDER": str(up.data)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"select 'ready';\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    folder = Path(f"/proc/{process.pid}")
    arguments, listed = (folder / "cmdline").read_text(), (folder / "environ").read_text()
    password = listed.partition("PGPASSWORD=")[2].partition("\0")[0]
    assert password
    assert password not in arguments
    assert (folder / "environ").stat().st_mode & 0o077 == 0
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_without_an_up_it_says_so(tmp_path: Path):
    refused = run("psql", data_dir=str(tmp_path))
    assert refused.returncode == 69
    assert len(refused.stderr.splitlines()) == 1

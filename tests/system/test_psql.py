"""`tallystick psql` on the database of a running `up`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.up import Up, environment, run

SELECT = ("-qAtX", "-c")


def test_every_schema_is_readable_and_read_only(up: Up):
    result = up.command(
        "psql", *SELECT, "select count(*) from tokens.token, metrics.stream_position, pg_stat_activity"
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0
    before = up.command("psql", *SELECT, "select count(*) from metrics.dead_letter").stdout
    result = up.command("psql", *SELECT, "delete from metrics.dead_letter")
    assert result.returncode == 1
    assert "read-only transaction" in result.stderr
    assert up.command("psql", *SELECT, "select count(*) from metrics.dead_letter").stdout == before


def test_a_change_requires_the_write_option(up: Up):
    assert up.command("psql", "--write", *SELECT, "create table public.mine as select 1 as n").returncode == 0
    assert up.command("psql", *SELECT, "select n from public.mine").stdout == "1\n"
    assert up.command("psql", *SELECT, "drop table public.mine", "--write").returncode == 0


@pytest.mark.parametrize(
    ("role", "own", "other"), [("tokens", "token", "metrics"), ("metrics", "dead_letter", "tokens")]
)
def test_a_service_s_role_uses_its_own_schema(up: Up, role: str, own: str, other: str):
    assert up.command("psql", "--role", role, *SELECT, "select current_user").stdout == f"{role}\n"
    assert up.command("psql", "--role", role, *SELECT, f"table {role}.{own}").returncode == 0
    result = up.command("psql", "--role", role, *SELECT, f"create table {other}.mine (n int)")
    assert result.returncode == 1


def test_psql_s_environment_variables_are_ignored(up: Up):
    """They may name another PostgreSQL."""
    result = subprocess.run(
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
    assert result.stdout == "postgres|tallystick\n", result.stderr


def test_arguments_and_input_are_passed_to_psql(up: Up):
    assert "psql (PostgreSQL)" in up.command("psql", "--", "--version").stdout
    assert up.command("psql", "-qAtX", stdin="select 1;\nselect 2;\n").stdout == "1\n2\n"


def test_the_password_is_not_an_argument(up: Up):
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
    arguments, variables = (folder / "cmdline").read_text(), (folder / "environ").read_text()
    password = variables.partition("PGPASSWORD=")[2].partition("\0")[0]
    assert password
    assert password not in arguments
    assert (folder / "environ").stat().st_mode & 0o077 == 0
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_missing_installation_is_reported(tmp_path: Path):
    result = run("psql", data_dir=str(tmp_path))
    assert result.returncode == 69
    assert len(result.stderr.splitlines()) == 1

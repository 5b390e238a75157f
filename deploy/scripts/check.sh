#!/bin/sh
# Runs every check that a change has to pass: format, lint, types, tests. Arguments are passed to pytest.
set -eu
cd "$(dirname "$0")/../.."
sh deploy/scripts/setup.sh dev
.venv/bin/ruff format --check --quiet .
.venv/bin/ruff check --quiet .

# mypy runs beside the tests at a low priority; its output is printed last.
types=$(mktemp)
nice -n 19 .venv/bin/mypy >"$types" 2>&1 &
mypy=$!
trap 'kill "$mypy" 2>/dev/null || true; rm -f "$types"' EXIT

status=0
.venv/bin/pytest --numprocesses auto "$@" || status=$?
wait "$mypy" || status=1
cat "$types"
exit "$status"

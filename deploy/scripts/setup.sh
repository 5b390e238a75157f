#!/bin/sh
# Creates .venv in this clone, with pinned and hashed dependencies and the `tallystick` command. It can be run again.
#   deploy/scripts/setup.sh        the dependencies of Tallystick
#   deploy/scripts/setup.sh dev    and those of its tests and checks
# PYTHON names another Python, VENV another folder.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "deploy/scripts/setup.sh: Python 3.11 or newer is needed ($python is older, or missing)" >&2
    exit 1
fi
case "${1:-run}" in
    run) files=requirements.txt ;;
    dev) files="requirements.txt requirements-dev.txt" ;;
    *) echo "usage: deploy/scripts/setup.sh [dev]" >&2; exit 64 ;;
esac
# Records what is installed, so that a second run has nothing to do.
checksum=$(cat $files pyproject.toml deploy/scripts/setup.sh | cksum)
if [ -x "$venv"/bin/tallystick ] && [ "$(cat "$venv/installed-${1:-run}" 2>/dev/null)" = "$checksum" ]; then
    exit 0
fi
[ -x "$venv"/bin/python ] || "$python" -m venv "$venv"
for file in $files; do
    "$venv"/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$file"
done
"$venv"/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
echo "$checksum" >"$venv/installed-${1:-run}"

#!/bin/sh
# Runs the tests on each supported Python that is installed, each in a separate environment.
#   deploy/scripts/pythons.sh [PYTEST OPTIONS]
# A Python is taken from PATH, or from pyenv.
set -eu
cd "$(dirname "$0")/../.."
ran=
for version in 3.11 3.12 3.13; do
    python=
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        if "$candidate" -c 'import ensurepip' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "Python $version is not here" >&2
        continue
    fi
    PYTHON=$python VENV=.venv-$version sh deploy/scripts/setup.sh dev
    echo "Python $version"
    ".venv-$version/bin/pytest" --numprocesses auto "$@"
    ran="$ran $version"
done
[ -n "$ran" ]
echo "passed on:$ran"

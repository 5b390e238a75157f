#!/bin/sh
# Tests the dashboard in a real browser: Debian's chromium, or the program in BROWSER.
#   deploy/scripts/browser.sh --screenshots     also takes the screenshots in docs/
set -eu
cd "$(dirname "$0")/../.."
sh deploy/scripts/setup.sh dev
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/browser/requirements.txt
exec .venv/bin/pytest tests/browser/test_dashboard.py "$@"

#!/bin/sh
# Runs the tests that take minutes or need programs that pip does not install. All of them run, once each, and a failure
# of any makes this command fail.
set -eu
cd "$(dirname "$0")/../.."
sh deploy/scripts/setup.sh dev

failed=
run() {
    echo "== $*"
    "$@" || failed="$failed
  $*"
}

# run_with PROGRAM... -- COMMAND...: runs the command if these programs are installed.
run_with() {
    missing=
    while [ "$1" != -- ]; do
        command -v "$1" >/dev/null || missing="$missing $1"
        shift
    done
    shift
    if [ -n "$missing" ]; then
        echo "== not run, without$missing: $*"
    else
        run "$@"
    fi
}

run .venv/bin/python -m tests.authority --minutes 1
run .venv/bin/python -m tests.chaos.revocation --revokes 1000
run .venv/bin/python -m tests.chaos.rate_limit --seconds 45
run .venv/bin/python -m tests.chaos.counting --events 10000
run .venv/bin/pytest tests/e2e/test_quota_model.py
run .venv/bin/pytest tests/fuzz --minutes 1
run .venv/bin/pytest tests/fuzz/test_http_by_schema.py --minutes 1
run_with chromium -- sh deploy/scripts/browser.sh
run_with nginx caddy haproxy envoy -- .venv/bin/pytest tests/e2e/proxies/test_forward_auth.py
run_with prometheus promtool -- promtool test rules tests/monitoring/rules.yml
run_with prometheus promtool -- .venv/bin/pytest tests/e2e/test_prometheus.py
run_with nats -- .venv/bin/pytest tests/e2e/test_nats_command.py

if [ -n "$failed" ]; then
    echo "FAILED:$failed" >&2
    exit 1
fi

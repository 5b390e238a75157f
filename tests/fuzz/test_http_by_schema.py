"""schemathesis sends the running edge requests that it generates from the OpenAPI document."""

import os
import subprocess
import sysconfig
from pathlib import Path

from tests.support.paths import PYTHON_PATH
from tests.support.up import Up

# Without use_after_free: the log of a revoked token stays readable, and a revocation is idempotent.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
    "ensure_resource_availability",
    "allow_header_conformance",
)


def test_responses_conform_to_the_openapi_document(up: Up, seconds: float, tmp_path: Path):
    length = ["--phases", "examples,fuzzing", "-n", "2", "--generation-deterministic"]
    if seconds:
        length = [
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-time",
            str(int(seconds)),
            "-n",
            "1000",
        ]
    result = subprocess.run(
        [
            *(
                f"{sysconfig.get_path('scripts')}/schemathesis",
                "run",
                f"{up.http}/docs/openapi.json",
                "--no-color",
            ),
            *("--checks", ",".join(CHECKS), "--max-response-time", "2", "--workers", "1"),
            *("--generation-with-security-parameters", "false"),
            *length,
        ],
        env={
            **os.environ,
            "FUZZED_NATS": up.running.operator_url if up.running else "",
            "SCHEMATHESIS_HOOKS": "tests.fuzz.schema_hooks",
            "PYTHONPATH": PYTHON_PATH,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in up.printed

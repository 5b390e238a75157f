"""Migration from EmailEngine: a file with records of every kind, and the outcome of each line."""

import json
import re
from typing import Any

import pytest
from click.testing import Result

from tests.support.command_line import invoke
from tests.support.moving_in import (
    BLANK_LINES_BEFORE,
    CASES,
    FILE,
    OUTSIDE,
    REJECTED,
    STATS,
    Case,
    digest,
    exported,
    limits,
    secret,
)
from tests.support.up import Up, run as command


def stored_tokens(up: Up) -> dict[str, dict[str, Any]]:
    """The tokens by the hint of their record, without their last use, which is reported some time later."""
    tokens = map(json.loads, invoke(up, "list", "--json").stdout.splitlines())
    return {
        token["hint"]: {name: value for name, value in token.items() if name != "access"} for token in tokens
    }


def status(up: Up, name: str, method: str, path: str, **request: Any) -> int:
    with up.client(secret(name)) as client:
        return client.request(method, path, **request).status_code


@pytest.fixture(scope="module")
def moved_in(up: Up) -> Result:
    """The result of importing the file, once."""
    return invoke(up, "import", "--skip-rejected", "--accounts", "create", stdin=FILE)


def test_without_skipping_nothing_is_written_and_every_rejected_line_is_reported(fresh: Up):
    fresh.start().ready()
    before = stored_tokens(fresh)
    result = invoke(fresh, "import", "--accounts", "create", stdin=FILE)
    assert (result.exit_code, result.stdout) == (65, "")
    line_numbers = [int(number) for number in re.findall(r"^line (\d+): ", result.stderr, re.MULTILINE)]
    assert line_numbers == sorted(REJECTED.values())
    assert result.stderr.endswith(f"tallystick: {len(line_numbers)} records rejected; nothing was imported\n")
    assert stored_tokens(fresh) == before
    with fresh.client(fresh.admin_token) as client:
        assert client.get("/v1/accounts").json()["total"] == 0
    # Without `--accounts create`, records with missing accounts are rejected in the same report.
    without_creation = invoke(fresh, "import", stdin=FILE)
    missing = re.findall(r"^line (\d+): account: no such account$", without_creation.stderr, re.MULTILINE)
    assert len(missing) == 3
    # A dry run only reports: it writes nothing either.
    dry_run = invoke(fresh, "import", "--dry-run", "--skip-rejected", "--accounts", "create", stdin=FILE)
    assert (dry_run.exit_code, dry_run.stdout) == (0, "")
    assert f"{len(CASES) - len(REJECTED) - 2} tokens would be added; nothing was written" in dry_run.stderr
    assert stored_tokens(fresh) == before


@pytest.mark.parametrize(
    ("number", "case"),
    [pytest.param(number, case, id=case.name) for number, case in enumerate(CASES, 1 + BLANK_LINES_BEFORE)],
)
def test_the_outcome_of_each_line(up: Up, moved_in: Result, number: int, case: Case):
    messages = re.findall(rf"^line {number}: (.*)$", moved_in.stderr, re.MULTILINE)
    assert len(messages) == (case.message is not None), messages
    assert case.message is None or messages[0].startswith(case.message)
    assert (digest(case.name)[:8] in stored_tokens(up)) == (
        case.message is None or case.message.startswith("expires")
    )


def test_the_other_records_are_imported_with_their_accounts(moved_in: Result):
    assert moved_in.exit_code == 0
    assert len(moved_in.stdout.splitlines()) == len(CASES) - len(REJECTED) - 2
    assert "created the account acc-a\n" in moved_in.stderr
    assert moved_in.stderr.count("created the account") == 2


def test_a_second_import_reports_existing_and_revoked_tokens(up: Up, moved_in: Result):
    token = stored_tokens(up)[digest("smtp")[:8]]
    assert invoke(up, "revoke", token["id"]).exit_code == 0
    again = invoke(up, "import", stdin=exported("smtp") + "\n" + exported("api"))
    assert (again.exit_code, again.stdout) == (0, "")
    assert f"line 1: exists already as {token['id']}, and is revoked: it stays revoked\n" in again.stderr
    assert "line 2: exists already as tok_" in again.stderr
    assert again.stderr.endswith("2 existed already, 1 of them revoked\n")
    unrevoked = invoke(up, "import", stdin=exported("api"))
    assert unrevoked.stderr.endswith("1 existed already\n")


@pytest.mark.parametrize(
    ("name", "request_line", "expected"),
    [
        ("root", "GET /v1/tokens", 200),
        ("api", "GET /v1/stats", 200),
        ("api", "GET /metrics", 403),
        ("metrics", "GET /metrics", 200),
        ("bound", "GET /v1/account/acc-a", 200),
        ("bound", "GET /v1/account/me@example.com", 403),
        ("bound", "GET /v1/stats", 403),
        ("host-bits", "GET /v1/stats", 200),
        ("one-address", "GET /v1/stats", 403),
        ("referrers", "GET /v1/stats", 403),
        ("no-referrers", "GET /v1/stats", 200),
        ("distant", "GET /v1/stats", 200),
        ("reads-stats", "GET /v1/stats", 200),
        ("reads-stats", "GET /metrics", 403),
        ("reads-stats", "GET /v1/accounts", 403),
        ("reads-stats", "GET /v1/tokens", 403),
        ("reads-stats", "POST /v1/tokens", 403),
        ("reads-stats", "POST /v1/account", 403),
        ("reads-stats", "DELETE /v1/account/acc-a", 403),
        ("reads-stats-and-metrics", "GET /metrics", 200),
        ("reads-stats-and-metrics", "GET /v1/accounts", 403),
        ("reads-accounts", "GET /v1/accounts", 200),
        ("reads-accounts", "GET /v1/stats", 403),
        ("reads-accounts", "DELETE /v1/account/acc-a", 403),
        ("expired", "GET /v1/stats", 401),
        ("sends", "GET /v1/stats", 401),
        ("may-nothing", "GET /v1/stats", 401),
        ("newer", "GET /v1/stats", 401),
        ("no-addresses", "GET /v1/stats", 401),
    ],
)
def test_the_permissions_of_the_imported_tokens(
    up: Up, moved_in: Result, name: str, request_line: str, expected: int
):
    method, path = request_line.split()
    body = {"json": {"scopes": ["api"], "account": "acc-a"}} if method == "POST" else {}
    assert status(up, name, method, path, **body) == expected


def test_metadata_and_limits_are_imported(up: Up, moved_in: Result):
    tokens = stored_tokens(up)
    metadata = {
        name: tokens[digest(name)[:8]]["metadata"] for name in ("metadata", "metadata-list", "metadata-text")
    }
    assert metadata == {
        "metadata": {"example": "value"},
        "metadata-list": {"emailengine": "[1,2]"},
        "metadata-text": {"emailengine": "not JSON"},
    }
    assert tokens[digest("limited")[:8]]["restrictions"]["rateLimit"] == {
        "maxRequests": 3,
        "timeWindow": 3600,
    }
    assert tokens[digest("host-bits")[:8]]["restrictions"]["addresses"] == ["127.0.0.0/8"]


def test_scope_option_replaces_restrictions_that_cannot_be_imported(up: Up):
    lines = [
        exported("replaced", permissions=OUTSIDE),
        exported("own", permissions=STATS),
        exported("dead", permissions={}),
    ]
    result = invoke(up, "import", "--skip-rejected", "--scope", "mail:send", stdin="\n".join(lines))
    assert "line 1: scopes: set to mail:send by --scope" in result.stderr
    assert "line 3: permissions: EmailEngine cannot read this" in result.stderr
    tokens = stored_tokens(up)
    assert tokens[digest("replaced")[:8]]["scopes"] == ["mail:send"]
    assert tokens[digest("own")[:8]]["scopes"] == ["api:stats:read"]
    assert digest("dead")[:8] not in tokens


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_is_rejected(up: Up, encoding: str):
    result = invoke(up, "import", stdin=exported("api").encode(encoding))
    assert (result.exit_code, result.stdout) == (65, "")
    assert result.stderr == "tallystick: the file is UTF-16: save it as UTF-8\n"


def test_a_duplicate_token_in_a_file_is_rejected(up: Up):
    result = invoke(up, "import", stdin=f"{exported('twice')}\n\n{exported('twice', permissions=STATS)}\n")
    assert result.exit_code == 65
    assert "line 3: the same token as on line 1\n" in result.stderr


@pytest.mark.parametrize(
    "record",
    [exported("other", permissions=OUTSIDE), exported("other", account="nobody")],
    ids=["permissions", "account"],
)
def test_one_rejected_record_prevents_the_whole_import(up: Up, record: str):
    result = invoke(up, "import", stdin=f"{exported('alone')}\n{record}\n")
    assert (result.exit_code, result.stdout) == (65, "")
    assert result.stderr.startswith("line 2: ")
    assert digest("alone")[:8] not in stored_tokens(up)


def test_a_file_larger_than_one_message_has_to_be_split(up: Up):
    metadata = json.dumps({"a": "x" * 8000})
    lines = [exported(f"large-{number}", metadata=metadata) for number in range(130)]
    result = invoke(up, "import", stdin="\n".join(lines))
    assert (result.exit_code, result.stdout) == (65, "")
    assert "split the file" in result.stderr
    assert invoke(up, "import", stdin="\n".join(lines[:100])).exit_code == 0


def test_skipping_every_record_is_an_error(up: Up):
    result = invoke(up, "import", "--skip-rejected", stdin=exported("none", scopes=[]))
    assert result.exit_code == 65
    assert "1 record rejected; none was left to import" in result.stderr


def test_an_account_bound_prepared_token_starts_a_new_installation(fresh: Up):
    fresh.settings["prepared_token"] = "\ufeff" + exported("prepared", account="acc-new")
    fresh.start().ready()
    assert status(fresh, "prepared", "GET", "/v1/account/acc-new") == 200
    assert status(fresh, "prepared", "GET", "/v1/stats") == 403


def test_a_prepared_token_that_cannot_be_imported_prevents_the_start(fresh: Up):
    result = command(
        "up", "--data-dir", str(fresh.data), prepared_token=exported("prepared", permissions=OUTSIDE)
    )
    assert result.returncode == 65
    assert result.stderr.startswith("tallystick: the prepared token is no token record: permissions: narrows")
    assert not fresh.data.exists()


# Tokens that an earlier version imported with too many permissions


def import_too_wide(up: Up, name: str, **token: Any) -> str:
    """Imports a token as earlier versions did, without its restrictions, and returns its id."""
    record = {
        "id": "tok_" + digest(name)[:26],
        "digest": digest(name),
        "token": {"scopes": ["api"], "description": name, **token},
    }
    assert invoke(up, "import", stdin=json.dumps(record)).exit_code == 0
    return str(record["id"])


def show(up: Up, token_id: str) -> dict[str, Any]:
    token: dict[str, Any] = json.loads(invoke(up, "show", token_id).stdout)
    return token


def test_tokens_imported_too_wide_are_reported_and_then_narrowed_or_disabled(up: Up):
    records: dict[str, dict[str, Any]] = {
        "wide-stats": {"permissions": STATS},
        "wide-other": {"permissions": OUTSIDE},
        "wide-dead": {"permissions": {}},
        "wide-newer": {"someFutureNarrowing": 1},
        "wide-newer-limit": limits(methods=["GET"]),
        "wide-addresses": limits(addresses=[]),
        "full": {"ip": "192.0.2.1", "metadata": "x"},
        "edited": {"permissions": OUTSIDE},
        "switched-off": {"permissions": OUTSIDE},
        "revoked": {"permissions": OUTSIDE},
        "rotated": {"permissions": STATS},
    }
    ids = {name: import_too_wide(up, name) for name in records}
    assert invoke(up, "edit", ids["edited"], "--scope", "mail:send").exit_code == 0
    assert invoke(up, "edit", ids["switched-off"], "--disable").exit_code == 0
    assert invoke(up, "revoke", ids["revoked"]).exit_code == 0
    rotated = invoke(up, "rotate", ids["rotated"], "--grace", "600", "--json")
    ids["successor"] = json.loads(rotated.stdout)["id"]
    file = "\n".join(
        [
            *(exported(name, **fields) for name, fields in records.items()),
            exported("unknown", permissions=STATS),
        ]
    )
    before = stored_tokens(up)

    reported = invoke(up, "import", "--reconcile", stdin=file)
    assert reported.exit_code == 0, reported.output
    messages = dict(re.findall(r"^line \d+: (tok_\w+): (.*)$", reported.stdout, re.MULTILINE))
    wide = {name for name, token_id in ids.items() if messages.get(token_id, "").startswith("too wide")}
    assert wide == {
        *("wide-stats", "wide-other", "wide-dead", "wide-newer", "wide-newer-limit", "wide-addresses"),
        *("rotated", "successor"),
    }
    assert "check it by hand" in messages[ids["edited"]]
    assert "disabled already" in messages[ids["switched-off"]]
    assert "revoked already" in messages[ids["revoked"]]
    assert ids["full"] not in messages
    assert f"{len(wide)} tokens are too wide; --apply narrows or disables them" in reported.stderr
    assert stored_tokens(up) == before
    assert status(up, "wide-stats", "GET", "/v1/accounts") == 200

    applied = invoke(up, "import", "--reconcile", "--apply", stdin=file)
    assert applied.exit_code == 0, applied.output
    assert f"{len(wide)} tokens were changed" in applied.stderr
    for name in ("wide-stats", "successor"):
        assert (show(up, ids[name])["scopes"], show(up, ids[name])["disabled"]) == (
            ["api:stats:read"],
            False,
        )
    for name in wide - {"wide-stats", "successor", "rotated"}:
        assert show(up, ids[name])["disabled"], name
    assert status(up, "rotated", "GET", "/v1/self") == 401, "its grace period has ended"
    for name in ("full", "edited"):
        assert show(up, ids[name]) == {**show(up, ids[name]), "disabled": False}
    assert show(up, ids["full"])["scopes"] == ["api"]
    assert show(up, ids["edited"])["scopes"] == ["mail:send"]
    assert (
        status(up, "wide-stats", "GET", "/v1/stats"),
        status(up, "wide-stats", "GET", "/v1/accounts"),
    ) == (200, 403)
    assert status(up, "wide-other", "GET", "/v1/stats") == 401

    again = invoke(up, "import", "--reconcile", "--apply", stdin=file)
    assert "0 tokens were changed" in again.stderr
    assert f"line 1: {ids['wide-stats']}: as narrow as its record\n" in again.stdout


def test_scope_option_narrows_tokens_instead_of_disabling_them(up: Up):
    token_id = import_too_wide(up, "to-narrow", scopes=["*"])
    stdin = exported("to-narrow", scopes=["*"], permissions=OUTSIDE)
    result = invoke(up, "import", "--reconcile", "--apply", "--scope", "mail:send", stdin=stdin)
    assert f"line 1: {token_id}: scopes set to mail:send\n" in result.stdout
    assert show(up, token_id)["scopes"] == ["mail:send"]
    assert not show(up, token_id)["disabled"]


def test_reconciling_never_widens_a_token(up: Up):
    token_id = import_too_wide(up, "narrow", scopes=["api"])
    stdin = exported("narrow", permissions=OUTSIDE)
    result = invoke(up, "import", "--reconcile", "--apply", "--scope", "mail:send", stdin=stdin)
    assert "check it by hand" in result.stdout
    assert show(up, token_id)["scopes"] == ["api"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--apply",),
        *(
            ("--reconcile", *options)
            for options in (("--dry-run",), ("--skip-rejected",), ("--accounts", "create"))
        ),
    ],
)
def test_contradicting_options_are_a_usage_error(up: Up, arguments: tuple[str, ...]):
    assert invoke(up, "import", *arguments, stdin=exported("api")).exit_code == 2

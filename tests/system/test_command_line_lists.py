"""Lists and logs on the command line, accounts, and all errors in a token's options at once."""

import json
from typing import Any

from tests.support.command_line import invoke
from tests.support.up import Up


def run_ok(up: Up, *arguments: str, group: str = "tokens", stdin: str | bytes = "") -> Any:
    result = invoke(up, *arguments, group=group, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def test_a_list_is_read_to_its_end_or_from_a_cursor(up: Up):
    """C10: a client that revokes the listed tokens page by page, by number, would skip some."""
    lines = [
        json.dumps({"id": f"tok_{number:026d}", "digest": f"{number:064x}", "token": {"scopes": ["paged:x"]}})
        for number in range(1, 46)
    ]
    run_ok(up, "import", stdin="\n".join(lines).encode())
    first = run_ok(up, "list", "-s", "paged", "--json")
    assert len(first.stdout.splitlines()) == 20
    assert "there are more: --all, or --after " in first.stderr
    cursor = first.stderr.split()[-1]
    second = run_ok(up, "list", "-s", "paged", "--after", cursor)
    assert "45 tokens, page 2 of 3" in second.stderr
    all_pages = run_ok(up, "list", "-s", "paged", "--all", "--json")
    ids = [json.loads(line)["id"] for line in all_pages.stdout.splitlines()]
    assert ids == [f"tok_{number:026d}" for number in range(45, 0, -1)]
    assert "there are more" not in all_pages.stderr
    assert invoke(up, "list", "--all", "--page", "1").exit_code == 2
    assert invoke(up, "list", "--after", cursor).exit_code == 65  # other filters
    assert invoke(up, "list", "--after", "x").exit_code == 65


def test_the_filters_are_those_of_the_api(up: Up):
    run_ok(up, "create", "-s", "filtered:read", "-d", "b")
    run_ok(up, "create", "-s", "filtered", "-d", "a")
    page = run_ok(up, "list", "-s", "filtered", "--order", "description", "--json")
    assert [json.loads(line)["description"] for line in page.stdout.splitlines()] == ["a", "b"]
    assert run_ok(up, "list", "-s", "filtered", "--unused-since", "2020-01-01T00:00:00Z").stdout == ""
    assert (
        len(
            run_ok(up, "list", "-s", "filtered", "--unused-since", "2999-01-01T00:00:00Z").stdout.splitlines()
        )
        == 2
    )
    assert invoke(up, "list", "--order", "newest").exit_code == 2


def test_accounts(up: Up):
    for name in ("stark", "wayne"):
        added = json.loads(run_ok(up, "add", name, "--name", name.title(), group="accounts").stdout)
        assert (added["state"], added["name"]) == ("new", name.title())
    assert run_ok(up, "list", "-q", "STAR", group="accounts").stdout == "stark  'Stark'\n"
    assert json.loads(run_ok(up, "show", "wayne", group="accounts").stdout)["account"] == "wayne"
    run_ok(up, "create", "-s", "api", "-a", "stark")
    assert invoke(up, "delete", "stark", group="accounts", stdin="n\n").exit_code == 1
    assert "1 tokens are rejected" in run_ok(up, "delete", "stark", "--yes", group="accounts").stdout
    log = json.loads(run_ok(up, "log", "stark", group="accounts").stdout)
    assert [change["action"] for change in log["changes"]] == ["account.deleted", "account.added"]
    assert invoke(up, "show", "stark", group="accounts").exit_code == 65
    assert invoke(up, "log", "nobody", group="accounts").exit_code == 65


def test_a_revoked_token_and_its_changes_are_shown(up: Up):
    token = json.loads(run_ok(up, "create", "-s", "api", "--json").stdout)
    run_ok(up, "edit", token["id"], "-d", "x")
    run_ok(up, "revoke", token["id"])
    details = json.loads(run_ok(up, "show", token["id"]).stdout)
    assert details["revoked"] is not None
    assert details["revokedBy"].startswith("cli:")
    log = json.loads(run_ok(up, "log", token["id"]).stdout)
    assert log["changes"][1]["details"] == {"changes": {"description": {"from": "", "to": "x"}}}
    assert invoke(up, "edit", token["id"], "-d", "y").exit_code == 65


def test_all_errors_in_a_token_are_reported_at_once(up: Up):
    token = json.loads(run_ok(up, "create", "-s", "api", "--json").stdout)
    invalid = ("--expires", "tomorrow", "--rate-limit", "100", "--address", "10.0.0.1/8", "--metadata", "{")
    for command in (("create", "-s", "BAD"), ("edit", token["id"], "-s", "BAD")):
        result = invoke(up, *command, *invalid)
        assert result.exit_code == 2
        for field in (
            "expires: ",
            "restrictions.rateLimit: ",
            "metadata: ",
            'scopes[0]: "BAD"',
            "restrictions.addresses[0]: ",
        ):
            assert field in result.stderr
    result = invoke(up, "create", "-s", "BAD", "--address", "10.0.0.1/8", "-a", "nobody")
    assert result.exit_code == 65
    for field in ("scopes[0]: ", "restrictions.addresses[0]: ", "account: no such account"):
        assert field in result.stderr
    for account, message in (
        ("nobody", "account: no such account\n"),
        ("a/b", "account: 1 to 128 characters"),
    ):
        result = invoke(up, "create", "-s", "BAD", *invalid, "-a", account)
        assert result.exit_code == 2
        for field in (message, "expires: ", 'scopes[0]: "BAD"', "restrictions.addresses[0]: "):
            assert field in result.stderr
    result = invoke(up, "create", "--expires", "tomorrow")
    assert "scopes: missing" in result.stderr
    assert "expires: " in result.stderr


def test_an_import_of_a_json_array_is_rejected_with_a_hint(up: Up):
    for stdin in (b"[]", b"\xef\xbb\xbf[{}]", b'\n[\n  {"id": 1}\n]\n'):
        result = invoke(up, "import", stdin=stdin)
        assert result.exit_code == 65
        assert (
            result.stderr
            == "tallystick: the file is a JSON array: write a record a line, as jq -c '.[]' does\n"
        )

"""Lists and logs on the command line, accounts, and all faults of a token's options at once."""

import json
from typing import Any

from tests.support.command_line import invoke
from tests.support.up import Up


def done(up: Up, *arguments: str, group: str = "tokens", stdin: str | bytes = "") -> Any:
    ended = invoke(up, *arguments, group=group, stdin=stdin)
    assert ended.exit_code == 0, ended.output
    return ended


def test_a_list_is_followed_to_its_end_or_goes_on_from_a_cursor(up: Up):
    """C10: over pages by number, whoever revokes what is listed leaves some."""
    lines = [
        json.dumps({"id": f"tok_{number:026d}", "digest": f"{number:064x}", "token": {"scopes": ["paged:x"]}})
        for number in range(1, 46)
    ]
    done(up, "import", stdin="\n".join(lines).encode())
    first = done(up, "list", "-s", "paged", "--json")
    assert len(first.stdout.splitlines()) == 20
    assert "there are more: --all, or --after " in first.stderr
    cursor = first.stderr.split()[-1]
    second = done(up, "list", "-s", "paged", "--after", cursor)
    assert "45 tokens, page 2 of 3" in second.stderr
    everything = done(up, "list", "-s", "paged", "--all", "--json")
    ids = [json.loads(line)["id"] for line in everything.stdout.splitlines()]
    assert ids == [f"tok_{number:026d}" for number in range(45, 0, -1)]
    assert "there are more" not in everything.stderr
    assert invoke(up, "list", "--all", "--page", "1").exit_code == 2
    assert invoke(up, "list", "--after", cursor).exit_code == 65  # other filters
    assert invoke(up, "list", "--after", "x").exit_code == 65


def test_the_filters_are_those_of_the_other_ways(up: Up):
    done(up, "create", "-s", "filtered:read", "-d", "b")
    done(up, "create", "-s", "filtered", "-d", "a")
    page = done(up, "list", "-s", "filtered", "--order", "description", "--json")
    assert [json.loads(line)["description"] for line in page.stdout.splitlines()] == ["a", "b"]
    assert done(up, "list", "-s", "filtered", "--unused-since", "2020-01-01T00:00:00Z").stdout == ""
    assert (
        len(done(up, "list", "-s", "filtered", "--unused-since", "2999-01-01T00:00:00Z").stdout.splitlines())
        == 2
    )
    assert invoke(up, "list", "--order", "newest").exit_code == 2


def test_accounts(up: Up):
    for name in ("stark", "wayne"):
        added = json.loads(done(up, "add", name, "--name", name.title(), group="accounts").stdout)
        assert (added["state"], added["name"]) == ("new", name.title())
    assert done(up, "list", "-q", "STAR", group="accounts").stdout == "stark  'Stark'\n"
    assert json.loads(done(up, "show", "wayne", group="accounts").stdout)["account"] == "wayne"
    done(up, "create", "-s", "api", "-a", "stark")
    assert invoke(up, "delete", "stark", group="accounts", stdin="n\n").exit_code == 1
    assert "1 tokens are rejected" in done(up, "delete", "stark", "--yes", group="accounts").stdout
    log = json.loads(done(up, "log", "stark", group="accounts").stdout)
    assert [each["action"] for each in log["changes"]] == ["account.deleted", "account.added"]
    assert invoke(up, "show", "stark", group="accounts").exit_code == 65
    assert invoke(up, "log", "nobody", group="accounts").exit_code == 65


def test_a_revoked_token_and_what_changed_are_shown(up: Up):
    made = json.loads(done(up, "create", "-s", "api", "--json").stdout)
    done(up, "edit", made["id"], "-d", "x")
    done(up, "revoke", made["id"])
    shown = json.loads(done(up, "show", made["id"]).stdout)
    assert shown["revoked"] is not None
    assert shown["revokedBy"].startswith("cli:")
    log = json.loads(done(up, "log", made["id"]).stdout)
    assert log["changes"][1]["details"] == {"changes": {"description": {"from": "", "to": "x"}}}
    assert invoke(up, "edit", made["id"], "-d", "y").exit_code == 65


def test_all_faults_of_a_token_are_told_at_once(up: Up):
    made = json.loads(done(up, "create", "-s", "api", "--json").stdout)
    wrong = ("--expires", "tomorrow", "--rate-limit", "100", "--address", "10.0.0.1/8", "--metadata", "{")
    for command in (("create", "-s", "BAD"), ("edit", made["id"], "-s", "BAD")):
        refused = invoke(up, *command, *wrong)
        assert refused.exit_code == 2
        for field in (
            "expires: ",
            "restrictions.rateLimit: ",
            "metadata: ",
            'scopes[0]: "BAD"',
            "restrictions.addresses[0]: ",
        ):
            assert field in refused.stderr
    refused = invoke(up, "create", "-s", "BAD", "--address", "10.0.0.1/8", "-a", "nobody")
    assert refused.exit_code == 65
    for field in ("scopes[0]: ", "restrictions.addresses[0]: ", "account: no such account"):
        assert field in refused.stderr
    for account, message in (
        ("nobody", "account: no such account\n"),
        ("a/b", "account: 1 to 128 characters"),
    ):
        refused = invoke(up, "create", "-s", "BAD", *wrong, "-a", account)
        assert refused.exit_code == 2
        for field in (message, "expires: ", 'scopes[0]: "BAD"', "restrictions.addresses[0]: "):
            assert field in refused.stderr
    refused = invoke(up, "create", "--expires", "tomorrow")
    assert "scopes: missing" in refused.stderr
    assert "expires: " in refused.stderr


def test_an_import_of_a_json_array_is_told_what_to_do(up: Up):
    for stdin in (b"[]", b"\xef\xbb\xbf[{}]", b'\n[\n  {"id": 1}\n]\n'):
        refused = invoke(up, "import", stdin=stdin)
        assert refused.exit_code == 65
        assert (
            refused.stderr
            == "tallystick: the file is a JSON array: write a record a line, as jq -c '.[]' does\n"
        )

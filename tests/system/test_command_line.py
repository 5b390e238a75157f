"""Bad input on the command line and on standard input: one clear line, an exit code, and nothing done."""

import base64
import json

import msgspec
import pytest
from click.testing import CliRunner

from tallystick.tokens import format as token_format
from tallystick_server.__main__ import program
from tests.support.command_line import invoke
from tests.support.examples import VECTOR
from tests.support.up import Up, run

ID = "tok_" + "0" * 26
DIGEST = "ab" * 32
RECORD = {"id": ID, "digest": DIGEST, "token": {"scopes": ["api"]}}


def packed(**fields: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode({"id": DIGEST, **fields})).decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("create",),
        ("create", "-s"),
        ("create", "-s", "api", "--colour", "red"),
        ("create", "-s", "api", "--expires", "tomorrow"),
        ("create", "-s", "api", "--expires", "2030-01-01"),
        ("create", "-s", "api", "--expires", "2030-01-01T00:00:00"),
        ("create", "-s", "api", "--rate-limit", "100"),
        ("create", "-s", "api", "--rate-limit", "/60"),
        ("create", "-s", "api", "--rate-limit", "-1/60"),
        ("create", "-s", "api", "--rate-limit", "1/1/1"),
        ("create", "-s", "api", "--metadata", "{"),
        ("create", "-s", "api", "--metadata", "[1]"),
        ("list", "--page", "x"),
        ("list", "--state", "lost"),
        ("rotate", ID, "--grace", "soon"),
        ("edit", ID, "--clear", "scopes"),
        ("revoke",),
        ("revoke", ID, "--account", "alice"),
        ("import", "/nonexistent"),
        ("steal",),
    ],
)
def test_what_cannot_be_meant_is_refused_as_a_mistake_in_its_use(up: Up, arguments: tuple[str, ...]):
    refused = invoke(up, *arguments)
    assert refused.exit_code == 2
    assert "Error: " in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "-s", "API"),
        ("create", "-s", ""),
        ("create", "-s", "api", "-a", "nobody"),
        ("create", "-s", "api", "-d", "x" * 1025),
        ("create", "-s", "api", "--address", "10.0.0.1/33"),
        ("create", "-s", "api", "--referrer", "a b"),
        ("create", "-s", "api", "--rate-limit", "0/60"),
        ("create", "-s", "api", "--rate-limit", f"{2**70}/60"),
        ("create", "-s", "api", "--expires", "2020-01-01T00:00:00Z"),
        ("create", "-s", "api", "--expires", "0001-01-01T00:00:00+23:59"),
        ("list", "--page", "-1"),
        ("list", "--page", str(2**70)),
        ("list", "--page-size", "0"),
        ("list", "-q", "x" * 1025),
        ("show", ID),
        ("log", ID),
        ("export", ID),
        ("edit", ID, "-d", "x"),
        ("edit", ID, "--address", "10.0.0.0/8"),
        ("rotate", ID, "--grace", "-1"),
        ("rotate", ID),
        ("revoke", ID),
        ("revoke", "--account", "nobody"),
        ("show", "tok_"),
        ("show", "f" * 64),
        ("rotate", "tly_" + "0" * 49),
        ("export", "an-opaque-value-of-somebody"),
    ],
)
def test_what_is_not_there_or_may_not_be_is_said_in_a_line(up: Up, arguments: tuple[str, ...]):
    refused = invoke(up, *arguments)
    assert (refused.exit_code, refused.stdout) == (65, "")
    assert refused.stderr.splitlines()[-1].startswith("tallystick: ")
    assert "Traceback" not in refused.stderr
    assert arguments[-1] not in refused.stderr or not arguments[-1].startswith(("f" * 64, "tly_", "an-"))


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b"\n \n",
        b"\xff\xfe\x00",
        b"{",
        b"[]",
        b"garbage!",
        VECTOR[:-1].encode(),
        VECTOR[:50].encode(),
        b"A" * 5_000_000,
        b"{}\n" * 3,
        json.dumps({**RECORD, "digest": "x"}).encode(),
        json.dumps({**RECORD, "token": {}}).encode(),
        json.dumps({**RECORD, "colour": "red"}).encode(),
        json.dumps({**RECORD, "token": {"scopes": ["api"], "account": "nobody"}}).encode(),
        json.dumps({**RECORD, "created": "0001-01-01T00:00:00+23:59"}).encode(),
        json.dumps(RECORD).encode() + b"\n" + json.dumps({**RECORD, "digest": "cd" * 32}).encode(),
        packed(scopes=[]).encode(),
        packed(created=2**62).encode(),
        packed(expires=1, colour=1).encode() + b"\n{",
        packed(notBefore=1).encode(),
        packed(restrictions={"rateLimit": {"maxRequests": 1}}).encode(),
        packed(restrictions={"addresses": []}).encode(),
        packed(id="x").encode(),
    ],
)
def test_an_import_of_what_is_no_record_writes_nothing(up: Up, stdin: bytes):
    before = invoke(up, "list", "--json").stdout
    refused = invoke(up, "import", stdin=stdin)
    assert (refused.exit_code, refused.stdout) == (65, ""), refused.output
    assert "Traceback" not in refused.stderr
    assert invoke(up, "list", "--json").stdout == before


def test_a_thousand_records_are_imported_at_once_and_no_more(up: Up):
    lines = [
        json.dumps({"id": f"tok_{number:026d}", "digest": f"{number:064x}", "token": {"scopes": ["api"]}})
        for number in range(1001)
    ]
    refused = invoke(up, "import", stdin="\n".join(lines).encode())
    assert (refused.exit_code, refused.stdout) == (65, "")
    assert "at most 1000 at once" in refused.stderr
    imported = invoke(up, "import", stdin="\n".join(lines[:1000]).encode())
    assert imported.exit_code == 0, imported.stderr
    assert len(imported.stdout.splitlines()) == 1000


@pytest.mark.parametrize("length", [1000, 1100, 4000])
def test_an_import_larger_than_one_message_says_so_and_writes_nothing(up: Up, length: int):
    lines = [
        json.dumps(
            {
                "id": f"tok_{number:026d}",
                "digest": f"{number:064x}",
                "token": {"scopes": ["api"], "metadata": {"text": "x" * length}},
            }
        )
        for number in range(2000, 2950)
    ]
    refused = invoke(up, "import", stdin="\n".join(lines).encode())
    assert (refused.exit_code, refused.stdout) == (65, "")
    assert "split the file; nothing was imported" in refused.stderr


@pytest.mark.parametrize(
    "words", [["tokens"], ["tokens", "list", "-q"], ["tokens", "inspect"], ["up", "--host"]]
)
def test_a_token_among_the_arguments_is_refused_unread(words: list[str]):
    token = token_format.mint()
    for stdin in (token, f"--query={token}"):
        ended = run(*words, stdin)
        assert ended.returncode == 65
        assert "no place among arguments" in ended.stderr
        assert token not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "stdin", ["", "x", "tly_" + "0" * 49, "f" * 63, "f" * 65, "\xff" * 20, "a b" * 10, "x" * 600]
)
def test_what_is_no_token_is_told_without_asking_anyone(stdin: str):
    checked = CliRunner().invoke(program, ["tokens", "inspect"], input=stdin)
    assert checked.exit_code == 65
    assert not stdin or stdin not in checked.output


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "127.0.0.1:1", "nats://x.invalid:4222"])
def test_where_nobody_answers_it_says_so(url: str):
    ended = run("tokens", "list", nats_url=url)
    assert ended.returncode == 69
    assert len(ended.stderr.splitlines()) <= 2
    assert "Traceback" not in ended.stderr

"""Bad input on the command line and on standard input: one clear line, an exit code, and no change."""

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


def pack(**fields: object) -> str:
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
def test_invalid_arguments_are_rejected_as_usage_errors(up: Up, arguments: tuple[str, ...]):
    result = invoke(up, *arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


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
def test_missing_and_invalid_values_are_reported_in_one_line(up: Up, arguments: tuple[str, ...]):
    result = invoke(up, *arguments)
    assert (result.exit_code, result.stdout) == (65, "")
    assert result.stderr.splitlines()[-1].startswith("tallystick: ")
    assert "Traceback" not in result.stderr
    assert arguments[-1] not in result.stderr or not arguments[-1].startswith(("f" * 64, "tly_", "an-"))


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
        pack(scopes=[]).encode(),
        pack(created=2**62).encode(),
        pack(expires=1, colour=1).encode() + b"\n{",
        pack(notBefore=1).encode(),
        pack(restrictions={"rateLimit": {"maxRequests": 1}}).encode(),
        pack(restrictions={"addresses": []}).encode(),
        pack(id="x").encode(),
    ],
)
def test_an_import_of_an_invalid_record_writes_nothing(up: Up, stdin: bytes):
    before = invoke(up, "list", "--json").stdout
    result = invoke(up, "import", stdin=stdin)
    assert (result.exit_code, result.stdout) == (65, ""), result.output
    assert "Traceback" not in result.stderr
    assert invoke(up, "list", "--json").stdout == before


def test_an_import_has_at_most_a_thousand_records(up: Up):
    lines = [
        json.dumps({"id": f"tok_{number:026d}", "digest": f"{number:064x}", "token": {"scopes": ["api"]}})
        for number in range(1001)
    ]
    result = invoke(up, "import", stdin="\n".join(lines).encode())
    assert (result.exit_code, result.stdout) == (65, "")
    assert "at most 1000 at once" in result.stderr
    imported = invoke(up, "import", stdin="\n".join(lines[:1000]).encode())
    assert imported.exit_code == 0, imported.stderr
    assert len(imported.stdout.splitlines()) == 1000


@pytest.mark.parametrize("length", [1000, 1100, 4000])
def test_an_import_larger_than_one_message_is_rejected(up: Up, length: int):
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
    result = invoke(up, "import", stdin="\n".join(lines).encode())
    assert (result.exit_code, result.stdout) == (65, "")
    assert "split the file; nothing was imported" in result.stderr


@pytest.mark.parametrize(
    "words", [["tokens"], ["tokens", "list", "-q"], ["tokens", "inspect"], ["up", "--host"]]
)
def test_a_token_among_the_arguments_is_rejected(words: list[str]):
    token = token_format.mint()
    for argument in (token, f"--query={token}"):
        result = run(*words, argument)
        assert result.returncode == 65
        assert "no place among arguments" in result.stderr
        assert token not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "stdin", ["", "x", "tly_" + "0" * 49, "f" * 63, "f" * 65, "\xff" * 20, "a b" * 10, "x" * 600]
)
def test_a_malformed_token_is_reported_without_a_lookup(stdin: str):
    result = CliRunner().invoke(program, ["tokens", "inspect"], input=stdin)
    assert result.exit_code == 65
    assert not stdin or stdin not in result.output


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "127.0.0.1:1", "nats://x.invalid:4222"])
def test_an_unreachable_nats_is_reported(url: str):
    result = run("tokens", "list", nats_url=url)
    assert result.returncode == 69
    assert len(result.stderr.splitlines()) <= 2
    assert "Traceback" not in result.stderr

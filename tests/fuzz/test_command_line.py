"""Whatever stands on the command line, on standard input, in a record or in a setting: an answer, one of ours."""

import base64
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from tallystick.tokens import record as token_record
from tallystick.tokens.record import NotARecord
from tallystick_server.__main__ import program
from tallystick_server.cli.settings import Settings as CommandLineSettings
from tallystick_server.cli.tokens import tokens
from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.metrics.settings import Settings as MetricsSettings
from tallystick_server.runtime import settings
from tallystick_server.runtime.settings import SettingsError
from tallystick_server.tokens.settings import Settings as TokensSettings
from tests.fuzz.anything import almost, encoded, json, texts
from tests.support.up import Up

# Neither an argument nor a variable of a process can hold a NUL.
without_nul = texts.filter(lambda text: "\0" not in text)
EXIT_CODES = {0, 1, 2, 65, 69}
CANARY = "k7Qz-0xV"
"""Part of values that no message may repeat. A message may well hold a value by chance: a setting's name is one."""
OPTIONS = sorted({name for each in tokens.commands.values() for part in each.params for name in part.opts})


def wrong_with(kind: type[msgspec.Struct], environment: dict[str, str]) -> str:
    try:
        found = settings.load(kind, environment)
        if isinstance(found, EdgeSettings):
            found.trusted_networks()
    except SettingsError as error:
        return str(error)
    return ""


def wrong_with_record(text: str) -> str:
    try:
        token_record.decode(text)
    except NotARecord as error:
        return str(error)
    return ""


def test_every_command_line_gets_an_answer(up: Up, fuzz: Callable[..., None]):
    assert up.running
    environment = {"TALLYSTICK_NATS_URL": up.running.operator_url}
    words = st.one_of(
        st.sampled_from([*OPTIONS, "-", "--help", "100/60", "2030-01-01T00:00:00Z"]), without_nul
    )
    inputs = st.one_of(st.binary(max_size=200), json.map(encoded))

    @given(
        command=st.sampled_from(sorted(tokens.commands)), arguments=st.lists(words, max_size=5), stdin=inputs
    )
    def check(command: str, arguments: list[str], stdin: bytes) -> None:
        ended = CliRunner().invoke(program, ["tokens", command, *arguments], input=stdin, env=environment)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exc_info
        assert ended.exit_code in EXIT_CODES, ended.output
        assert "Traceback" not in ended.output

    fuzz(check, examples=60)


@pytest.mark.parametrize("kind", [EdgeSettings, TokensSettings, MetricsSettings, CommandLineSettings])
def test_every_setting_is_taken_or_named(kind: type[msgspec.Struct], fuzz: Callable[..., None]):
    names = [field.name for field in msgspec.structs.fields(kind)]
    values = st.one_of(
        without_nul,
        without_nul.map(lambda text: f"{text[:20]}{CANARY}{text[20:]}"),
        st.sampled_from(["1", "0", "true", "no", "1e9", "nan", "-1", "/nonexistent"]),
        st.sampled_from(["nats://x:{}@127.0.0.1", "/{}", "{}/32", "1{}"]).map(
            lambda form: form.format(CANARY)
        ),
    )
    variables = [settings.variable(name) + suffix for name in names for suffix in ("", "_FILE")]

    @given(environment=st.dictionaries(st.sampled_from(variables), values, max_size=len(names)))
    def check(environment: dict[str, str]) -> None:
        told = wrong_with(kind, environment)
        assert told == "" or told.startswith("TALLYSTICK_")
        assert len(told.splitlines()) <= 1
        assert CANARY not in told

    fuzz(check, examples=300)


def test_every_record_is_one_or_is_told_not_to_be(fuzz: Callable[..., None]):
    def emailengine(fields: Any) -> str:
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(fields)).decode()

    small = st.dictionaries(
        st.sampled_from(
            [
                *("id", "scopes", "description", "account", "restrictions", "expires", "created"),
                *("metadata", "permissions", "ip", "remoteAddress", "more"),
            ]
        ),
        st.one_of(
            st.integers(-(2**63), 2**63), texts, st.lists(texts, max_size=2), st.booleans(), st.datetimes()
        ),
    )
    records = st.one_of(
        st.text(),
        almost(token_record.TokenRecord).map(encoded).map(bytes.decode),
        small.map(lambda fields: emailengine({"id": "f" * 64, **fields})),
        st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
    )

    @given(text=records)
    def check(text: str) -> None:
        told = wrong_with_record(text)
        assert len(text) < 40 or text not in told

    fuzz(check, examples=300)

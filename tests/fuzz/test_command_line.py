"""Any command line, standard input, record or setting gets a result or an error message of Tallystick."""

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
from tests.fuzz.strategies import almost, encoded, json, texts
from tests.support.up import Up

# Neither an argument nor a variable of a process can hold a NUL.
without_nul = texts.filter(lambda text: "\0" not in text)
EXIT_CODES = {0, 1, 2, 65, 69}
CANARY = "k7Qz-0xV"
"""A part of values that no message may repeat. A whole value may occur by chance, if it is a setting's name."""
OPTIONS = sorted(
    {name for command in tokens.commands.values() for part in command.params for name in part.opts}
)


def error_of_settings(kind: type[msgspec.Struct], environment: dict[str, str]) -> str:
    try:
        loaded = settings.load(kind, environment)
        if isinstance(loaded, EdgeSettings):
            loaded.trusted_networks()
    except SettingsError as error:
        return str(error)
    return ""


def error_of_record(text: str) -> str:
    try:
        token_record.decode(text)
    except NotARecord as error:
        return str(error)
    return ""


def test_every_command_line_gets_a_result(up: Up, fuzz: Callable[..., None]):
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
        result = CliRunner().invoke(program, ["tokens", command, *arguments], input=stdin, env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code in EXIT_CODES, result.output
        assert "Traceback" not in result.output

    fuzz(check, examples=60)


@pytest.mark.parametrize("kind", [EdgeSettings, TokensSettings, MetricsSettings, CommandLineSettings])
def test_every_setting_is_accepted_or_named_in_the_error(
    kind: type[msgspec.Struct], fuzz: Callable[..., None]
):
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
        message = error_of_settings(kind, environment)
        assert message == "" or message.startswith("TALLYSTICK_")
        assert len(message.splitlines()) <= 1
        assert CANARY not in message

    fuzz(check, examples=300)


def test_every_record_is_decoded_or_rejected(fuzz: Callable[..., None]):
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
        message = error_of_record(text)
        assert len(text) < 40 or text not in message

    fuzz(check, examples=300)

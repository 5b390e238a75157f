"""A setting is accepted, or rejected in one line that does not repeat its value."""

from pathlib import Path

import msgspec
import pytest

from tallystick_server.edge.settings import Settings as EdgeSettings
from tallystick_server.metrics.settings import Settings as MetricsSettings
from tallystick_server.runtime import settings
from tallystick_server.runtime.logging import Settings as LogSettings
from tallystick_server.runtime.settings import SettingsError
from tallystick_server.tokens.settings import Settings as TokensSettings

NATS = {"TALLYSTICK_NATS_URL": "nats://x"}
TOKENS = {**NATS, "TALLYSTICK_DATABASE_URL": "postgres://x"}


def load(kind: type[msgspec.Struct], environment: dict[str, str]) -> None:
    loaded = settings.load(kind, environment)
    if isinstance(loaded, EdgeSettings):
        loaded.trusted_networks()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (EdgeSettings, "nats_url", ""),
        (EdgeSettings, "host", ""),
        (EdgeSettings, "port", "0"),
        (EdgeSettings, "port", "-1"),
        (EdgeSettings, "port", "65536"),
        (EdgeSettings, "port", "http"),
        (EdgeSettings, "port", "3000.5"),
        (EdgeSettings, "port", "１２３"),
        (EdgeSettings, "workers", "0"),
        (EdgeSettings, "workers", "257"),
        (EdgeSettings, "workers", "auto"),
        (EdgeSettings, "docs", "maybe"),
        (EdgeSettings, "docs", ""),
        (EdgeSettings, "trusted_proxies", "*"),
        (EdgeSettings, "trusted_proxies", "all"),
        (EdgeSettings, "trusted_proxies", "10.0.0.1/33"),
        (EdgeSettings, "trusted_proxies", "10.0.0.1/8"),
        (EdgeSettings, "trusted_proxies", "10.0.0.0/8;10.1.0.0/16"),
        (TokensSettings, "database_url", ""),
        (TokensSettings, "startup_timeout_s", "0"),
        (TokensSettings, "startup_timeout_s", "-5"),
        (TokensSettings, "startup_timeout_s", "nan"),
        (TokensSettings, "startup_timeout_s", "soon"),
        (TokensSettings, "startup_timeout_s", "1e9"),
        (MetricsSettings, "stream_max_bytes", "0"),
        (MetricsSettings, "stream_max_bytes", "1 GiB"),
        (MetricsSettings, "stream_max_bytes", str(2**80)),
    ],
)
def test_an_invalid_setting_is_named_without_its_value(kind: type[msgspec.Struct], name: str, value: str):
    with pytest.raises(SettingsError) as error:
        load(kind, {**TOKENS, settings.variable(name): value})
    assert settings.variable(name) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(value) < 4 or value not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "65535"), ("docs", "false"), ("docs", "0"), ("trusted_proxies", " 10.0.0.0/8 , ::1 ,")],
)
def test_a_valid_setting_is_accepted(name: str, value: str):
    load(EdgeSettings, {**NATS, settings.variable(name): value})


def test_a_missing_setting_is_named():
    for environment, name in (({}, "NATS_URL"), (NATS, "DATABASE_URL")):
        with pytest.raises(SettingsError, match=f"TALLYSTICK_{name} is not set"):
            settings.load(TokensSettings, environment)


def test_the_file_of_a_secret_has_to_be_readable(tmp_path: Path):
    (tmp_path / "good").write_text("nats://x\n")
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    assert (
        settings.load(EdgeSettings, {"TALLYSTICK_NATS_URL_FILE": f"{tmp_path}/good"}).nats_url == "nats://x"
    )
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfnats://x\r\n")
    marked = settings.load(EdgeSettings, {"TALLYSTICK_NATS_URL_FILE": f"{tmp_path}/marked"})
    assert marked.nats_url == "nats://x"
    for wrong in (f"{tmp_path}/bad", f"{tmp_path}/none", str(tmp_path), ""):
        with pytest.raises(SettingsError, match=r"TALLYSTICK_NATS_URL_FILE (cannot be read|is not UTF-8)"):
            settings.load(EdgeSettings, {"TALLYSTICK_NATS_URL_FILE": wrong})
    with pytest.raises(SettingsError, match="both set"):
        settings.load(EdgeSettings, {**NATS, "TALLYSTICK_NATS_URL_FILE": f"{tmp_path}/good"})


@pytest.mark.parametrize("name", ["PROT", "NATSURL", "NATS_URL_FILES", "AUTH", "NO_AUTH", "DISABLE_AUTH", ""])
def test_an_unknown_setting_is_rejected(name: str):
    with pytest.raises(SettingsError, match=f"TALLYSTICK_{name} is not a setting"):
        settings.check_known([EdgeSettings, TokensSettings], {f"TALLYSTICK_{name}": "1", "OTHER": "1"})


@pytest.mark.parametrize(("former", "name"), settings.RENAMED.items())
def test_a_former_name_is_rejected_with_the_new_one(former: str, name: str):
    kinds: list[type[msgspec.Struct]] = [EdgeSettings, TokensSettings, MetricsSettings, LogSettings]
    with pytest.raises(SettingsError, match=f"{former} is now called {name}"):
        settings.check_known(kinds, {former: "1"})
    settings.check_known(kinds, {name: "1"})

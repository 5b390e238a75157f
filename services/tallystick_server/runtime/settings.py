"""Settings from ``TALLYSTICK_...`` variables, checked at the start; secrets also from ``..._FILE``.

A service declares its settings as a msgspec Struct whose fields carry their description and bounds; a field
``nats_url`` is the variable ``TALLYSTICK_NATS_URL``. What is wrong is named by its key, never by its value.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

PREFIX = "TALLYSTICK_"
RENAMED = {
    "TALLYSTICK_CACHED_TOKENS": "TALLYSTICK_CACHE_MAX_TOKENS",
    "TALLYSTICK_CERTIFICATE": "TALLYSTICK_TLS_CERT_FILE",
    "TALLYSTICK_CERTIFICATE_KEY": "TALLYSTICK_TLS_KEY_FILE",
    "TALLYSTICK_CLOCKS_S": "TALLYSTICK_MAX_CLOCK_SKEW_S",
    "TALLYSTICK_CONNECTIONS": "TALLYSTICK_MAX_CONNECTIONS",
    "TALLYSTICK_HEARTBEAT": "TALLYSTICK_HEARTBEAT_FILE",
    "TALLYSTICK_LEASE_S": "TALLYSTICK_CACHE_LEASE_S",
    "TALLYSTICK_LOGS": "TALLYSTICK_LOG_FORMAT",
    "TALLYSTICK_NATS_AUTHORITY": "TALLYSTICK_NATS_CA",
    "TALLYSTICK_NATS_AUTHORITY_FILE": "TALLYSTICK_NATS_CA_FILE",
    "TALLYSTICK_WAIT_S": "TALLYSTICK_STARTUP_TIMEOUT_S",
}
"""Former names of settings, and what each is called now."""
S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(Exception):
    """One line that names the key and what is wrong with it."""


def variable(field: str) -> str:
    return PREFIX + field.upper()


def load(kind: type[S], environment: Mapping[str, str]) -> S:
    """The settings of one kind from the environment.

    Raises:
        SettingsError: a value is missing, of the wrong form, or its file cannot be read.
    """
    values = {}
    for field in msgspec.structs.fields(kind):
        if (value := read(field.name, environment)) is not None:
            values[field.name] = value
        elif field.required:
            raise SettingsError(f"{variable(field.name)} is not set")
    for name, value in values.items():
        # One at a time, so that the message names the variable.
        _convert(kind, name, value)
    return msgspec.convert(values, kind, strict=False)


def check_known(kinds: Iterable[type[msgspec.Struct]], environment: Mapping[str, str]) -> None:
    """Rejects unknown ``TALLYSTICK_...`` variables: a mistyped setting must not pass as unset.

    Raises:
        SettingsError: a variable is unknown. If it is the former name of a setting, the message gives the new one.
    """
    valid_names = {variable(field.name) for kind in kinds for field in msgspec.structs.fields(kind)}
    for name in sorted(environment):
        if new_name := RENAMED.get(name):
            raise SettingsError(f"{name} is now called {new_name}")
        if (
            name.startswith(PREFIX)
            and name.removesuffix("_FILE") not in valid_names
            and name not in valid_names
        ):
            raise SettingsError(f"{name} is not a setting")


def read(field: str, environment: Mapping[str, str]) -> str | None:
    """One setting's text, from its variable or the file that ``..._FILE`` names; None where it is not set.

    Raises:
        SettingsError: both are set, or the file cannot be read.
    """
    name = variable(field)
    file = environment.get(name + "_FILE")
    if file is None:
        return environment.get(name)
    if name in environment:
        raise SettingsError(f"{name} and {name}_FILE are both set")
    try:
        # Editors on Windows write a byte order mark.
        return Path(file).read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise SettingsError(f"{name}_FILE is not UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{name}_FILE cannot be read: {type(error).__name__}") from None


def _convert(kind: type[msgspec.Struct], name: str, value: str) -> None:
    field = next(field for field in msgspec.structs.fields(kind) if field.name == name)
    try:
        msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{variable(name)}: {error}") from None

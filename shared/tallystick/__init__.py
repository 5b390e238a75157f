"""The library: what the services and their users share. `import tallystick` loads nothing until a name is used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tallystick.errors import Unavailable
    from tallystick.producer import Producer

    VERSION: str

__all__ = ["VERSION", "Producer", "Unavailable"]

_MODULES = {"Producer": "tallystick.producer", "Unavailable": "tallystick.errors"}


def __getattr__(name: str) -> object:
    value: object
    if name == "VERSION":
        from importlib.metadata import version  # noqa: PLC0415  # takes as long as everything else here

        value = version("tallystick")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value

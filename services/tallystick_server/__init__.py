"""The three services and the command line that starts them."""

import sys


def main() -> None:
    """The program `tallystick`, or a hint where only the library is installed."""
    try:
        from tallystick_server.__main__ import main as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        sys.exit(f"tallystick: {error.name} is not installed; install 'tallystick[server,local]'")
    run()

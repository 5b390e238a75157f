"""`tallystick up` in every combination of surroundings; `system/test_surroundings.py` tests two that cover each of them."""

import tempfile
from itertools import product
from pathlib import Path

import pytest

from tests.support.surroundings import Surroundings, placed, serves

FOLDERS = (
    "plain",
    "données",
    "a&b",
    "a#b",
    "a+b",
    "a,b",
    "50%",
    "a b",
    "a'b",
    'a"b',
    "a\\b",
    "$HOME",
    "x" * 120,
)
HOSTS = ("127.0.0.1", "0.0.0.0", "::", "::1", "localhost")  # noqa: S104  # on this machine, for some seconds
SWITCHES = ((False, False, False), (True, True, False), (True, False, True), (False, True, True))
"""Of HTTPS, PID 1 and root: any two of them in every combination."""


@pytest.mark.parametrize(("folder", "host", "switches"), list(product(FOLDERS, HOSTS, SWITCHES)))
def test_it_serves(folder: str, host: str, switches: tuple[bool, bool, bool], certificates: Path):
    with (
        tempfile.TemporaryDirectory(prefix="tally-") as place,
        placed(Surroundings(folder, host, *switches), certificates, Path(place)) as up,
    ):
        serves(up, certificates)
        assert up.stop() == 0

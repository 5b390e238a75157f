"""Where the code lies, and where tests put the folders of servers."""

import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON_PATH = os.pathsep.join(str(folder) for folder in (ROOT / "shared", ROOT / "services", ROOT))
"""PYTHONPATH for processes that run this clone's code, wherever they are started."""
_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30
"""How much has to be free there, in bytes: containers often have very little."""


def temporary_folder() -> AbstractContextManager[str]:
    """A short path to a folder that ends with the block; in memory where there is room. A disk takes three to five times
    as long to create and remove a database, which has hundreds of files.
    """
    return tempfile.TemporaryDirectory(prefix="tally-", dir=_MEMORY if _has_room() else None)


def _has_room() -> bool:
    try:
        return os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    except OSError:
        return False

"""Starting the embedded servers."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tallystick_server.local import nats, postgres
from tallystick_server.runtime.nats_permissions import USERS
from tests.support.paths import temporary_folder
from tests.support.polling import until_async
from tests.support.ports import free_port


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def start_nats_on_another_port(folder: Path, log: Path) -> Coroutine[Any, Any, Any]:
    """Starts NATS and waits for it at a port on which it does not listen."""
    configuration = nats.configure(folder / "nats", free_port(), dict.fromkeys(USERS, "password"))
    return nats.start(configuration, free_port(), log)


async def start_postgres_with_wrong_password(folder: Path, log: Path) -> None:
    """Starts PostgreSQL and waits for it with a wrong password."""
    await postgres.initialize(folder / "postgres", "password", log)
    await postgres.start(folder / "postgres", folder, "wrong", log)


@pytest.mark.parametrize(
    ("start", "ready"),
    [
        (start_nats_on_another_port, "Server is ready"),
        (start_postgres_with_wrong_password, "database system is ready to accept connections"),
    ],
)
async def test_a_server_whose_start_is_cancelled_is_stopped(start, ready: str):
    with temporary_folder() as path:
        folder = Path(path)
        log, before = folder / "log", children()
        starting = asyncio.create_task(start(folder, log))
        await until_async(lambda: log.exists() and ready in log.read_text())
        assert len(children() - before) == 1
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert children() <= before

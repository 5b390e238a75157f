"""Who may say what on NATS: the table in the docs, tried out on a server."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest

from deploy import nats_server
from tests.conftest import Nats, start_nats

ROOT = Path(__file__).parent.parent.parent


def test_the_docs_hold_the_table():
    page = (ROOT / "docs/permissions.md").read_text()
    assert nats_server.table() in page, (
        "run: python -m deploy.nats_server, and put it into docs/permissions.md"
    )


@pytest.mark.parametrize("user", nats_server.PERMISSIONS)
async def test_every_subject_and_every_user_as_the_table_says(user: str, tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        for way in ("publish", "subscribe"):
            allowed = await what_is_not_refused(urls, user, way)
            assert allowed == [each for each in SUBJECTS if nats_server.allows(user, way, each)], way


async def test_nobody_hears_everything(tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        for user in nats_server.PERMISSIONS:
            assert await what_is_not_refused(urls, user, "subscribe", [">", "tallystick.>", "_INBOX.>"]) == (
                ["_INBOX.>"] if user == "service" else []
            )


SUBJECTS = nats_server.subjects()


async def what_is_not_refused(
    urls: Nats, user: str, way: str, subjects: list[str] | None = None
) -> list[str]:
    refused: list[str] = []

    async def refuse(error: Exception) -> None:
        text = str(error).lower()
        assert "permissions violation" in text
        refused.append(text)

    client = await nats.connect(getattr(urls, user), error_cb=refuse)
    act: dict[str, Callable[[str], Awaitable[object]]] = {
        "publish": lambda subject: client.publish(subject, b"{}"),
        "subscribe": client.subscribe,
    }
    subjects = subjects or SUBJECTS
    for subject in subjects:
        await act[way](subject)
    # The server answers in order: when it has answered twice, it has judged everything before.
    await client.flush()
    await client.flush()
    await client.close()
    return [each for each in subjects if not any(f'"{each.lower()}"' in text for text in refused)]

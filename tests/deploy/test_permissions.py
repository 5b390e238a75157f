"""Who may do what on NATS: the table in the docs, and attacks by every user, tried on a server."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest

from deploy import nats_server
from deploy.nats_server import USERS
from shared.contracts import EVENTS_STREAM
from tests.conftest import Nats, start_nats
from tests.services.conftest import event_stream

__all__ = ["event_stream"]

ROOT = Path(__file__).parent.parent.parent
SUBJECTS = nats_server.subjects()


def test_the_docs_hold_the_table():
    page = (ROOT / "docs/permissions.md").read_text()
    assert nats_server.table() in page, (
        "run: python -m deploy.nats_server, and put it into docs/permissions.md"
    )


@pytest.mark.parametrize("user", USERS)
async def test_every_subject_and_every_user_as_the_table_says(user: str, tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        for way in ("publish", "subscribe"):
            allowed = await not_denied(urls, user, way)
            assert allowed == [each for each in SUBJECTS if nats_server.allows(USERS[user], way, each)], way


@pytest.mark.parametrize("user", USERS)
async def test_no_user_may_listen_to_everything_or_to_inboxes_of_others(user: str, tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        patterns = [">", "*.>", "tallystick.>", "_INBOX.>", "_INBOX.*.>", "$JS.>", "_R_.>"]
        others = [f"_INBOX.{other}.>" for other in USERS if other != user]
        assert await not_denied(urls, user, "subscribe", patterns + others) == []


async def not_denied(urls: Nats, user: str, way: str, subjects: list[str] | None = None) -> list[str]:
    denied: list[str] = []

    async def deny(error: Exception) -> None:
        text = str(error).lower()
        assert "permissions violation" in text
        denied.append(text)

    client = await nats.connect(urls.url(user), error_cb=deny)
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
    return [each for each in subjects if not any(f'"{each.lower()}"' in text for text in denied)]


async def test_a_person_may_look_at_the_stream_and_begin_a_new_one(nats_server: Nats, event_stream):
    """What `nats stream info`, `view` and `rm` ask of the server."""
    client = await nats.connect(nats_server.events_operator, inbox_prefix="_INBOX.events-operator")
    stream = client.jetstream()
    service = await nats.connect(nats_server.service, inbox_prefix="_INBOX.service")
    await service.jetstream().publish("tallystick.events.service.mail.sent", b"{}")
    await service.close()
    assert (await stream.stream_info(EVENTS_STREAM)).state.messages == 1
    view = await stream.subscribe("tallystick.events.service.>", ordered_consumer=True)
    assert (await view.next_msg(2)).data == b"{}"
    assert await stream.delete_stream(EVENTS_STREAM)
    await client.close()

"""Who may say what on the embedded NATS."""

from pathlib import Path

import nats

from shared import contracts as c
from tests.conftest import start_nats, until_async


async def test_another_service_may_ask_about_tokens_and_send_events_and_nothing_more(tmp_path: Path):
    async with start_nats(tmp_path / "nats") as urls:
        heard: list[str] = []
        refused: list[str] = []

        async def hear(message) -> None:
            heard.append(message.subject)

        async def refuse(error: Exception) -> None:
            refused.append(str(error).lower())

        watcher = await nats.connect(urls.watcher)
        await watcher.subscribe(">", cb=hear)
        await watcher.flush()
        service = await nats.connect(urls.service, error_cb=refuse)
        allowed = [c.VERIFY.subject, c.VERIFY_MANY.subject, "tallystick.events.thread.started"]
        denied = [
            c.CREATE_TOKEN.subject,
            c.TAKE_QUOTA.subject,
            c.REPORT_USE.subject,
            c.EXPOSITION.subject,
            "x",
        ]
        for subject in (*denied, *allowed):
            await service.publish(subject, b"{}")
        for subject in (c.VERIFY.subject, c.CREATE_TOKEN.subject, "_INBOX_edge.>", ">"):
            await service.subscribe(subject)
        await service.flush()
        await until_async(lambda: len(refused) == len(denied) + 4)
        await until_async(lambda: len(heard) == len(allowed))
        assert sorted(heard) == sorted(allowed)
        assert all("permissions violation" in text for text in refused)
        await service.close()
        await watcher.close()

import asyncio
from datetime import UTC, datetime, timedelta

from services.tokens.inventory import Inventory
from shared import postgres
from shared.lifecycle import ended_by_cancelling
from shared.measures import Measures
from tests.conftest import until_async
from tests.services.conftest import issue


async def test_tokens_are_counted_by_state_and_by_when_they_expire(tokens_service, operator, database):
    await issue(operator, "api")
    await issue(operator, "api", expires=datetime.now(UTC) + timedelta(days=3))
    measures = Measures()
    async with postgres.pool(database.tokens, schema="tokens", wait_s=5) as pool:
        keeping = asyncio.create_task(Inventory(pool, measures).keep())

        def shown() -> dict[str, float]:
            return {
                f"{gauge.name} {next(iter(gauge.labels.values()))}": gauge.value
                for gauge in measures.take().gauges
            }

        await until_async(lambda: shown()["tallystick_tokens active"] == 2)
        found = shown()
        await ended_by_cancelling(keeping)
    assert found["tallystick_tokens revoked"] == 0
    assert [found[f"tallystick_tokens_expiring {days}"] for days in (1, 7, 30)] == [0, 1, 1]

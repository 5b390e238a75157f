"""The outbox: announcements that were committed with the changes they tell of, numbered in the order of the commits."""

from collections.abc import Sequence

import msgspec

from tallystick.contracts.events import Event
from tallystick_server.runtime.postgres import Connection

SOURCE = "tokens"


async def lock(connection: Connection) -> bool:
    """Makes this transaction the only one that delivers; False if another one is."""
    locked: bool = await connection.fetchval(
        "select pg_try_advisory_xact_lock(hashtext('tallystick outbox'))"
    )
    return locked


async def oldest(connection: Connection, limit: int) -> Sequence[Event]:
    rows = await connection.fetch(
        "select boot, o.n, type, at, data from outbox o cross join outbox_number order by o.n limit $1", limit
    )
    return [
        Event(
            type=row["type"],
            source=SOURCE,
            boot=row["boot"],
            n=row["n"],
            time=row["at"],
            data=msgspec.json.decode(row["data"]),
        )
        for row in rows
    ]


async def delete_up_to(connection: Connection, n: int) -> None:
    await connection.execute("delete from outbox where n <= $1", n)

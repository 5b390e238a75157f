"""The schema of the metrics service's tables."""

from importlib.resources import files

from tallystick_server.runtime.postgres import Connection, Migration, migrate, migrations

SCHEMA = "metrics"


def available_migrations() -> list[Migration]:
    return migrations(files("tallystick_server.metrics") / "migrations")


async def bring_up_to_date(connection: Connection) -> list[Migration]:
    """Migrates this service's schema and answers what that applied."""
    return await migrate(connection, SCHEMA, available_migrations())

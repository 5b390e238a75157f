"""The schema of the tokens service's tables."""

from importlib.resources import files

from tallystick_server.runtime.postgres import Connection, Migration, migrate, migrations

SCHEMA = "tokens"


def available_migrations() -> list[Migration]:
    return migrations(files("tallystick_server.tokens") / "migrations")


async def bring_up_to_date(connection: Connection) -> list[Migration]:
    """Migrates this service's schema and returns the migrations that it applied."""
    return await migrate(connection, SCHEMA, available_migrations())

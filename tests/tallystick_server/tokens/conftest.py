import asyncpg
import pytest
from nats.aio.client import Client

from tests.support.servers import Database
from tests.tallystick_server.tokens.chains import Caller


@pytest.fixture
def caller(tokens_service: None, edge_client: Client, operator: Client) -> Caller:
    return Caller(edge_client, operator)


@pytest.fixture
async def connection(database: Database):
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "tokens"})
    yield connection
    await connection.close()

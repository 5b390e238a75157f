import pytest
from nats.aio.client import Client

from tests.services.tokens.chains import Caller


@pytest.fixture
def caller(tokens_service: None, edge_client: Client, operator: Client) -> Caller:
    return Caller(edge_client, operator)

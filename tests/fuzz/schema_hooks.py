"""Hooks of schemathesis: each request has its own token, since some requests revoke the token that they present."""

import os
from typing import Any

import schemathesis

from tests.fuzz.connection import Connection
from tests.support.services import issue


@schemathesis.auth(refresh_interval=None)
class FreshToken:
    """Creates tokens over NATS, so that no HTTP request can revoke the authority that creates them."""

    def __init__(self) -> None:
        self._connection = Connection(os.environ["FUZZED_NATS"])

    def get(self, case: Any, context: Any) -> str:
        del case, context
        value, _ = self._connection.run(issue(self._connection.client))
        return value

    def set(self, case: Any, data: str, context: Any) -> None:
        del context
        case.headers["Authorization"] = f"Bearer {data}"

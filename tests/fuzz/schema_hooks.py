"""Loaded by schemathesis: a token of its own for every request, since some requests end the token they bring."""

import os
from typing import Any

import schemathesis

from tests.fuzz.loop import Connection
from tests.support.services import issue


@schemathesis.auth(refresh_interval=None)
class FreshToken:
    """Made over NATS, so that nothing done over HTTP can end the authority it is made with."""

    def __init__(self) -> None:
        self._connection = Connection(os.environ["FUZZED_NATS"])

    def get(self, case: Any, context: Any) -> str:
        del case, context
        value, _ = self._connection.run(issue(self._connection.client))
        return value

    def set(self, case: Any, data: str, context: Any) -> None:
        del context
        case.headers["Authorization"] = f"Bearer {data}"

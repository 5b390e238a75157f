"""Asks the tokens service about a token, by its digest."""

from nats.aio.client import Client

from services.edge.credentials import Credential
from services.edge.errors import Refused
from shared import rpc
from shared.contracts import VERIFY, Failure, Token, VerifyToken
from shared.token_value import digest


class Checker:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def check(self, credential: Credential) -> Token:
        """The facts of the token a request brought.

        Raises:
            Refused: there is none, it is ambiguous, not valid, or this cannot be told now.
        """
        if credential.ambiguous:
            raise Refused("invalid_request")
        if credential.value is None:
            raise Refused("missing_token")
        of_token = digest(credential.value)
        if of_token is None:
            raise Refused("invalid_token")
        verdict = await rpc.call(self._client, VERIFY, VerifyToken(digest=of_token))
        if isinstance(verdict, Failure):
            raise Refused("unavailable")
        if verdict.code != "active" or verdict.token is None:
            raise Refused("invalid_token")
        return verdict.token

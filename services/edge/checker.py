"""Asks the tokens service about a token, by its digest, and about what is left of its rate limit."""

from nats.aio.client import Client

from services.edge.credentials import Credential
from services.edge.errors import Refused
from shared import rpc
from shared.contracts import TAKE_QUOTA, VERIFY, Failure, Quota, TakeQuota, Token, Verdict, VerifyToken
from shared.token_value import digest


class Checker:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def check(self, credential: Credential) -> Verdict:
        """The verdict on the token a request brought.

        Raises:
            Refused: there is none, it is ambiguous or malformed, or this cannot be told now.
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
        return verdict

    async def take(self, token: Token) -> Quota:
        """Uses up one request of a limited token.

        Raises:
            Refused: this cannot be told now, or the token has just ended.
        """
        quota = await rpc.call(self._client, TAKE_QUOTA, TakeQuota(id=token.id))
        if isinstance(quota, Failure):
            raise Refused("invalid_token" if quota.code == "not_found" else "unavailable")
        return quota

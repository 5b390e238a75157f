"""Tokens that call the tokens service over NATS as an edge does for them, for the tests of authority."""

from typing import Any, NamedTuple

from nats.aio.client import Client

from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.records import NewToken, Token
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    CreateToken,
    EditToken,
    RevokeToken,
    RotateToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tests.support.services import patient

OPERATOR = Actor(name="test")


class IssuedToken(NamedTuple):
    """A token and the digest of its secret."""

    id: str
    digest: str
    token: Token

    @property
    def actor(self) -> Actor:
        return Actor(token=self.digest)


class Caller:
    """Calls the tokens service on behalf of tokens, or as the operator if none is named."""

    def __init__(self, edge: Client, operator: Client) -> None:
        self._edge = edge
        self._operator = operator

    async def call(
        self, operation: Operation[Any, Any], kind: type, by: IssuedToken | Actor | None = None, **fields: Any
    ) -> Any:
        """The reply, or the failure."""
        if by is None:
            return await call(self._operator, operation.by_operator, kind(actor=OPERATOR, **fields))
        actor = by.actor if isinstance(by, IssuedToken) else by
        return await call(self._edge, operation, kind(actor=actor, **fields))

    async def call_until_available(self, operation: Operation[Any, Any], kind: type, **fields: Any) -> Any:
        """The reply to the operator, who retries while a busy service cannot reply in time."""
        while True:
            reply = await self.call(patient(operation), kind, **fields)
            if not (isinstance(reply, Failure) and reply.code == "unavailable"):
                return reply

    async def create(self, *scopes: str, by: IssuedToken | None = None, **fields: Any) -> Any:
        """The created token, or the failure's code."""
        secret = token_format.new_secret()
        new_token = NewToken(scopes=scopes or ("*",), **fields)
        reply = await self.call(
            CREATE_TOKEN, CreateToken, by, token=new_token, digest=secret.digest, hint=secret.hint
        )
        return _issued(reply, secret.digest)

    async def rotate(self, token: IssuedToken, *, by: IssuedToken | None = None, grace: int = 3600) -> Any:
        """The successor, or the failure's code."""
        secret = token_format.new_secret()
        reply = await self.call(
            ROTATE_TOKEN,
            RotateToken,
            by,
            id=token.id,
            grace=grace,
            digest=secret.digest,
            hint=secret.hint,
        )
        return _issued(reply, secret.digest)

    async def edit(self, token: IssuedToken, *, by: IssuedToken | None = None, **changes: Any) -> Any:
        """The edited token, or the failure's code."""
        reply = await self.call(EDIT_TOKEN, EditToken, by, id=token.id, changes=TokenUpdate(**changes))
        return reply.code if isinstance(reply, Failure) else reply

    async def revoke(self, token: IssuedToken, *, by: IssuedToken | None = None, **options: Any) -> Any:
        """The result of the revocation, or the failure's code."""
        reply = await self.call(REVOKE_TOKEN, RevokeToken, by, id=token.id, **options)
        return reply.code if isinstance(reply, Failure) else reply

    async def valid(self, *tokens: IssuedToken) -> list[bool]:
        """Whether each token is valid now."""
        valid: list[bool] = []
        for token in tokens:
            verdict: Any = await call(self._edge, VERIFY, VerifyToken(digest=token.digest))
            valid.append(verdict.code == "active")
        return valid


def _issued(reply: Any, digest: str) -> Any:
    return reply.code if isinstance(reply, Failure) else IssuedToken(reply.token.id, digest, reply.token)

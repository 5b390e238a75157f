"""The dashboard's sessions and sign-in links, and the tokens that they lead to."""

from tallystick_server.runtime.postgres import Pool


class Sessions:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def digest_of(self, session: str) -> str | None:
        """The digest of the token that a session acts for; None if there is no such session."""
        digest: bytes | None = await self._pool.fetchval(
            "select token.digest from session join token on token.id = session.token"
            " where session.digest = $1 and session.expires > now()",
            bytes.fromhex(session),
        )
        return digest.hex() if digest else None

    async def digest_of_link(self, link: str) -> str | None:
        """The digest of the token that a link signs in as; None if there is no such link."""
        digest: bytes | None = await self._pool.fetchval(
            "select token.digest from sign_in_link join token on token.id = sign_in_link.token"
            " where sign_in_link.digest = $1 and sign_in_link.expires > now()",
            bytes.fromhex(link),
        )
        return digest.hex() if digest else None

    async def end(self, session: str) -> None:
        await self._pool.execute("delete from session where digest = $1", bytes.fromhex(session))

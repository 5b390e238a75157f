"""The dashboard's sessions. A session is a secret that only the browser holds, and acts for a token: whoever asks
about it is answered with what that token is at that moment, so that it ends with it, everywhere at once.
"""

from services.tokens import rows
from services.tokens.store import Store
from shared import contracts as c
from shared.contracts import Actor, Failure, Verdict
from shared.postgres import Connection, Pool
from shared.rpc import Handlers

LASTS = "12 hours"
MOST = 20
"""Sessions that one token may have; a further one ends the oldest."""


class Sessions:
    def __init__(self, pool: Pool, store: Store) -> None:
        self._pool = pool
        self._store = store

    def all(self) -> Handlers:
        return {
            c.SIGN_IN: self.sign_in,
            c.RESUME_SESSION: self.resume,
            c.SIGN_OUT: self.sign_out,
            c.MAKE_SIGN_IN_LINK: self.make_link,
        }

    async def sign_in(self, request: c.SignIn) -> Verdict:
        async with self._pool.acquire(timeout=0.5) as connection, connection.transaction():
            digest = request.token
            if request.link is not None:
                digest = await _follow(connection, request.link)
            began = digest is not None and await _begin(connection, request.session, digest, request.actor)
        return await self._store.verdict(digest) if began and digest else Verdict(code="invalid_token")

    async def resume(self, request: c.ResumeSession) -> Verdict:
        digest: bytes | None = await self._pool.fetchval(
            "select token.digest from session join token on token.id = session.token"
            " where session.digest = $1 and session.expires > now()",
            bytes.fromhex(request.session),
        )
        return await self._store.verdict(digest.hex()) if digest else Verdict(code="invalid_token")

    async def sign_out(self, request: c.SignOut) -> c.Taken:
        await self._pool.execute("delete from session where digest = $1", bytes.fromhex(request.session))
        return c.Taken()

    async def make_link(self, request: c.MakeSignInLink) -> c.Taken | Failure:
        async with self._pool.acquire(timeout=0.5) as connection, connection.transaction():
            await connection.execute("delete from sign_in_link where expires <= now()")
            made = await connection.fetchval(
                f"""
                insert into sign_in_link (digest, token, expires)
                select $1, id, now() + make_interval(secs => $3) from token where id = $2 and {rows.ACTIVE}
                returning true
                """,  # noqa: S608  # a constant
                bytes.fromhex(request.link),
                request.id,
                float(request.seconds),
            )
            if not made:
                return Failure(code="not_found", message="there is no such token, or it is not honoured now")
            await _audit(connection, request.id, "session.link_made", request.actor)
        return c.Taken()


async def _follow(connection: Connection, link: str) -> str | None:
    """Uses up a link; answers the digest of its token."""
    digest: bytes | None = await connection.fetchval(
        "delete from sign_in_link using token where sign_in_link.digest = $1 and sign_in_link.expires > now()"
        " and token.id = sign_in_link.token returning token.digest",
        bytes.fromhex(link),
    )
    return digest.hex() if digest else None


async def _begin(connection: Connection, session: str, token: str, actor: Actor) -> bool:
    """Whether there is a session now: not for a token that is not honoured."""
    found: str | None = await connection.fetchval(
        f"select id from token where digest = $1 and {rows.ACTIVE}",  # noqa: S608  # a constant
        bytes.fromhex(token),
    )
    if found is None:
        return False
    await connection.execute(
        "delete from session where expires <= now() or digest in"
        " (select digest from session where token = $1 order by created desc offset $2)",
        found,
        MOST - 1,
    )
    await connection.execute(
        f"insert into session (digest, token, expires) values ($1, $2, now() + interval '{LASTS}')",  # noqa: S608
        bytes.fromhex(session),
        found,
    )
    await _audit(connection, found, "session.started", actor)
    return True


async def _audit(connection: Connection, token: str, action: str, actor: Actor) -> None:
    await connection.execute(
        "insert into audit (token, action, actor, actor_token, address, request_id) values ($1, $2, $3, $4, $5, $6)",
        token,
        action,
        actor.name,
        actor.token,
        actor.address,
        actor.request_id,
    )

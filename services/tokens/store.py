"""The tokens service's storage: every SQL statement it runs. A change, its audit row and what is to be
announced about it are one transaction.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import asyncpg
import msgspec

from services.tokens.rules import canonical
from shared.contracts import (
    Access,
    Account,
    AccountAdded,
    AccountDeletedEvent,
    Actor,
    ListAccounts,
    ListTokens,
    Restrictions,
    Token,
    TokenChanged,
    Verdict,
)
from shared.postgres import Connection, Migration, Pool, migrate, migrations
from shared.token_record import TokenRecord

SCHEMA = "tokens"


def wanted_migrations() -> list[Migration]:
    return migrations(files("services.tokens") / "migrations")


async def bring_up_to_date(connection: Connection) -> list[Migration]:
    """Migrates this service's schema and answers what that applied."""
    return await migrate(connection, SCHEMA, wanted_migrations())


class AlreadyExists(Exception):
    """A token with this digest or id exists already, revoked ones included."""


class NoSuchAccount(Exception):
    """The account a token should be bound to does not exist."""


class Transaction:
    """The changes one request makes; all of them happen or none."""

    def __init__(self, connection: Connection, actor: Actor) -> None:
        self._connection = connection
        self._actor = actor

    async def is_first(self) -> bool:
        """Whether there never was a token; nobody else can make one until this transaction ends."""
        await self._connection.execute("lock table token in share row exclusive mode")
        return not await self._connection.fetchval("select exists (select from token)")

    async def insert(self, record: TokenRecord) -> Token:
        """Adds a token.

        Raises:
            AlreadyExists: its digest or id is taken.
            NoSuchAccount: it names an account that does not exist.
        """
        token = record.token
        # Locked, so that the account cannot be deleted between the look and the commit.
        if token.account is not None and not await self._connection.fetchval(
            "select true from account where account = $1 for share", token.account
        ):
            raise NoSuchAccount
        row = await self._connection.fetchrow(
            """
            insert into token (id, digest, hint, description, scopes, account, metadata, restrictions, not_before,
                expires, disabled, created, created_by)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, coalesce($12, now()), $13)
            on conflict do nothing
            returning *
            """,
            record.id,
            bytes.fromhex(record.digest),
            record.hint,
            token.description,
            list(dict.fromkeys(token.scopes)),
            token.account,
            _json(token.metadata),
            _json(canonical(token.restrictions)),
            token.not_before,
            token.expires,
            record.disabled,
            record.created,
            self._actor.name,
        )
        if row is None:
            raise AlreadyExists
        await self._record("token.created", record.id)
        return _token(row)

    async def revoke(self, *, id: str | None = None, digest: str | None = None) -> bool:  # noqa: A002  # the field's name
        """Revokes a token for good and answers whether there was one; twice is the same as once."""
        row = await self._connection.fetchrow(
            "select id, revoked from token where id = $1 or digest = $2 for update",
            id,
            bytes.fromhex(digest) if digest else None,
        )
        if row is None:
            return False
        if row["revoked"] is None:
            await self._connection.execute(
                "update token set revoked = now(), rev = rev + 1 where id = $1", row["id"]
            )
            await self._record("token.revoked", row["id"])
        return True

    async def add_account(self, account: str, name: str) -> tuple[Account, bool]:
        """The account, and whether it is new."""
        row = await self._connection.fetchrow(
            "insert into account (account, name) values ($1, $2) on conflict do nothing returning *",
            account,
            name,
        )
        if row is None:
            row = await self._connection.fetchrow("select * from account where account = $1", account)
            if row is None:  # deleted in between
                return await self.add_account(account, name)
            return _account(row), False
        await self._audit("account.added", details={"account": account})
        await self._announce("account.added", AccountAdded(account=account))
        return _account(row), True

    async def delete_account(self, account: str) -> int | None:
        """Deletes an account, revokes its tokens and answers how many those were; None if there is none."""
        if not await self._connection.fetchval(
            "delete from account where account = $1 returning true", account
        ):
            return None
        rows = await self._connection.fetch(
            "update token set revoked = now(), rev = rev + 1 where account = $1 and revoked is null returning id",
            account,
        )
        await self._audit("account.deleted", details={"account": account, "tokens": len(rows)})
        for row in rows:
            await self._record("token.revoked", row["id"])
        await self._announce("account.deleted", AccountDeletedEvent(account=account))
        return len(rows)

    async def _record(self, action: str, token: str) -> None:
        await self._audit(action, token)
        await self._announce(action, TokenChanged(id=token))

    async def _audit(
        self, action: str, token: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        await self._connection.execute(
            "insert into audit (token, action, actor, actor_token, address, request_id, details)"
            " values ($1, $2, $3, $4, $5, $6, $7)",
            token,
            action,
            self._actor.name,
            self._actor.token,
            self._actor.address,
            self._actor.request_id,
            _json(details),
        )

    async def _announce(self, kind: str, data: msgspec.Struct) -> None:
        await self._connection.execute(
            "with number as (update outbox_number set n = n + 1 returning n)"
            " insert into outbox (n, type, at, data) select n, $1, now(), $2 from number",
            kind,
            _json(data),
        )


class Store:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def change(self, actor: Actor) -> AsyncIterator[Transaction]:
        async with self._pool.acquire(timeout=0.5) as connection, connection.transaction():
            yield Transaction(connection, actor)

    async def verdict(self, digest: str) -> Verdict:
        """Whether the token with this digest is honoured now, by PostgreSQL's clock."""
        row = await self._pool.fetchrow(
            """
            select *, extract(epoch from expires - now())::float8 as expires_in from token
            where digest = $1 and revoked is null and not disabled
                and (not_before is null or not_before <= now()) and (expires is null or expires > now())
            """,
            bytes.fromhex(digest),
        )
        if row is None:
            return Verdict(code="invalid_token")
        return Verdict(code="active", token=_token(row), expires_in=row["expires_in"], rev=row["rev"])

    async def get(self, id: str) -> Token | None:  # noqa: A002  # the field's name
        row = await self._pool.fetchrow("select * from token where id = $1 and revoked is null", id)
        return _token(row) if row else None

    async def list(self, wanted: ListTokens) -> tuple[int, Sequence[Token]]:
        """How many tokens match, and one page of them, newest first."""
        condition = """
            revoked is null and ($1::text is null or account = $1)
            and ($2::text is null or id ilike $2 or description ilike $2 or account ilike $2)
        """
        query = None if wanted.query is None else f"%{_escape_like(wanted.query)}%"
        total = await self._pool.fetchval(
            f"select count(*) from token where {condition}",  # noqa: S608  # a constant
            wanted.account,
            query,
        )
        rows = await self._pool.fetch(
            f"select * from token where {condition} order by id desc limit $3 offset $4",  # noqa: S608
            wanted.account,
            query,
            wanted.page_size,
            wanted.page * wanted.page_size,
        )
        return total, [_token(row) for row in rows]

    async def account(self, account: str) -> Account | None:
        row = await self._pool.fetchrow("select * from account where account = $1", account)
        return _account(row) if row else None

    async def accounts(self, wanted: ListAccounts) -> tuple[int, Sequence[Account]]:
        total = await self._pool.fetchval("select count(*) from account")
        rows = await self._pool.fetch(
            "select * from account order by account limit $1 offset $2",
            wanted.page_size,
            wanted.page * wanted.page_size,
        )
        return total, [_account(row) for row in rows]

    async def count_accounts(self) -> int:
        count: int = await self._pool.fetchval("select count(*) from account")
        return count

    async def version(self) -> str:
        version: str = await self._pool.fetchval("select current_setting('server_version')")
        return version


def _token(row: asyncpg.Record) -> Token:
    return Token(
        id=row["id"],
        description=row["description"],
        scopes=tuple(row["scopes"]),
        account=row["account"],
        metadata=msgspec.json.decode(row["metadata"]) if row["metadata"] else None,
        restrictions=msgspec.json.decode(row["restrictions"], type=Restrictions),
        not_before=row["not_before"],
        expires=row["expires"],
        disabled=row["disabled"],
        hint=row["hint"],
        created=row["created"],
        created_by=row["created_by"],
        rotated_to=row["rotated_to"],
        access=Access(time=row["last_used"], ip=row["last_ip"]),
    )


def _account(row: asyncpg.Record) -> Account:
    return Account(account=row["account"], name=row["name"], created=row["created"])


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")

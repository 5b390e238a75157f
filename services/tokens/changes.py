"""Everything that changes tokens and accounts: the change, its audit row, what is announced about it and what is
answered again to the same Idempotency-Key are one transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
import msgspec

from services.tokens import rows
from services.tokens.rules import canonical
from shared.contracts import (
    Account,
    AccountAdded,
    AccountDeletedEvent,
    Actor,
    Changed,
    NewToken,
    Token,
    TokenChanged,
)
from shared.postgres import Connection
from shared.token_record import TokenRecord


class AlreadyExists(Exception):
    """A token with this digest or id exists already, revoked ones included."""


class NoSuchAccount(Exception):
    """The account a token should be bound to does not exist."""


class KeyReused(Exception):
    """An Idempotency-Key came again with another request."""


class StoredToken(NamedTuple):
    id: str
    revoked: bool


class Transaction:
    """The changes one request makes; all of them happen or none."""

    def __init__(self, connection: Connection, actor: Actor) -> None:
        self._connection = connection
        self._actor = actor
        self.changed: list[Changed] = []
        """What the edges have to forget once this is committed."""

    async def replay(self, operation: str, key: str, request: bytes) -> str | None:
        """What was answered to this key before, as JSON; None the first time. A request with the same key that
        is under way elsewhere is waited for.

        Raises:
            KeyReused: that was another request.
        """
        await self._connection.execute("delete from idempotency where at < now() - interval '24 hours'")
        actor = self._actor.token or self._actor.name
        if await self._connection.fetchval(
            "insert into idempotency (actor, operation, key, request) values ($1, $2, $3, $4)"
            " on conflict do nothing returning true",
            actor,
            operation,
            key,
            request,
        ):
            return None
        row = await self._connection.fetchrow(
            "select request, reply from idempotency where actor = $1 and operation = $2 and key = $3",
            actor,
            operation,
            key,
        )
        if row is None or row["request"] != request:
            raise KeyReused
        reply: str = row["reply"]
        return reply

    async def remember(self, operation: str, key: str, reply: msgspec.Struct) -> None:
        await self._connection.execute(
            "update idempotency set reply = $4 where actor = $1 and operation = $2 and key = $3",
            self._actor.token or self._actor.name,
            operation,
            key,
            rows.json(reply),
        )

    async def maker(self) -> Token | None:
        """The token on whose authority this happens, kept as it is until the end; None if it is not honoured."""
        row = await self._connection.fetchrow(
            f"select * from token where id = $1 and {rows.ACTIVE} for share",  # noqa: S608  # a constant
            self._actor.token,
        )
        return rows.token(row) if row else None

    async def is_first(self) -> bool:
        """Whether there never was a token; nobody else can make one until this transaction ends."""
        await self._connection.execute("lock table token in share row exclusive mode")
        return not await self._connection.fetchval("select exists (select from token)")

    async def stored(self, digests: Sequence[str]) -> Mapping[str, StoredToken]:
        """The tokens with these digests, by digest, revoked ones included."""
        found = await self._connection.fetch(
            "select id, digest, revoked is not null as revoked from token where digest = any($1)",
            [bytes.fromhex(digest) for digest in digests],
        )
        return {row["digest"].hex(): StoredToken(row["id"], row["revoked"]) for row in found}

    async def is_taken(self, record: TokenRecord) -> bool:
        """Whether a token has this record's digest or id."""
        return bool(
            await self._connection.fetchval(
                "select exists (select from token where id = $1 or digest = $2)",
                record.id,
                bytes.fromhex(record.digest),
            )
        )

    async def insert(self, record: TokenRecord, *, limited_by: str | None = None) -> Token:
        """Adds a token.

        Args:
            record: what to add.
            limited_by: the id of a token whose rate limit it shares; None for one of its own.

        Raises:
            AlreadyExists: its digest or id is taken.
            NoSuchAccount: it names an account that does not exist.
        """
        # Locked, so that the account cannot be deleted between the look and the commit.
        if record.token.account is not None and not await self._connection.fetchval(
            "select true from account where account = $1 for share", record.token.account
        ):
            raise NoSuchAccount
        added = await self._add(record, limited_by=limited_by)
        await self._record("token.created", [added.id])
        return added

    async def token(self, id: str) -> Token | None:  # noqa: A002  # the field's name
        """A token that is not revoked, kept as it is until the end."""
        row = await self._connection.fetchrow(
            "select * from token where id = $1 and revoked is null for update", id
        )
        return rows.token(row) if row else None

    async def update(self, id: str, wanted: NewToken, *, disabled: bool) -> Token:  # noqa: A002
        row = await self._connection.fetchrow(
            """
            update token set description = $2, scopes = $3, metadata = $4, restrictions = $5, not_before = $6,
                expires = $7, disabled = $8, rev = rev + 1
            where id = $1 returning *
            """,
            id,
            wanted.description,
            list(dict.fromkeys(wanted.scopes)),
            rows.json(wanted.metadata),
            rows.json(canonical(wanted.restrictions)),
            wanted.not_before,
            wanted.expires,
            disabled,
        )
        await self._record("token.updated", [id])
        return rows.token(_one(row))

    async def rotate(self, old: Token, new: TokenRecord, grace_s: int) -> Token:
        """Adds the successor, which shares the old one's limit, and lets the old one end with the grace period
        or its own expiry, whichever is first.
        """
        added = await self._add(new, limited_by=old.id)
        await self._connection.execute(
            "update token set rotated_to = $2, rev = rev + 1,"
            " expires = least(expires, now() + make_interval(secs => $3)) where id = $1",
            old.id,
            added.id,
            float(grace_s),
        )
        await self._record("token.rotated", [old.id], {"to": added.id, "grace": grace_s})
        await self._record("token.created", [added.id])
        return added

    async def revoke(self, *, id: str | None = None, digest: str | None = None) -> bool:  # noqa: A002
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
            await self._record("token.revoked", [row["id"]])
        await self._revoke_rotated_to(row["id"])
        return True

    async def _revoke_rotated_to(self, successor: str) -> None:
        """Who revokes a token means those too that it replaced and that still work for their grace."""
        replaced = [successor]
        while replaced:
            found = await self._connection.fetch(
                "update token set revoked = now(), rev = rev + 1 where rotated_to = any($1) and revoked is null"
                " and expires > now() returning id",
                replaced,
            )
            replaced = [row["id"] for row in found]
            if replaced:
                await self._record("token.revoked", replaced)

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
            return rows.account(row), False
        await self._audit("account.added", [None], {"account": account})
        await self._announce("account.added", [AccountAdded(account=account)])
        return rows.account(row), True

    async def delete_account(self, account: str) -> int | None:
        """Deletes an account, revokes its tokens and answers how many those were; None if there is none."""
        if not await self._connection.fetchval(
            "delete from account where account = $1 returning true", account
        ):
            return None
        revoked = await self.revoke_all(account)
        await self._audit("account.deleted", [None], {"account": account, "tokens": revoked})
        await self._announce("account.deleted", [AccountDeletedEvent(account=account)])
        return revoked

    async def revoke_all(self, account: str) -> int:
        """Revokes every token bound to an account and answers how many those were."""
        revoked = await self._connection.fetch(
            "update token set revoked = now(), rev = rev + 1 where account = $1 and revoked is null returning id",
            account,
        )
        await self._record("token.revoked", [row["id"] for row in revoked])
        return len(revoked)

    async def _add(self, record: TokenRecord, *, limited_by: str | None) -> Token:
        wanted = record.token
        row = await self._connection.fetchrow(
            """
            insert into token (id, digest, hint, description, scopes, account, metadata, restrictions, not_before,
                expires, disabled, created, created_by, family)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, coalesce($12, now()), $13,
                coalesce((select family from token where id = $14), $1))
            on conflict do nothing
            returning *
            """,
            record.id,
            bytes.fromhex(record.digest),
            record.hint,
            wanted.description,
            list(dict.fromkeys(wanted.scopes)),
            wanted.account,
            rows.json(wanted.metadata),
            rows.json(canonical(wanted.restrictions)),
            wanted.not_before,
            wanted.expires,
            record.disabled,
            record.created,
            self._actor.name,
            limited_by,
        )
        if row is None:
            raise AlreadyExists
        return rows.token(row)

    async def _record(
        self, action: str, tokens: Sequence[str], details: dict[str, Any] | None = None
    ) -> None:
        """The same happened to all these tokens."""
        await self._audit(action, tokens, details)
        await self._number(tokens)
        await self._announce(action, [TokenChanged(id=token) for token in tokens])

    async def _audit(
        self, action: str, tokens: Sequence[str | None], details: dict[str, Any] | None = None
    ) -> None:
        await self._connection.execute(
            "insert into audit (token, action, actor, actor_token, address, request_id, details)"
            " select unnest($1::text[]), $2, $3, $4, $5, $6, $7",
            tokens,
            action,
            self._actor.name,
            self._actor.token,
            self._actor.address,
            self._actor.request_id,
            rows.json(details),
        )

    async def _number(self, tokens: Sequence[str]) -> None:
        """Gives each changed token the next place among all changes."""
        numbered = await self._connection.fetch(
            """
            with number as (
                update change_number set seq = seq + cardinality($1::text[]) returning seq
            ), changed as (
                select digest, rev, row_number() over (order by id) as place from token where id = any($1)
            )
            insert into change (seq, digest, rev)
            select number.seq - cardinality($1) + place, digest, rev from number, changed
            returning seq, digest, rev
            """,
            tokens,
        )
        self.changed += [
            Changed(seq=row["seq"], digest=row["digest"].hex(), rev=row["rev"]) for row in numbered
        ]

    async def _announce(self, kind: str, events: Sequence[msgspec.Struct]) -> None:
        await self._connection.execute(
            """
            with number as (update outbox_number set n = n + cardinality($2::jsonb[]) returning n)
            insert into outbox (n, type, at, data)
            select number.n - cardinality($2) + place, $1, now(), data
            from number, unnest($2::jsonb[]) with ordinality as event (data, place)
            """,
            kind,
            [rows.json(event) for event in events],
        )


def _one(row: asyncpg.Record | None) -> asyncpg.Record:
    if row is None:
        raise RuntimeError("a row that is locked is gone")
    return row

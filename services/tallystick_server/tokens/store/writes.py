"""Changes of tokens and accounts. A change, its audit rows, its events and the stored reply of its Idempotency-Key are one
transaction.

Locks are taken in one order, so that no two changes deadlock: the idempotency key, the account, the chains, the session,
the numbers of changes and events. A chain is locked by the row of its first token. Changing a token, or counting its uses,
locks its chain for update; acting with a token locks its chain at least for share. Locked rows are read again, in a
statement that begins after the lock was granted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tallystick.coherence.notices import notice_key
from tallystick.contracts.events import AccountAdded, AccountDeletedEvent, TokenChanged
from tallystick.contracts.operation import Actor
from tallystick.contracts.propagation import TokenChange
from tallystick.contracts.records import Account, NewToken, Token
from tallystick.tokens.record import TokenRecord
from tallystick.tokens.rules import canonical
from tallystick_server.runtime.postgres import Connection
from tallystick_server.tokens.authority import Authority
from tallystick_server.tokens.store import rows
from tallystick_server.tokens.store.rows import StoredToken

DESCENDANTS_S = 4.0
"""Timeout of a search for descendants, in seconds."""
SESSION_LASTS = "12 hours"
MAX_SESSIONS = 20
"""Maximum number of sessions of a token; a further one ends the oldest."""


class AlreadyExists(Exception):
    """A token with this digest or id exists already, revoked ones included."""


class NoSuchAccount(Exception):
    """The account of a new token does not exist."""


class KeyReused(Exception):
    """An Idempotency-Key was reused with a different request."""


class KnownToken(NamedTuple):
    id: str
    revoked: bool


class Transaction:
    """The changes of one request: all of them happen or none.

    Args:
        connection: the connection, with a transaction begun.
        actor: the actor on whose behalf it runs.
    """

    def __init__(self, connection: Connection, actor: Actor) -> None:
        self._connection = connection
        self._actor = actor
        self._authority: Authority | None = None
        self._numbered: dict[str, None] = {}
        self._announced: list[tuple[str, msgspec.Struct]] = []
        self.changed: list[TokenChange] = []
        """The changes to announce to the edges after the commit."""

    @property
    def authority(self) -> Authority:
        if self._authority is None:
            raise RuntimeError("no actor was authenticated")
        return self._authority

    # Who acts

    async def authenticate(self) -> Authority:
        """Authenticates the actor, without a lock: `lock` does it again.

        Raises:
            Rejected: the actor's credential is not valid.
        """
        self._authority = Authority(self._actor, await holder(self._connection, self._actor))
        return self._authority

    async def lock(self, *chains: str) -> Authority:
        """Locks chains for a change, and the chain of the acting token, so that it cannot change until the end.

        Raises:
            Rejected: the actor's credential is not valid any more.
        """
        acting = self.authority.holder
        targets = sorted({*chains})
        if acting is None or acting.chain in targets:
            await self._lock_for_update(targets)
        else:
            await self._lock_for_update([chain for chain in targets if chain < acting.chain])
            await self._connection.execute("select from token where id = $1 for share", acting.chain)
            await self._lock_for_update([chain for chain in targets if chain > acting.chain])
        if acting is None:
            return self.authority
        self._authority = Authority(self._actor, await holder(self._connection, self._actor, lock=True))
        return self._authority

    async def _lock_for_update(self, chains: Sequence[str]) -> None:
        if chains:
            # Not the strongest lock, which would block transactions whose rows only refer to this one.
            await self._connection.execute(
                "select from token where id = any($1) order by id for no key update", chains
            )

    # Idempotency

    async def replay(self, operation: str, key: str, request: bytes) -> str | None:
        """The stored reply to this key, as JSON; None the first time. Waits for a concurrent request with the same key.

        Raises:
            KeyReused: the key belongs to a different request.
        """
        if await self._connection.fetchval(
            """
            insert into idempotency (actor, operation, key, request) values ($1, $2, $3, $4)
            on conflict (actor, operation, key) do update set request = excluded.request, reply = null, at = now()
                where idempotency.at < now() - interval '24 hours'
            returning true
            """,
            self.authority.name,
            operation,
            key,
            request,
        ):
            return None
        row = await self._connection.fetchrow(
            "select request, reply from idempotency where actor = $1 and operation = $2 and key = $3",
            self.authority.name,
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
            self.authority.name,
            operation,
            key,
            rows.json(reply),
        )

    # Reading

    async def find(self, *, id: str | None = None, digest: str | None = None) -> StoredToken | None:  # noqa: A002
        """Reads a token, revoked or not, without a lock. Its chain and account never change."""
        row = await self._connection.fetchrow(
            f"select {rows.STORED_COLUMNS} from token where id = $1 or digest = $2",  # a constant
            id,
            bytes.fromhex(digest) if digest else None,
        )
        return rows.stored(row) if row else None

    async def find_by_key(self, key: str) -> StoredToken | None:
        """The same by the SHA-256 of the token's digest."""
        row = await self._connection.fetchrow(
            f"select {rows.STORED_COLUMNS} from token where sha256(digest) = $1",  # a constant
            bytes.fromhex(key),
        )
        return rows.stored(row) if row else None

    async def chain(self, chain: str) -> Sequence[StoredToken]:
        """The tokens of a chain, oldest first."""
        records = await self._connection.fetch(
            f"select {rows.STORED_COLUMNS} from token where chain = $1",  # a constant
            chain,
        )
        members = {row["id"]: rows.stored(row) for row in records}
        ordered: list[StoredToken] = []
        following: str | None = chain
        while following is not None:
            ordered.append(members[following])
            following = members[following].token.rotated_to
        return ordered

    async def chains_of_account(self, account: str) -> Sequence[str]:
        """The chains of an account's tokens. With the account locked, none is added."""
        records = await self._connection.fetch(
            "select distinct chain from token where account = $1 and revoked is null", account
        )
        return [row["chain"] for row in records]

    async def members(self, chains: Sequence[str]) -> Sequence[StoredToken]:
        """The tokens of some chains."""
        records = await self._connection.fetch(
            f"select {rows.STORED_COLUMNS} from token where chain = any($1) order by id",  # a constant
            chains,
            timeout=DESCENDANTS_S,
        )
        return [rows.stored(row) for row in records]

    async def descendants(self, creators: Sequence[str], within: Sequence[str]) -> Sequence[str]:
        """The chains of all tokens that some tokens created, directly or indirectly.

        Args:
            creators: the ids of these tokens.
            within: the chains they belong to, which are left out.
        """
        records = await self._connection.fetch(
            f"{_DESCENDANTS} select chain from descendant",  # a constant
            creators,
            within,
            timeout=DESCENDANTS_S,
        )
        return [row["chain"] for row in records]

    async def lock_descendants(self, chain: str) -> None:
        """Locks a chain and those of all its descendants. None is added later: creating a token with one of them
        waits for the lock.

        Raises:
            Rejected: the actor's credential is not valid any more.
        """
        descendants: set[str] = set()
        while True:
            # Locks are taken in order, so a longer list must start without any lock.
            await self._connection.execute("savepoint locks")
            await self.lock(chain, *descendants)
            members = [member.token.id for member in await self.chain(chain)]
            current = set(await self.descendants(members, [chain]))
            if current <= descendants:
                await self._connection.execute("release savepoint locks")
                return
            descendants |= current
            await self._connection.execute("rollback to savepoint locks")

    async def count_living_descendants(self, creators: Sequence[str], within: Sequence[str]) -> int:
        """The number of living tokens that some tokens created, directly or indirectly.

        Args:
            creators: the ids of these tokens.
            within: the chains they belong to, which are left out.
        """
        count: int = await self._connection.fetchval(
            f"{_DESCENDANTS} select count(*) from descendant join token using (chain) where {rows.LIVING}",
            creators,
            within,
            timeout=DESCENDANTS_S,
        )
        return count

    async def count_created(self, chain: str, limit: int) -> int:
        """The number of living tokens that the tokens of a chain created, counted up to a limit."""
        count: int = await self._connection.fetchval(
            f"""
            select count(*) from (
                select from token where created_by in (select id from token where chain = $1) and {rows.LIVING} limit $2
            ) as created
            """,  # a constant
            chain,
            limit,
        )
        return count

    async def is_first(self) -> bool:
        """Whether no token was ever created. No other transaction can create one until this one ends."""
        await self._connection.execute("lock table token in share row exclusive mode")
        return not await self._connection.fetchval("select exists (select from token)")

    async def find_by_digests(self, digests: Sequence[str]) -> Mapping[str, KnownToken]:
        """The tokens with these digests, by digest, revoked ones included."""
        records = await self._connection.fetch(
            "select id, digest, revoked is not null as revoked from token where digest = any($1)",
            [bytes.fromhex(digest) for digest in digests],
        )
        return {row["digest"].hex(): KnownToken(row["id"], row["revoked"]) for row in records}

    async def existing_ids(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids exist."""
        return {
            row["id"] for row in await self._connection.fetch("select id from token where id = any($1)", ids)
        }

    # Tokens

    async def insert(
        self, record: TokenRecord, *, limited_by: StoredToken | None = None, imported: bool = False
    ) -> Token:
        """Adds a token. Its account must be locked.

        Args:
            record: the token.
            limited_by: the token whose rate limit it shares; None for a separate limit.
            imported: whether it was imported.

        Raises:
            AlreadyExists: its digest or id exists.
        """
        added = await self._add(
            record,
            chain=record.id,
            family=limited_by.family if limited_by else record.id,
            imported=imported,
            disabled_with=None,
        )
        await self._record("token.created", [added.id], _created(added))
        return added

    async def update(self, before: Token, after: NewToken) -> None:
        """Changes a token's fields."""
        await self._connection.execute(
            """
            update token set description = $2, scopes = $3, metadata = $4, restrictions = $5, not_before = $6,
                expires = $7, rev = rev + 1
            where id = $1
            """,
            before.id,
            after.description,
            list(dict.fromkeys(after.scopes)),
            rows.json(after.metadata),
            rows.json(canonical(after.restrictions)),
            after.not_before,
            after.expires,
        )
        await self._record("token.updated", [before.id], _difference(rows.as_new_token(before), after))

    async def disable(self, ids: Sequence[str], number: int | None) -> None:
        """Disables tokens together.

        Args:
            ids: the tokens.
            number: the number of the disable that they join; None for a new one.
        """
        if number is None:
            number = await self._connection.fetchval("select nextval('disable_number')")
        await self._connection.execute(
            "update token set disabled = true, disabled_with = $2, rev = rev + 1 where id = any($1)",
            ids,
            number,
        )
        await self._record("token.disabled", ids, _changes(disabled=(False, True)))

    async def enable(self, ids: Sequence[str]) -> None:
        await self._connection.execute(
            "update token set disabled = false, disabled_with = null, rev = rev + 1 where id = any($1)", ids
        )
        await self._record("token.enabled", ids, _changes(disabled=(True, False)))

    async def rotate(
        self, predecessor: StoredToken, successor: TokenRecord, grace_s: int, *, family: str
    ) -> Token:
        """Adds the successor, and lets the predecessor expire with the grace period or its own expiry, whichever is first.

        Args:
            predecessor: the token.
            successor: its successor.
            grace_s: how long the old secret stays valid, in seconds.
            family: the family whose rate limit the successor shares.

        Raises:
            AlreadyExists: the successor's digest exists.
        """
        added = await self._add(
            successor,
            chain=predecessor.chain,
            family=family,
            imported=predecessor.is_imported,
            disabled_with=predecessor.disabled_with,
        )
        holder = self.authority.holder
        expires = await self._connection.fetchval(
            "update token set rotated_to = $2, rotated_by = $4, rev = rev + 1,"
            " expires = least(expires, now() + make_interval(secs => $3)) where id = $1 returning expires",
            predecessor.token.id,
            added.id,
            float(grace_s),
            holder.token.id if holder else None,
        )
        changed = _changes(rotatedTo=(None, added.id), expires=(predecessor.token.expires, expires))
        await self._record(
            "token.rotated", [predecessor.token.id], {"to": added.id, "grace": grace_s, **changed}
        )
        await self._record(
            "token.created", [added.id], {"rotatedFrom": predecessor.token.id, **_created(added)}
        )
        return added

    async def revoke(self, ids: Sequence[str]) -> None:
        """Revokes tokens permanently."""
        revoked = await self._connection.fetchval(
            """
            with ended as (
                update token set revoked = now(), revoked_by = $2, rev = rev + 1 where id = any($1)
            )
            select now()
            """,
            ids,
            self.authority.name,
            timeout=DESCENDANTS_S,
        )
        await self._record("token.revoked", ids, _changes(revoked=(None, revoked)))

    async def end_sessions(self, ids: Sequence[str]) -> None:
        """Ends the sessions and sign-in links of tokens that lost authority. They stay ended if the token regains it."""
        await self._connection.execute("delete from session where token = any($1)", ids)
        await self._connection.execute("delete from sign_in_link where token = any($1)", ids)

    # Sessions

    async def begin_session(self, session: str, link: str | None) -> bool:
        """Begins a session of the acting token, and deletes its sign-in link. Returns whether the link was valid.

        Args:
            session: the digest of the session's secret.
            link: the digest of the link's secret.
        """
        holder = self.authority.holder
        if holder is None:
            raise RuntimeError("a session acts for a token")
        if link is not None and not await self._connection.fetchval(
            "delete from sign_in_link where digest = $1 and token = $2 and expires > now() returning true",
            bytes.fromhex(link),
            holder.token.id,
        ):
            return False
        await self._connection.execute(
            "delete from session where digest in"
            " (select digest from session where token = $1 order by created desc offset $2)",
            holder.token.id,
            MAX_SESSIONS - 1,
        )
        await self._connection.execute(
            f"insert into session (digest, token, expires) values ($1, $2, now() + interval '{SESSION_LASTS}')",
            bytes.fromhex(session),
            holder.token.id,
        )
        await self._audit("session.started", [holder.token.id])
        return True

    async def make_link(self, id: str, link: str, seconds: int) -> bool:  # noqa: A002  # the field's name
        """Stores a link that signs in as a token. Returns whether the token is active."""
        is_active = await self._connection.fetchval(
            f"""
            insert into sign_in_link (digest, token, expires)
            select $1, id, now() + make_interval(secs => $3) from token where id = $2 and {rows.ACTIVE}
            returning true
            """,  # a constant
            bytes.fromhex(link),
            id,
            float(seconds),
        )
        if is_active:
            await self._audit("session.link_made", [id], {"seconds": seconds})
        return bool(is_active)

    # Accounts

    async def lock_account(self, account: str, *, to_change: bool = False) -> bool:
        """Locks an account until the end of the transaction: against deletion, or with ``to_change`` for a deletion. Returns
        whether it exists.
        """
        strength = "update" if to_change else "share"
        return bool(
            await self._connection.fetchval(
                f"select true from account where account = $1 for {strength}",  # one of two words
                account,
            )
        )

    async def add_account(self, account: str, name: str) -> tuple[Account, bool]:
        """The account, locked, and whether it is new."""
        row = await self._connection.fetchrow(
            "insert into account (account, name) values ($1, $2) on conflict do nothing"
            f" returning {rows.ACCOUNT_COLUMNS}",
            account,
            name,
        )
        if row is None:
            row = await self._connection.fetchrow(
                f"select {rows.ACCOUNT_COLUMNS} from account where account = $1 for share",  # a constant
                account,
            )
            if row is None:  # deleted in between
                return await self.add_account(account, name)
            return rows.account(row), False
        await self._audit("account.added", [None], {"account": account, **_changes(name=(None, name))})
        self._announced.append(("account.added", AccountAdded(account=account)))
        return rows.account(row), True

    async def delete_account(self, account: str, tokens: int) -> None:
        """Deletes an account whose tokens are revoked."""
        name = await self._connection.fetchval(
            "delete from account where account = $1 returning name", account
        )
        details = {"account": account, "tokens": tokens, **_changes(name=(name, None))}
        await self._audit("account.deleted", [None], details)
        self._announced.append(("account.deleted", AccountDeletedEvent(account=account)))

    # What is recorded about each change

    async def finish(self) -> None:
        """Numbers the changes and stores their events. It comes last, since all transactions wait for these two rows."""
        await self._number(list(self._numbered))
        await self._announce(self._announced)

    async def _add(
        self,
        record: TokenRecord,
        *,
        chain: str,
        family: str,
        imported: bool,
        disabled_with: int | None,
    ) -> Token:
        new_token = record.token
        row = await self._connection.fetchrow(
            """
            insert into token (id, digest, hint, description, scopes, account, metadata, restrictions, not_before,
                expires, disabled, created, created_by, family, chain, imported, disabled_with)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, coalesce($12, now()), $13, $14, $15, $16, $17)
            on conflict do nothing
            returning *
            """,
            record.id,
            bytes.fromhex(record.digest),
            record.hint,
            new_token.description,
            list(dict.fromkeys(new_token.scopes)),
            new_token.account,
            rows.json(new_token.metadata),
            rows.json(canonical(new_token.restrictions)),
            new_token.not_before,
            new_token.expires,
            record.disabled,
            record.created,
            self.authority.name,
            family,
            chain,
            imported,
            disabled_with,
        )
        if row is None:
            raise AlreadyExists
        return rows.token(row)

    async def _record(
        self, action: str, tokens: Sequence[str], details: dict[str, Any] | None = None
    ) -> None:
        """Records the same change of several tokens: audit rows, numbers and events."""
        await self._audit(action, tokens, details)
        self._numbered |= dict.fromkeys(tokens)
        self._announced += [(action, TokenChanged(id=token)) for token in tokens]

    async def _audit(
        self, action: str, tokens: Sequence[str | None], details: dict[str, Any] | None = None
    ) -> None:
        actor, acting = self._actor, self.authority.holder
        await self._connection.execute(
            "insert into audit (token, action, actor, actor_token, address, request_id, details)"
            " select unnest($1::text[]), $2, $3, $4, $5, $6, $7",
            tokens,
            action,
            self.authority.name,
            acting.token.id if acting else None,
            actor.address,
            actor.request_id,
            rows.json(details),
            timeout=DESCENDANTS_S,
        )

    async def _number(self, tokens: Sequence[str]) -> None:
        """Assigns the next number of all changes to each changed token."""
        if not tokens:
            return
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
            timeout=DESCENDANTS_S,
        )
        self.changed = [
            TokenChange(seq=row["seq"], key=notice_key(row["digest"]), rev=row["rev"])
            for row in sorted(numbered, key=lambda row: int(row["seq"]))
        ]

    async def _announce(self, announced: Iterable[tuple[str, msgspec.Struct]]) -> None:
        events = list(announced)
        if not events:
            return
        await self._connection.execute(
            """
            with number as (update outbox_number set n = n + cardinality($1::text[]) returning n)
            insert into outbox (n, type, at, data)
            select number.n - cardinality($1) + place, kind, now(), data
            from number, unnest($1::text[], $2::jsonb[]) with ordinality as event (kind, data, place)
            """,
            [kind for kind, _ in events],
            [rows.json(event) for _, event in events],
            timeout=DESCENDANTS_S,
        )


async def holder(connection: Connection, actor: Actor, *, lock: bool = False) -> StoredToken | None:
    """The token of an actor's credential; None if no such token or session exists.

    Args:
        connection: the connection to use.
        actor: who makes the request.
        lock: whether to lock the session, so that it cannot end before the transaction does.
    """
    if actor.token is not None:
        condition, digest = "digest = $1", actor.token
    elif actor.session is not None:
        condition, digest = _OF_SESSION.format(lock="for share" if lock else ""), actor.session
    else:
        return None
    row = await connection.fetchrow(
        f"select {rows.STORED_COLUMNS} from token where {condition}",  # constants
        bytes.fromhex(digest),
    )
    return rows.stored(row) if row else None


_OF_SESSION = "id = (select token from session where session.digest = $1 and session.expires > now() {lock})"

_DESCENDANTS = """
    with recursive descendant (chain) as (
        select chain from token where created_by = any($1::text[]) and chain <> all($2::text[])
        union
        select created.chain from descendant
        join token as member on member.chain = descendant.chain
        join token as created on created.created_by = member.id
        where created.chain <> all($2)
    )
"""


def _created(token: Token) -> dict[str, Any]:
    """The fields of a new token that differ from the defaults."""
    return _difference(NewToken(), rows.as_new_token(token))


def _difference(before: NewToken, after: NewToken) -> dict[str, Any]:
    """Each changed field, with its old and its new value."""
    old_fields, new_fields = _fields(before), _fields(after)
    return _changes(**{name: (old_fields[name], new_fields[name]) for name in old_fields})


def _fields(token: NewToken) -> dict[str, Any]:
    """The fields by their names in JSON, each restriction as one."""
    fields: dict[str, Any] = msgspec.to_builtins(token)
    restrictions = fields.pop("restrictions")
    return fields | {f"restrictions.{name}": value for name, value in restrictions.items()}


def _changes(**fields: tuple[Any, Any]) -> dict[str, Any]:
    """The changed fields for the audit's details, from each field's old and new value."""
    return {
        "changes": {
            name: {"from": before, "to": after} for name, (before, after) in fields.items() if before != after
        }
    }

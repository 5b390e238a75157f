"""The queries of the tokens service, and its usage statistics; changes are in `writes`."""

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg
import msgspec

from tallystick.contracts.accounts import AccountLog, ListAccounts
from tallystick.contracts.operation import Actor
from tallystick.contracts.records import Account, Token
from tallystick.contracts.tokens import ListTokens, TokenLog
from tallystick.contracts.verification import RejectedRequest, RejectedToken, TokenUsage, Verdict
from tallystick.tokens import rules
from tallystick.tokens.record import TokenRecord
from tallystick_server.runtime.postgres import Pool
from tallystick_server.tokens.authority import Authority
from tallystick_server.tokens.store import cursors, rows
from tallystick_server.tokens.store.cursors import LogPlace, Place
from tallystick_server.tokens.store.rows import StoredToken
from tallystick_server.tokens.store.writes import Transaction, holder

T = TypeVar("T")

LIST_S = 2.0
"""Timeout of a query that scans all tokens, in seconds."""
LOG_LENGTH = 100
"""Maximum number of rejected requests stored for a token, and of changes and of rejected attempts on a page of its log."""
MAX_LOG_BYTES = 500_000
"""Maximum size of the changes' details on a page of a log: a message holds more, but not 100 of the largest details."""
FIRST = LogPlace(changes=2**63 - 1, attempts=2**63 - 1, refusals=2**63 - 1)
"""The place before the newest entries of a log."""
MAX_REJECTIONS_PER_MINUTE = 20
"""Maximum number of rejected attempts of one actor that the audit stores in a minute. More are only counted, so that no
token can fill the table."""


class Rejection(NamedTuple):
    """A change that the holder of a token was not authorized to make.

    Args:
        holder: the token that the actor authenticated with.
        actor: who acted, as the edge reports it.
        action: the change that was rejected.
        token: the id of the token to change, if the request has one.
        digest: the digest of that token, if the request has one.
        details: the failure's code, and further details.
    """

    holder: StoredToken
    actor: Actor
    action: str
    token: str | None
    digest: str | None
    details: Mapping[str, Any]


class Listing(NamedTuple, Generic[T]):
    """A page of a list.

    Args:
        total: the number of rows that match.
        page: the page's number, from 0.
        pages: the number of pages.
        items: the rows of this page.
        next: the cursor of the next page; None on the last one.
    """

    total: int
    page: int
    pages: int
    items: Sequence[T]
    next: str | None


class Store:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._installation: str | None = None

    @asynccontextmanager
    async def change(self, actor: Actor) -> AsyncIterator[Transaction]:
        """A transaction on behalf of an actor.

        Raises:
            Rejected: the actor's credential is not valid.
        """
        async with self._pool.acquire(timeout=0.5) as connection, connection.transaction():
            change = Transaction(connection, actor)
            await change.authenticate()
            yield change
            await change.finish()

    async def authority(self, actor: Actor) -> Authority:
        """The permissions of an actor that only reads.

        Raises:
            Rejected: the actor's credential is not valid.
        """
        async with self._pool.acquire(timeout=0.5) as connection:
            return Authority(actor, await holder(connection, actor))

    async def audit_rejection(self, rejection: Rejection) -> bool:
        """Stores a rejected attempt in the audit. Returns False if the actor has reached the limit for this minute."""
        actor = rejection.holder.token.id
        async with self._pool.acquire(timeout=0.5) as connection, connection.transaction():
            # Counted and added by one transaction at a time for each actor, over all replicas.
            await connection.execute(
                "select pg_advisory_xact_lock(hashtext('tallystick rejections'), hashtext($1))", actor
            )
            return bool(
                await connection.fetchval(
                    """
                    insert into audit (token, action, actor, actor_token, address, request_id, details, rejected)
                    select (select id from token where id = $1 or digest = $2), $3, $4, $4, $5, $6, $7, true
                    where $8 > (
                        select count(*) from audit
                        where actor_token = $4 and at > now() - interval '1 minute' and rejected
                    )
                    returning true
                    """,
                    rejection.token,
                    bytes.fromhex(rejection.digest) if rejection.digest else None,
                    rejection.action,
                    actor,
                    rejection.actor.address,
                    rejection.actor.request_id,
                    rows.json(rejection.details),
                    MAX_REJECTIONS_PER_MINUTE,
                )
            )

    async def find(self, id: str) -> StoredToken | None:  # noqa: A002  # the field's name
        """A token, revoked or not."""
        row = await self._pool.fetchrow(
            f"select {rows.STORED_COLUMNS} from token where id = $1",  # a constant
            id,
        )
        return rows.stored(row) if row else None

    async def find_by_key(self, key: str) -> StoredToken | None:
        """A token by the SHA-256 of its digest, revoked or not."""
        row = await self._pool.fetchrow(
            f"select {rows.STORED_COLUMNS} from token where sha256(digest) = $1",  # a constant
            bytes.fromhex(key),
        )
        return rows.stored(row) if row else None

    async def verdict(self, digest: str) -> Verdict:
        """Whether the token with this digest is valid now, by PostgreSQL's clock."""
        row = await self._pool.fetchrow(
            f"""
            select {rows.TOKEN_COLUMNS}, extract(epoch from expires - now())::float8 as expires_in,
                case when revoked is not null then 'revoked'
                    when disabled then 'disabled'
                    when expires <= now() then 'expired'
                    when not_before > now() then 'not_yet_valid'
                end as refused
            from token where digest = $1
            """,  # a constant
            bytes.fromhex(digest),
        )
        if row is None:
            return Verdict(code="invalid_token")
        if row["refused"] is not None:
            return Verdict(
                code="invalid_token",
                refused=RejectedToken(
                    id=row["id"],
                    reason=row["refused"],
                    replaced=row["refused"] == "expired" and row["rotated_to"] is not None,
                ),
                rev=row["rev"],
            )
        return Verdict(code="active", token=rows.token(row), expires_in=row["expires_in"], rev=row["rev"])

    async def report(self, uses: Sequence[TokenUsage], refusals: Sequence[RejectedRequest]) -> None:
        """Stores when tokens were last used, and their rejected requests. Only the newest of those are kept."""
        async with self._pool.acquire(timeout=0.5) as connection, connection.transaction():
            # Chains are locked in order, as changes lock them: the join below updates rows in any order, and a change that
            # holds one of them may be waiting for another.
            await connection.execute(
                "select from token where id in (select chain from token where id = any($1))"
                " order by id for no key update",
                [use.id for use in uses],
            )
            await connection.execute(
                """
                update token set uses = uses + seen.count, last_used = greatest(last_used, seen.at),
                    last_ip = case when last_used > seen.at then last_ip else seen.ip end
                from unnest($1::text[], $2::timestamptz[], $3::text[], $4::bigint[]) as seen (id, at, ip, count)
                where token.id = seen.id
                """,
                [use.id for use in uses],
                [use.time for use in uses],
                [use.ip for use in uses],
                [use.count for use in uses],
            )
            await connection.execute(
                """
                insert into use_by_day (token, day, hours)
                select token.id, today, array(
                    select case when hour = this_hour then seen.count else 0 end
                    from generate_series(0, 23) as hour order by hour
                )
                from unnest($1::text[], $2::bigint[]) as seen (id, count)
                join token on token.id = seen.id
                cross join (select now() at time zone 'UTC' as now) as clock
                cross join lateral (
                    select clock.now::date as today, extract(hour from clock.now)::int as this_hour
                ) as moment
                order by token.id
                on conflict (token, day) do update set
                    hours[extract(hour from now() at time zone 'UTC')::int + 1] =
                        use_by_day.hours[extract(hour from now() at time zone 'UTC')::int + 1]
                        + excluded.hours[extract(hour from now() at time zone 'UTC')::int + 1]
                """,
                [use.id for use in uses],
                [use.count for use in uses],
            )
            await connection.executemany(
                "insert into refusal (token, at, reason, address, route, request_id)"
                " select $1, $2, $3, $4, $5, $6 where exists (select from token where id = $1)",
                [
                    (
                        rejected.id,
                        rejected.time,
                        rejected.reason,
                        rejected.address,
                        rejected.route,
                        rejected.request_id,
                    )
                    for rejected in refusals
                ],
            )
            await connection.execute(
                """
                delete from refusal using (
                    select id, row_number() over (partition by token order by id desc) as place
                    from refusal where token = any($1)
                ) as old where refusal.id = old.id and old.place > $2
                """,
                list({rejected.id for rejected in refusals}),
                LOG_LENGTH,
            )

    async def log(self, id: str, after: LogPlace) -> TokenLog | None:  # noqa: A002
        """A token's changes, its rejected requests, and rejected attempts to change it, newest first; None if the token never
        existed. Attempts are listed separately: a flood of them must not push out the changes.
        """
        if not await self._pool.fetchval("select true from token where id = $1", id):
            return None
        changes = await self._entries(
            "audit", rows.AUDIT_COLUMNS, "token = $1 and not rejected", id, after.changes
        )
        attempts = await self._entries(
            "audit", rows.AUDIT_COLUMNS, "token = $1 and rejected", id, after.attempts
        )
        refusals = await self._entries("refusal", rows.REFUSAL_COLUMNS, "token = $1", id, after.refusals)
        return TokenLog(
            changes=tuple(map(rows.change, changes.rows)),
            refusals=tuple(map(rows.rejected_request, refusals.rows)),
            attempts=tuple(map(rows.attempt, attempts.rows)),
            next=_following(changes, attempts, refusals),
        )

    async def account_log(self, account: str, after: LogPlace) -> AccountLog | None:
        """An account's changes, and rejected attempts to change it, newest first; None if there are none."""
        of_account = "token is null and details ->> 'account' = $1"
        changes = await self._entries(
            "audit", rows.AUDIT_COLUMNS, f"{of_account} and not rejected", account, after.changes
        )
        attempts = await self._entries(
            "audit", rows.AUDIT_COLUMNS, f"{of_account} and rejected", account, after.attempts
        )
        if not changes.rows and not attempts.rows and after == FIRST:
            return None
        return AccountLog(
            changes=tuple(map(rows.change, changes.rows)),
            attempts=tuple(map(rows.attempt, attempts.rows)),
            next=_following(changes, attempts),
        )

    async def _entries(self, table: str, columns: str, condition: str, value: str, before: int) -> "_Entries":
        """The newest entries of a log that are older than a given one, as many as fit into a message.

        Args:
            table: the table that holds them.
            columns: the columns to read.
            condition: which entries, as a condition on ``$1``.
            value: the value of ``$1``.
            before: the number of the given entry; with 0 the page is empty.
        """
        if before == 0:
            return _Entries([], 0)
        records = await self._pool.fetch(
            f"select {columns} from {table} where {condition} and id < $2 order by id desc limit $3",  # constants
            value,
            before,
            LOG_LENGTH + 1,
        )
        page_records = _within(records[:LOG_LENGTH], MAX_LOG_BYTES)
        return _Entries(page_records, page_records[-1]["id"] if len(page_records) < len(records) else 0)

    async def find_rejected_requests(self, request_id: str) -> Sequence[RejectedRequest]:
        """The entries about one request in the logs of all tokens."""
        records = await self._pool.fetch(
            f"select {rows.REFUSAL_COLUMNS} from refusal where request_id = $1 order by id desc limit 10",
            request_id,
        )
        return [rows.rejected_request(row) for row in records]

    async def use(self, ids: Sequence[str], hours: int) -> dict[str, tuple[int, ...]]:
        """For each token, the number of uses in each of the last hours, oldest first."""
        records = await self._pool.fetch(
            "select token, day, hours, now() at time zone 'UTC' as now from use_by_day"
            " where token = any($1) and day >= (now() at time zone 'UTC')::date - $2::int / 24 - 1",
            list(ids),
            hours,
        )
        uses: dict[str, list[int]] = {}
        for row in records:
            history = uses.setdefault(row["token"], [0] * hours)
            first = row["now"].toordinal() * 24 + row["now"].hour - hours + 1
            for hour, count in enumerate(row["hours"], row["day"].toordinal() * 24 - first):
                if 0 <= hour < hours:
                    history[hour] += count
        return {token: tuple(history) for token, history in uses.items()}

    async def get(self, id: str, *, revoked: bool = False) -> Token | None:  # noqa: A002
        """A token; a revoked one only with ``revoked=True``."""
        row = await self._pool.fetchrow(
            f"select {rows.TOKEN_COLUMNS} from token where id = $1 and (revoked is null or $2)",  # a constant
            id,
            revoked,
        )
        return rows.token(row) if row else None

    async def export(self, id: str) -> TokenRecord | None:  # noqa: A002
        """A token's record with its digest."""
        row = await self._pool.fetchrow(
            f"select {rows.TOKEN_COLUMNS}, digest from token where id = $1 and revoked is null",  # a constant
            id,
        )
        if row is None:
            return None
        token = rows.token(row)
        return TokenRecord(
            id=token.id,
            digest=row["digest"].hex(),
            token=rows.as_new_token(token),
            hint=token.hint,
            disabled=token.disabled,
            created=token.created,
        )

    async def list(self, request: ListTokens, place: Place | None) -> Listing[Token]:
        """A page of the tokens that match."""
        parts = rows.ORDERS[request.order]
        in_state = rows.STATES[request.state] if request.state else "revoked is null"
        condition = f"""
            {in_state} and ($1::text is null or account = $1)
            and ($2::text is null or id ilike $2 or description ilike $2 or account ilike $2
                or lower(hint) = lower($6) or digest = $7)
            and ($3::text is null
                or $3 = any(scopes) or ' ' || array_to_string(scopes, ' ') like '% ' || $9 || ':%')
            and ($4::text is null or rotated_to = $4) and ($5::text is null or created_by = $5)
            and ($8::timestamptz is null or coalesce(last_used, created) < $8)
        """
        text = (request.query or "").strip()
        arguments = (
            request.account,
            f"%{_escape_like(text)}%" if text else None,
            request.scope,
            request.rotated_to,
            request.created_by,
            text,
            bytes.fromhex(text) if rules.is_digest(text) else None,
            request.unused_since,
            _escape_like(request.scope or ""),
        )
        if place is None:
            counts = ", ".join(
                f"count(*) filter (where {part.condition.format(time='now()')})" for part in parts
            )
            ((time, *sizes),) = await self._pool.fetch(
                f"select now()::text, {counts} from token where {condition}",  # constants
                *arguments,
                timeout=LIST_S,
            )
        else:
            time, sizes = place.time, [0] * len(parts)
        records: list[asyncpg.Record] = []
        skipped = 0 if place else request.page * request.page_size
        for number, part in enumerate(parts):
            if place is not None and number < place.part:
                continue
            values = [*arguments, request.page_size + 1 - len(records), skipped]
            within = condition
            if len(parts) > 1:
                values.append(time)
                within += f" and {part.condition.format(time=f'${len(values)}::text::timestamptz')}"
            if place is not None and number == place.part:
                values += (place.key, place.id)
                within += f" and {part.beyond(f'${len(values) - 1}', f'${len(values)}')}"
            records += await self._pool.fetch(
                f"select {rows.TOKEN_COLUMNS}, ({part.key})::text as place, {number} as part from token where {within}"
                f" order by {part.sql} limit $10 offset $11",
                *values,
                timeout=LIST_S,
            )
            if len(records) > request.page_size:
                break
            skipped = max(0, skipped - sizes[number])
        return _listing(
            request,
            place,
            place.total if place else sum(sizes),
            records,
            rows.token,
            time=time if len(parts) > 1 else "-infinity",
        )

    async def account(self, account: str) -> Account | None:
        row = await self._pool.fetchrow(
            f"select {rows.ACCOUNT_COLUMNS} from account where account = $1",  # a constant
            account,
        )
        return rows.account(row) if row else None

    async def accounts(self, request: ListAccounts, place: Place | None) -> Listing[Account]:
        """A page of the accounts that match."""
        condition = "($1::text is null or account ilike $1 or name ilike $1)"
        text = (request.query or "").strip()
        query = f"%{_escape_like(text)}%" if text else None
        total = (
            place.total
            if place
            else await self._pool.fetchval(f"select count(*) from account where {condition}", query)
        )
        records = await self._pool.fetch(
            f"select {rows.ACCOUNT_COLUMNS}, account as id, '' as place, 0 as part from account where {condition}{' and account > $4' if place else ''}"  # constants
            " order by account limit $2 offset $3",
            query,
            request.page_size + 1,
            0 if place else request.page * request.page_size,
            *((place.id,) if place else ()),
        )
        return _listing(request, place, total, records, rows.account)

    async def count_accounts(self) -> int:
        count: int = await self._pool.fetchval("select count(*) from account")
        return count

    async def version(self) -> str:
        version: str = await self._pool.fetchval("select current_setting('server_version')")
        return version

    async def installation(self) -> str:
        """Names this database among all: a hash of what identifies the server and the database on it. Not a secret."""
        if self._installation is None:
            identity: str = await self._pool.fetchval(
                "select format('%s/%s', system_identifier, oid) from pg_control_system(), pg_database "
                "where datname = current_database()"
            )
            self._installation = sha256(identity.encode()).hexdigest()[:8]
        return self._installation


class _Entries(NamedTuple):
    """Entries of a log, and the number of the last one if older ones follow; otherwise 0."""

    rows: Sequence[asyncpg.Record]
    more_before: int


def _following(changes: _Entries, attempts: _Entries, refusals: _Entries | None = None) -> str | None:
    """The cursor of a log's older entries."""
    place = LogPlace(
        changes=changes.more_before,
        attempts=attempts.more_before,
        refusals=refusals.more_before if refusals else 0,
    )
    return cursors.encode(place) if any(msgspec.structs.astuple(place)) else None


def _within(records: Sequence[asyncpg.Record], max_bytes: int) -> Sequence[asyncpg.Record]:
    """The first rows whose details take no more than so many bytes together, and the first one in any case."""
    for index, row in enumerate(records):
        max_bytes -= len(row.get("details") or "")
        if max_bytes < 0 and index:
            return records[:index]
    return records


def _listing(
    request: ListTokens | ListAccounts,
    place: Place | None,
    total: int,
    records: Sequence[asyncpg.Record],
    read: Callable[[asyncpg.Record], T],
    *,
    time: str = "-infinity",
) -> Listing[T]:
    """A page of a list.

    Args:
        request: the request.
        place: where the page begins, if the request has a cursor.
        total: how many rows match.
        records: the page's rows with their ``id``, ``place`` and ``part``, and one more if there are more.
        read: makes an item of a row.
        time: when the first page was read, where the order depends on it.
    """
    page = place.page if place else request.page
    page_records = records[: request.page_size]
    following = None
    if len(records) > len(page_records):
        last = page_records[-1]
        following = cursors.encode(
            Place(
                filters=cursors.filters(request),
                page=page + 1,
                total=total,
                id=last["id"],
                key=last["place"],
                part=last["part"],
                time=time,
            )
        )
    return Listing(
        total, page, math.ceil(total / request.page_size), tuple(map(read, page_records)), following
    )


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")

"""Counts tokens, and deletes records that are no longer needed."""

from collections.abc import Mapping

from tallystick.contracts.tokens import EXPIRING_DAYS as SOON_DAYS
from tallystick_server.runtime.postgres import Pool

COUNT_S = 10.0
"""How long one count may take, in seconds."""
EXPIRING_DAYS = (1, 7, 30)
IN_USE_DAYS = 30
"""A token is in use if it was used within so many days: a monthly job counts."""

# The order is that of `state` in services/tallystick_server/edge/dashboard/filters.py.
STATES = {
    "revoked": "revoked is not null",
    "expired": "expires <= now()",
    "disabled": "disabled",
    "not_yet_valid": "not_before > now()",
    "rotated": "rotated_to is not null",
    "expiring": f"expires <= now() + interval '{SOON_DAYS} days'",
    "active": "true",
}
"""The states that are counted: a token is in the first one whose condition it meets, so the counts add up to all tokens."""
_EXPIRING = "state in ('active', 'expiring') and expires <= now() + interval '{days} days'"
_IN_USE = (
    f"{_EXPIRING} and last_used > now() - interval '{IN_USE_DAYS} days'"
    # One that was made for less time than that is meant to end.
    " and expires - created > interval '{days} days'"
)
_COUNTED = {
    **{f"tallystick_tokens:{state}": f"state = '{state}'" for state in STATES},
    **{f"tallystick_tokens_expiring:{days}": _EXPIRING.format(days=days) for days in EXPIRING_DAYS},
    **{f"tallystick_tokens_expiring_in_use:{days}": _IN_USE.format(days=days) for days in EXPIRING_DAYS},
}
_CASES = " ".join(f"when {condition} then '{state}'" for state, condition in STATES.items())
_COUNTS = ", ".join(
    f'count(*) filter (where {condition}) as "{name}"' for name, condition in _COUNTED.items()
)
_QUERY = f"select {_COUNTS} from (select expires, created, last_used, case {_CASES} end as state from token) as token"  # constants


async def count(pool: Pool) -> Mapping[str, int]:
    """How many tokens there are, by metric and label: it reads the whole table."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"set local statement_timeout = '{COUNT_S} s'")
        row = await connection.fetchrow(_QUERY, timeout=COUNT_S)
    return dict(row) if row else {}


async def forget_old(pool: Pool) -> None:
    await pool.execute("delete from use_by_day where day < now() - interval '9 days'")
    await pool.execute("delete from session where expires <= now()")
    await pool.execute("delete from sign_in_link where expires <= now()")
    await pool.execute("delete from idempotency where at < now() - interval '24 hours'")

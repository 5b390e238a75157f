"""Queries of the counters for `/metrics`, statistics and the dashboard."""

from tallystick.contracts.metrics import Sample
from tallystick.metrics.catalogue import BY_NAME, UNITS, Gauge
from tallystick_server.metrics.store.counts import LABELS, MOST_COUNTED
from tallystick_server.runtime.postgres import Pool


async def counters(pool: Pool) -> list[Sample]:
    rows = await pool.fetch("select name, labels, value from counter")
    return [
        Sample(name=name, labels=LABELS.decode(labels), value=value / UNITS.get(name, 1))
        for name, labels, value in rows
    ]


async def gauges(pool: Pool, fresh_s: float) -> list[Sample]:
    """The gauges of all processes, added up. Those of processes that fell silent are left out."""
    rows = await pool.fetch(
        "select name, labels, sum(value) as sum, max(value) as max from gauge"
        # A later time than now was written before the database's clock was set back.
        " where at > now() - make_interval(secs => $1) and at <= now() group by name, labels",
        fresh_s,
    )
    return [
        Sample(name=row["name"], labels=LABELS.decode(row["labels"]), value=float(row[metric.across]))
        for row in rows
        if isinstance(metric := BY_NAME.get(row["name"]), Gauge)
    ]


async def threads(pool: Pool, late_s: float) -> tuple[dict[str, dict[str, int]], int]:
    """Counts running threads by whether they started in the last ten minutes (``yes``, ``no``) and by type, and those
    whose heartbeats are late.
    """
    rows = await pool.fetch(
        "with clock as (select stream_time() as now)"
        " select type, coalesce(started > now - interval '10 minutes' and started <= now, false) as recent,"
        " count(*), count(*) filter (where seen < now - make_interval(secs => $1)) as late"
        " from thread cross join clock where ended is null group by 1, 2 order by 1, 2",
        late_s,
    )
    alive: dict[str, dict[str, int]] = {"no": {}, "yes": {}}
    for row in rows:
        alive["yes" if row["recent"] else "no"][row["type"]] = row["count"]
    return alive, sum(row["late"] for row in rows)


async def accounts_by_state(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch("select state, count(*) from account group by state order by state")
    return {row["state"]: row["count"] for row in rows}


async def recent(pool: Pool, seconds: int) -> dict[str, int]:
    rows = await pool.fetch(
        "select name, least(sum(value), $2)::bigint as value from recent_count"
        " where minute > (select stream_time()) - make_interval(secs => $1) - interval '1 minute'"
        " and minute <= (select stream_time())"
        " group by name order by name",
        float(seconds),
        MOST_COUNTED,
    )
    return {row["name"]: row["value"] for row in rows}


async def history(pool: Pool, kind: str, minutes: int) -> dict[str, tuple[int, ...]]:
    """Counts of the last minutes by name, for names that begin with ``kind``; oldest first, this minute last."""
    rows = await pool.fetch(
        "select name, value,"
        " (extract(epoch from date_trunc('minute', (select stream_time())) - minute) / 60)::int as ago"
        " from recent_count where starts_with(name, $1)"
        " and minute > date_trunc('minute', (select stream_time())) - make_interval(mins => $2)"
        " and minute <= (select stream_time())",
        kind,
        minutes,
    )
    counts: dict[str, list[int]] = {}
    for row in rows:
        counts.setdefault(row["name"], [0] * minutes)[minutes - 1 - row["ago"]] += row["value"]
    return {name: tuple(counted) for name, counted in sorted(counts.items())}

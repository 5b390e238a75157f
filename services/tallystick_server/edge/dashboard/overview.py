"""The overview page: the metrics of `/metrics`, and the stored counts of the last hour."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from litestar.plugins.htmx import HTMXRequest

from tallystick.contracts.accounts import LIST_ACCOUNTS, ListAccounts
from tallystick.contracts.metrics import METRICS_HISTORY, SNAPSHOT, AskHistory, AskSnapshot, History, Sample
from tallystick.contracts.tokens import LIST_TOKENS, ListTokens
from tallystick.metrics import catalogue
from tallystick_server.edge.api.upstream import actor, ask
from tallystick_server.edge.dashboard.pages import Handlers, Page, page, shows
from tallystick_server.edge.http.errors import ProblemError

MINUTES = 60


SHOWN = (
    catalogue.ACCOUNTS,
    catalogue.CPU,
    catalogue.DEAD_LETTERS,
    catalogue.DUPLICATES,
    catalogue.EDGES,
    catalogue.EVENTS,
    catalogue.GAPS,
    catalogue.LEASES,
    catalogue.LOOP_LAG,
    catalogue.MEMORY,
    catalogue.PROPAGATION_SECONDS,
    catalogue.STREAM_LAG,
    catalogue.THREADS,
    catalogue.TOKENS,
    catalogue.UNRESPONSIVE,
)
"""The metrics of the page."""


class Facts:
    """The values of the metrics, by name and labels; 0 where nothing was counted."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in samples:
            self._samples.setdefault(sample.name, []).append(sample)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels."""
        series = self._samples.get(name, ())
        return sum(sample.value for sample in series if labels.items() <= sample.labels.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums by the values of one label, in descending order."""
        sums: dict[str, float] = {}
        for sample in self._samples.get(name, ()):
            if label in sample.labels:
                value = sample.labels[label]
                sums[value] = sums.get(value, 0) + sample.value
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def quantile(self, name: str, share: float) -> float | None:
        """An upper bound of a histogram's quantile, in seconds; None if nothing was measured."""
        total = self.value(f"{name}_count")
        buckets = {
            float(sample.labels["le"]): sample.value for sample in self._samples.get(f"{name}_bucket", ())
        }
        return min(
            (bound for bound, count in buckets.items() if total and count >= share * total), default=None
        )


class Checks(NamedTuple):
    """Token checks of the last hour, by minute and by result."""

    accepted: Sequence[int]
    rejected: Sequence[int]
    reasons: dict[str, int]

    def per_second(self, minutes: Sequence[int]) -> float:
        """The rate over the last whole minute."""
        return minutes[-2] / 60


@shows("/admin")
async def overview(request: HTMXRequest) -> Page:
    """The overview page, or for htmx its refreshed part.

    If the metrics service does not reply, the page says so and shows the rest. A refresh fails instead, so that the
    browser keeps the previous values and shows their age.
    """
    try:
        snapshot, history = await asyncio.gather(
            ask(request, SNAPSHOT, AskSnapshot(metrics=tuple(metric.name for metric in SHOWN))),
            ask(request, METRICS_HISTORY, AskHistory(minutes=MINUTES, kind="checks:")),
        )
    except ProblemError as error:
        if request.htmx or error.code not in {"unavailable", "overloaded"}:
            raise
        tokens = await ask(request, LIST_TOKENS, ListTokens(page_size=1, actor=actor(request)))
        accounts = await ask(request, LIST_ACCOUNTS, ListAccounts(page_size=1, actor=actor(request)))
        return page(request, "overview/without_metrics.html", tokens=tokens.total, accounts=accounts.total)
    return page(
        request,
        "overview/facts.html" if request.htmx else "overview/page.html",
        facts=Facts(snapshot.samples),
        checks=_checks(history),
        minutes=MINUTES,
    )


@shows("/admin/{path:path}")
async def unknown() -> Page:
    """Any other path."""
    raise ProblemError("not_found")


def _checks(history: History) -> Checks:
    by_result = {name.removeprefix("checks:"): counts for name, counts in history.counts.items()}
    accepted = by_result.pop("ok", (0,) * MINUTES)
    rejected = [sum(column) for column in zip((0,) * MINUTES, *by_result.values(), strict=True)]
    reasons = {name: sum(counts) for name, counts in by_result.items() if sum(counts)}
    return Checks(accepted, rejected, dict(sorted(reasons.items(), key=lambda item: -item[1])))


HANDLERS: Handlers = [overview, unknown]

"""The overview page: the metrics of `/metrics`, and the stored counts of the last hour."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from litestar.plugins.htmx import HTMXRequest
from prometheus_client.parser import text_string_to_metric_families

from tallystick.contracts.accounts import LIST_ACCOUNTS, ListAccounts
from tallystick.contracts.metrics import EXPOSITION, METRICS_HISTORY, AskExposition, AskHistory, History
from tallystick.contracts.tokens import LIST_TOKENS, ListTokens
from tallystick_server.edge.api.upstream import actor, ask
from tallystick_server.edge.dashboard.pages import Handlers, Page, page, shows
from tallystick_server.edge.http.errors import ProblemError

MINUTES = 60


class Facts:
    """The metrics of `/metrics` by name; those of counters without ``_total``."""

    def __init__(self, exposition: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                # The parser appends _total to every counter, also to those of the original, which have no such suffix.
                name = family.name if sample.name == f"{family.name}_total" else sample.name
                self._samples.setdefault(name, []).append((sample.labels, sample.value))

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        return sum(
            value
            for sample_labels, value in self._samples.get(name, ())
            if labels.items() <= sample_labels.items()
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums by one label, largest first."""
        sums: dict[str, float] = {}
        for labels, value in self._samples.get(name, ()):
            if label in labels:
                sums[labels[label]] = sums.get(labels[label], 0) + value
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def quantile(self, name: str, share: float) -> float | None:
        """An upper bound of a histogram's quantile, in seconds; None without observations."""
        total = self.value(f"{name}_count")
        for labels, count in self._samples.get(f"{name}_bucket", ()):
            if total and count >= share * total:
                return float(labels["le"])
        return None


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
        exposition, history = await asyncio.gather(
            ask(request, EXPOSITION, AskExposition()),
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
        facts=Facts(exposition.text),
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

"""The metrics of a process can be reported, whatever their labels are."""

import pytest

from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MAX_LABEL, MAX_SERIES, MetricsRecorder


def counted(recorder: MetricsRecorder) -> dict[tuple[str, ...], int]:
    return {(counter.name, *counter.labels.values()): counter.value for counter in recorder.take().counters}


@pytest.mark.parametrize("label", ["", "x" * (MAX_LABEL + 1), "a\0"])
def test_an_invalid_label_is_dropped_and_counted(label: str):
    recorder = MetricsRecorder()
    recorder.count(catalogue.TOKEN_CHECKS, 2, result="x" * MAX_LABEL)
    recorder.count(catalogue.TOKEN_CHECKS, 3, result=label)
    assert counted(recorder) == {
        ("tallystick_token_checks_total", "x" * MAX_LABEL): 2,
        ("tallystick_series_dropped_total",): 3,
    }


def test_series_above_the_limit_are_dropped_and_counted():
    recorder = MetricsRecorder()
    for number in range(2 * MAX_SERIES):
        recorder.count(catalogue.TOKEN_CHECKS, result=str(number))
    counts = counted(recorder)
    assert len(counts) == MAX_SERIES + 1
    assert counts["tallystick_series_dropped_total",] == MAX_SERIES


@pytest.mark.parametrize("labels", [{}, {"reason": "ok"}, {"result": "ok", "reason": "ok"}])
def test_a_counter_accepts_its_own_labels_only(labels: dict[str, str]):
    recorder = MetricsRecorder()
    with pytest.raises(TypeError, match=r"tallystick_token_checks_total takes the labels \('result',\)"):
        recorder.count(catalogue.TOKEN_CHECKS, 1, **labels)
    assert counted(recorder) == {}


def test_labels_are_reported_in_the_order_of_the_catalogue():
    recorder = MetricsRecorder()
    recorder.count(catalogue.HTTP_REQUESTS, code="200", method="get", handler="health")
    recorder.count(catalogue.HTTP_REQUESTS, handler="health", method="get", code="200")
    (reported,) = recorder.take().counters
    assert list(reported.labels) == list(catalogue.HTTP_REQUESTS.labels)
    assert reported.value == 2

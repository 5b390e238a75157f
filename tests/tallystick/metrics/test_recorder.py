"""What a process counts about itself can be reported, whatever its labels are."""

import pytest

from tallystick.metrics import catalogue
from tallystick.metrics.recorder import MAX_LABEL, MAX_SERIES, Measures


def counted(measures: Measures) -> dict[tuple[str, ...], int]:
    return {(each.name, *each.labels.values()): each.value for each in measures.take().counters}


@pytest.mark.parametrize("label", ["", "x" * (MAX_LABEL + 1), "a\0"])
def test_a_label_that_would_spoil_the_report_is_left_out_and_counted(label: str):
    measures = Measures()
    measures.count(catalogue.TOKEN_CHECKS, 2, result="x" * MAX_LABEL)
    measures.count(catalogue.TOKEN_CHECKS, 3, result=label)
    assert counted(measures) == {
        ("tallystick_token_checks_total", "x" * MAX_LABEL): 2,
        ("tallystick_series_dropped_total",): 3,
    }


def test_labels_without_end_are_left_out_and_counted():
    measures = Measures()
    for number in range(2 * MAX_SERIES):
        measures.count(catalogue.TOKEN_CHECKS, result=str(number))
    found = counted(measures)
    assert len(found) == MAX_SERIES + 1
    assert found["tallystick_series_dropped_total",] == MAX_SERIES

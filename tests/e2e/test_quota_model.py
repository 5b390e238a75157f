"""The interleavings of the quota model that take longest."""

import pytest

from tests.tallystick.coherence.test_quota_model import LONG_CASES, Case, Rules, explore


@pytest.mark.parametrize("case", LONG_CASES)
def test_no_interleaving_admits_more_or_less_than_the_limit(case: Case):
    wrong, states = explore(Rules(), case)
    assert not wrong
    assert states > 30_000

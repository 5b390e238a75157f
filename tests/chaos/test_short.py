"""Short runs of the chaos tests. The docstring of each module says how to run the long one."""

from tests.chaos import counting, rate_limit, revocation
from tests.chaos.fleet import Fleet


async def test_an_ended_token_is_rejected_everywhere_once_the_call_has_returned():
    history, fleet = await revocation.run(revokes=100, seed=7, edges=2, lease_s=0.5)
    assert history.violations() == []
    assert history.lives == 100
    assert set(revocation.ENDINGS) <= set(history.endings), "each way was used"
    assert {"rotated by operator", "rotated by itself"} <= set(history.endings)
    after = history.statuses(after=True)
    assert after[401] >= len(history.returned)
    assert after[403] > 0, "narrowed"
    assert len(fleet.happened) >= 3, "nothing was killed or stopped"


async def test_a_rate_limit_is_never_exceeded_by_any_number_of_edges():
    def enough(history: rate_limit.History, fleet: Fleet) -> bool:
        has_edits = {"edit 200", "rotate 201"} <= set(history.edits)
        return (
            has_edits
            and len(fleet.happened) >= 3
            and history.statuses[200] > 200
            and history.statuses[429] > 0
        )

    history, fleet = await rate_limit.run(seconds=8, seed=5, edges=2, limit=200, edits=True, enough=enough)
    assert history.violations() == {}
    assert enough(history, fleet), (history.edits, fleet.happened, history.statuses)


async def test_a_rate_limit_is_granted_in_full_to_a_steady_load():
    def enough(history: rate_limit.History, _: Fleet) -> bool:
        return history.used() > 0

    history, _ = await rate_limit.run(seconds=6, seed=None, edges=2, limit=200, enough=enough)
    assert history.violations() == {}
    assert history.used() >= 0.99


async def test_counters_stay_exact_through_crashes():
    outcome = await counting.run(count=4000, seed=11, sources=4)
    assert outcome.counted == outcome.sent
    assert outcome.decreases == []
    assert outcome.accounted == outcome.stored
    assert outcome.difference == 0
    assert len(outcome.faults) >= 1, "nothing was killed or stopped"


async def test_counters_are_exact_after_an_older_copy_of_the_stream_was_restored():
    outcome = await counting.restore(count=600, sources=2)
    assert outcome.counted_while_halted == outcome.counted_before
    assert outcome.counted == outcome.acknowledged
    assert outcome.decreases == []
    assert outcome.difference == 0

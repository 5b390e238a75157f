"""The proofs' short forms; each says in its own module how to run the long one."""

from tests.proofs import revocation


async def test_a_revoked_token_is_refused_everywhere_once_the_revoke_call_returns():
    history, fleet = await revocation.prove(revokes=120, seed=7, edges=2, lease_s=0.5)
    assert history.violations() == []
    assert len(history.returned) == 120
    assert history.statuses(after=True)[401] >= 120
    assert len(fleet.happened) >= 3, "nothing was killed or stopped"

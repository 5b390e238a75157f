"""What an edge holds of rate limits is bounded, and whatever of it is not spent is given back or counted as lost."""

from services.edge import quotas as module
from services.edge.quotas import Quotas
from shared import contracts as c
from shared import rpc
from shared.measures import Measures
from tests.services.conftest import issue

LIMIT = c.RateLimit(max_requests=1000, time_window=3600)


async def test_quota_of_a_token_that_makes_room_for_another_is_given_back(
    edge, tokens_service, operator, monkeypatch
):
    monkeypatch.setattr(module, "MAX_TOKENS", 1)
    tokens = [
        (await issue(operator, "api", restrictions=c.Restrictions(rate_limit=LIMIT)))[1] for _ in range(2)
    ]
    measures = Measures()
    quotas = Quotas(rpc.Hedged(edge._transport.app._app.state.client), measures)
    for _ in range(20):
        for token in [tokens[0]] * 5 + tokens[1:]:
            quota = await quotas.spend(token)
            assert quota is not None
            assert quota.granted == 1
    await quotas.close()
    counted = {each.name: each.value for each in measures.take().counters}
    assert counted["tallystick_quota_handed_out_total"] == 20 * 6 + counted["tallystick_quota_returned_total"]
    assert counted["tallystick_quota_returned_total"] > 0
    assert "tallystick_quota_lost_total" not in counted

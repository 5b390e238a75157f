"""The main path through the edge."""

from tests.support.services import issue


async def test_a_request_without_a_token_is_401_with_a_bare_challenge(edge):
    response = await edge.get("/v1/stats")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="tallystick"'
    assert response.json()["code"] == "missing_token"


async def test_a_token_is_accepted_in_the_header_and_in_the_query(
    edge, operator, tokens_service, metrics_service
):
    value, _ = await issue(operator, "api")
    by_header = await edge.get("/v1/stats", headers={"Authorization": f"Bearer {value}"})
    by_query = await edge.get("/v1/stats", params={"access_token": value})
    assert by_header.status_code == by_query.status_code == 200
    assert list(by_header.json())[:3] == ["version", "license", "accounts"]
    assert by_query.headers["cache-control"] == "private, no-store"

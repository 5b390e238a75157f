"""/metrics, as scrapers ask for it."""

import pytest

from tests.services.conftest import issue


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
)
async def test_the_format_is_the_one_that_is_accepted(
    edge, operator, tokens_service, metrics_service, *, accept, expected
):
    value, _ = await issue(operator, "metrics")
    headers = {"authorization": f"Bearer {value}", "accept": accept, "accept-encoding": "identity"}
    answer = await edge.get("/metrics", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, expected)
    assert "content-encoding" not in answer.headers
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in expected)
    for encoding, encoded in (("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False)):
        compressed = await edge.get("/metrics", headers={**headers, "accept-encoding": encoding})
        assert (compressed.headers.get("content-encoding") == "gzip") == encoded
        assert "thread_starts" in compressed.text
    assert (await edge.head("/metrics", headers=headers)).content == b""

"""`/metrics`, as scrapers request it."""

from tests.support.services import issue

TEXT = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
"""What Prometheus sends: it prefers OpenMetrics, and accepts both."""
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


ACCEPTED = [
    *(
        (accept, TEXT)
        for accept in ("", "*/*", "text/*", "text/plain", "text/plain;q=0.001", "TEXT/PLAIN; Q=1")
    ),
    (PROMETHEUS_2, TEXT),
    (PROMETHEUS_3, TEXT),
    # A header that accepts none of our formats, or is malformed, gets the default format.
    *(
        (accept, TEXT)
        for accept in ("application/json", ";", "text/plain;q=2", "a/b;q=,,;;q", "text/plain;q=-1")
    ),
    ("application/openmetrics-text;q=0, text/plain;q=0", TEXT),
    ("application/openmetrics-text;q=x", TEXT),
    ("application/openmetrics-text; version=0.0.1", TEXT),
    ("application/openmetrics-text", OPENMETRICS),
    ('application/openmetrics-text; version="1.0.0"; charset=utf-8; q=0.1', OPENMETRICS),
    ("application/*", OPENMETRICS),
    ("application/openmetrics-text, text/plain;q=0", OPENMETRICS),
    ("text/*;q=0.000, */*;q=0.1", OPENMETRICS),
    ("*/*, text/plain;version=0.0.4;q=0", OPENMETRICS),
    ("application/openmetrics-text, text/plain;version=1.0.0", OPENMETRICS),
]


async def test_the_text_format_is_sent_if_it_is_accepted(edge, operator, tokens_service, metrics_service):
    value, _ = await issue(operator, "metrics")
    headers = {"authorization": f"Bearer {value}", "accept-encoding": "identity"}
    for accept, expected in ACCEPTED:
        response = await edge.get("/metrics", headers={**headers, "accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, expected), accept
        assert response.text.endswith("# EOF\n") == (expected == OPENMETRICS)
        assert "content-encoding" not in response.headers
    assert (await edge.head("/metrics", headers=headers)).content == b""


async def test_the_response_is_compressed_if_gzip_is_accepted(
    edge, operator, tokens_service, metrics_service
):
    value, _ = await issue(operator, "metrics")
    headers = {"authorization": f"Bearer {value}"}
    for encoding, encoded in (
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("GZIP ; Q=1.000", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("gzip;q=much", False),
    ):
        compressed = await edge.get("/metrics", headers={**headers, "accept-encoding": encoding})
        assert (compressed.headers.get("content-encoding") == "gzip") == encoded
        assert "thread_starts" in compressed.text

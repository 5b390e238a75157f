"""The weights of media types and codings in Accept headers (RFC 9110, sections 12.4.2, 12.5.1 and 12.5.3)."""

import pytest

from tallystick_server.edge.http.negotiation import coding_weight, media_type_weight

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.mark.parametrize(
    ("accept", "offered", "weight"),
    [
        ("text/plain", "text/plain", 1),
        ("text/html", "text/plain", 0),
        ("TEXT/Plain;Q=0.5", "text/plain", 0.5),
        # Without a header, everything is accepted.
        ("", "text/plain", 1),
        (" ", "text/plain", 1),
        # The most specific range decides, at any position.
        ("text/*;q=0.9, text/plain;q=0.1", "text/plain", 0.1),
        ("text/plain;q=0.1, text/*;q=0.9", "text/plain", 0.1),
        ("*/*;q=0.9, text/*;q=0.1", "text/plain", 0.1),
        ("*/*;q=0.1", "text/plain", 0.1),
        (f"application/openmetrics-text;q=0.9, {OPENMETRICS};q=0.1", OPENMETRICS, 0.1),
        (f"{OPENMETRICS};q=0.1, application/openmetrics-text;q=0.9", OPENMETRICS, 0.1),
        ("application/openmetrics-text;version=0.0.1", OPENMETRICS, 0),
        ('application/openmetrics-text;version="1.0.0"', OPENMETRICS, 1),
        # Parameters that do not distinguish formats.
        ("text/plain;charset=latin-1;q=0.5", "text/plain", 0.5),
        (f"{OPENMETRICS};escaping=values;q=0.5", OPENMETRICS, 0.5),
        # Empty parameters (RFC 9110, section 5.6.6) and empty elements (section 5.6.1) are ignored.
        ("text/plain;;q=0.5", "text/plain", 0.5),
        ("text/plain;", "text/plain", 1),
        (",text/plain;q=0.5,,", "text/plain", 0.5),
        # A range with an invalid weight is ignored.
        ("text/plain;q=2", "text/plain", 0),
        ("text/plain;q=x, text/*;q=0.5", "text/plain", 0.5),
        ("text/plain;q=0.1234", "text/plain", 0),
    ],
)
def test_the_most_specific_range_decides_the_weight_of_a_media_type(accept: str, offered: str, weight: float):
    assert media_type_weight(accept, offered) == weight


@pytest.mark.parametrize(
    ("accept_encoding", "weight"),
    [
        ("", 0),
        ("gzip", 1),
        ("br", 0),
        ("GZIP;q=0.5", 0.5),
        ("gzip;q=0", 0),
        ("*", 1),
        ("*;q=0", 0),
        ("gzip;q=0, *", 0),
        ("*, gzip;q=0", 0),
        ("gzip;q=nan", 0),
        (", gzip", 1),
    ],
)
def test_a_coding_has_its_own_weight_or_that_of_the_wildcard(accept_encoding: str, weight: float):
    assert coding_weight(accept_encoding, "gzip") == weight

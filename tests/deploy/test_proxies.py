"""The sample proxy configurations agree with the edge and the documentation."""

import re
from textwrap import dedent
from typing import Any

import pytest

from tallystick_server.edge.api.openapi import codes, documented
from tallystick_server.edge.app import create_app
from tallystick_server.edge.authentication.forward_auth import BEFORE_TARGET, QUESTION_HEADERS
from tallystick_server.edge.http.errors import FORWARD_AUTH_PATH, KINDS
from tallystick_server.edge.settings import Settings
from tests.support.paths import ROOT

SAMPLES = ROOT / "deploy" / "proxies"
PAGE = (ROOT / "docs" / "proxies.md").read_text()
EXCERPTS = re.findall(r"```(?:nginx|caddyfile|haproxy|yaml)\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_shows_the_tested_files():
    lines = [
        [line.strip() for line in file.read_text().splitlines()]
        for file in SAMPLES.iterdir()
        if file.is_file()
    ]
    assert len(EXCERPTS) == 8
    for excerpt in EXCERPTS:
        shown_lines = [line.strip() for line in excerpt.splitlines()]
        starts = ((file, start) for file in lines for start in range(len(file)))
        assert any(file[start : start + len(shown_lines)] == shown_lines for file, start in starts), excerpt


def test_nginx_forwards_every_status_of_a_rejected_check():
    app: Any = create_app(Settings(nats_url="nats://127.0.0.1:1"))
    ((route, handler),) = {
        route.path: (route, handler)
        for route, handler in documented(app._app)
        if route.path == FORWARD_AUTH_PATH
    }.values()
    statuses = {KINDS[code].status for code in codes(route, handler, "GET")}
    text = (SAMPLES / "nginx.conf").read_text()
    forwarded = re.findall(r"if \(\$check_status = (\d+)\) { return (\d+) \$problem; }", text)
    assert all(status == returned for status, returned in forwarded)
    assert {int(status) for status, _ in forwarded} == statuses - {
        500,
        503,
    }  # these become 503, as any other status does
    assert "return 503 $problem;" in text


@pytest.mark.parametrize("sample", ["nginx.conf", "Caddyfile", "haproxy.lua", "envoy.yaml"])
def test_each_sample_names_every_identity_header(sample: str):
    text = (SAMPLES / sample).read_text().lower()
    for name in ("x-token-id", "x-token-account", "x-token-scopes"):
        assert name in text


def test_envoy_sends_checks_that_the_client_s_query_cannot_change():
    text = (SAMPLES / "envoy.yaml").read_text()
    assert f"path_prefix: {BEFORE_TARGET}\n" in text
    allowed = dedent(text[text.index("allowed_headers:") : text.index("http_service:")])
    for name in map(bytes.decode, QUESTION_HEADERS):
        assert name not in allowed
        assert f"- remove: {name}\n" in text

"""The access log attributes each request to a token, and never contains a token's value."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given, strategies as st

from tallystick.contracts.operation import Actor
from tallystick.contracts.records import RateLimit, Restrictions
from tallystick.contracts.tokens import REVOKE_TOKEN, RevokeToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick_server.edge.app import create_app
from tallystick_server.edge.authentication.middleware import AuthenticationMiddleware
from tallystick_server.edge.dashboard.sessions import Attempts
from tallystick_server.edge.http import line_writer
from tallystick_server.edge.http.access_log import MAX_REJECTIONS_PER_S, AccessLog, masked_path
from tallystick_server.edge.http.line_writer import LineWriter
from tallystick_server.edge.http.request_counter import UNROUTED
from tallystick_server.edge.settings import Settings
from tallystick_server.runtime.settings import SettingsError, load
from tests.support.dashboard import ready, sign_in
from tests.support.polling import until_async
from tests.support.servers import Nats
from tests.support.services import issue, lifespan

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


@asynccontextmanager
async def logging_edge(nats_server: Nats, path: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"access_log": "all", "access_log_path": str(path), **settings}
    app: Any = create_app(Settings(nats_url=nats_server.edge, **settings))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client,
    ):
        yield client


def lines(path: Path) -> list[dict[str, Any]]:
    """All log lines but those of health checks, which are sent until the edge is ready."""
    records = [json.loads(line) for line in path.read_text().split(chr(10)) if line] if path.exists() else []
    return [record for record in records if not record.get("route", "").startswith("/health")]


async def logged(path: Path, count: int) -> list[dict[str, Any]]:
    """Wait until there are ``count`` lines, and return them."""
    await until_async(lambda: len(lines(path)) >= count, 20)
    records = lines(path)
    assert len(records) == count, records
    return records


async def test_a_line_has_the_token_the_request_and_the_outcome(
    nats_server, operator, tokens_service, tmp_path
):
    path = tmp_path / "access.log"
    value, token = await issue(operator, "orders", "api")
    async with logging_edge(nats_server, path, trusted_proxies="127.0.0.0/8") as edge:
        await ready(edge)
        bearer = {"authorization": f"Bearer {value}", "x-forwarded-for": "192.0.2.7"}
        page = {"referer": f"https://user:{value}@shop.example:8443/{value}?access_token={value}#{value}"}
        responses = [
            await edge.get(f"/v1/tokens/{token.id}?x={value}", headers={**bearer, **page}),
            await edge.get("/auth?scope=orders", headers=bearer),
            await edge.get("/auth?scope=orders", headers=bearer),
            await edge.get("/auth?scope=other", headers=bearer),
            await edge.head("/v1/self", headers=bearer),
            await edge.get("/metrics", headers=bearer),
            await edge.get("/v1/self"),
            await edge.get("/docs/page.css", headers={"accept-encoding": "identity"}),
            await edge.get("/admin"),
            await edge.request("BREW", "/v1/self"),
        ]
        records = await logged(path, len(responses))
    for response, line in zip(responses, records, strict=True):
        assert line["request"] == response.headers["x-request-id"]
        assert line["status"] == response.status_code
        assert line["bytes"] == len(response.content)
        assert 0 < line["duration_s"] < 30
        assert line["time"].endswith("Z")
    first = records[0]
    assert (first["address"], first["referrer"]) == ("192.0.2.7", "https://shop.example:8443")
    assert (first["method"], first["route"]) == ("GET", "/v1/tokens/{token_id}")
    assert first["path"] == f"/v1/tokens/{token.id}"
    assert [line["token"] for line in records] == [token.id] * 6 + [None] * 4
    assert [line["reason"] for line in records] == [
        *(
            "bad_request",
            None,
            None,
            "insufficient_scope",
            None,
            "insufficient_scope",
            "missing_token",
            None,
            None,
        ),
        "method_not_allowed",
    ]
    assert {line["route"] for line in records[1:4]} == {"/auth"}
    assert [line["method"] for line in records[4:]] == ["HEAD", "GET", "GET", "GET", "GET", "other"]
    assert oct(path.stat().st_mode & 0o777) == "0o640"


async def test_a_rejection_is_logged_with_its_token_and_its_reason(
    nats_server, operator, tokens_service, tmp_path
):
    path = tmp_path / "access.log"
    revoked_value, revoked = await issue(operator, "api")
    value, _ = await issue(operator, "api")
    limit = Restrictions(rate_limit=RateLimit(max_requests=1, time_window=86_400))
    limited_value, limited = await issue(operator, "api", restrictions=limit)
    actor = Actor(name="test")
    await call(operator, REVOKE_TOKEN.by_operator, RevokeToken(id=revoked.id, actor=actor))
    async with logging_edge(nats_server, path, access_log="rejected") as edge:
        await ready(edge)
        values = (revoked_value, value, limited_value, limited_value, token_format.mint(), "x")
        for value in values:
            await edge.get("/v1/self", headers={"authorization": f"Bearer {value}"})
        await sign_in(edge, "x", **{"sec-fetch-site": "cross-site"})
        for _ in range(Attempts.MAX_ATTEMPTS + 1):
            await sign_in(edge, "x")
        records = await logged(path, 4 + Attempts.MAX_ATTEMPTS + 2)
    assert [(line["token"], line["reason"], line["status"]) for line in records] == [
        (revoked.id, "revoked", 401),
        (limited.id, "rate_limited", 429),
        (None, "invalid_token", 401),
        (None, "invalid_token", 401),
        (None, "forged", 403),
        *[(None, "invalid_token", 401)] * (Attempts.MAX_ATTEMPTS - 1),
        (None, "too_many_attempts", 429),
        (None, "too_many_attempts", 429),
    ]
    assert {line["address"] for line in records} == {"127.0.0.1"}


async def test_logged_rejections_are_rate_limited(nats_server, event_stream, tmp_path):
    path = tmp_path / "access.log"
    requests = 5 * MAX_REJECTIONS_PER_S
    async with logging_edge(nats_server, path, access_log="rejected") as edge:
        for _ in range(requests):
            await edge.get("/v1/self")
        await edge.get("/docs/page.css")
    records = lines(path)
    written = [line for line in records if "status" in line]
    dropped = sum(line.get("dropped", 0) for line in records)
    assert len(written) + dropped == requests
    by_second: dict[str, int] = {}
    for line in written:
        by_second[line["time"][:19]] = by_second.get(line["time"][:19], 0) + 1
    assert max(by_second.values()) <= MAX_REJECTIONS_PER_S
    assert dropped > 0


async def test_no_token_is_logged_in_any_encoding(nats_server, operator, tokens_service, tmp_path):
    path = tmp_path / "access.log"
    canaries = [
        (await issue(operator, "api"))[0],
        token_format.mint(),
        secrets.token_hex(32),
        "tly_short",
        "tly_CANARYmalformedCANARY",
        f"slash/{secrets.token_hex(5)}/+{secrets.token_hex(9)}",
    ]
    async with logging_edge(nats_server, path) as edge:
        await ready(edge)
        for value in canaries:
            encoded = quote(value, safe="")
            bearer = {"authorization": f"Bearer {value}"}
            for url in (
                f"/v1/self?access_token={encoded}",
                f"/v1/self?access%5ftoken={encoded}",
                f"/v1/self?{encoded}",
                f"/nowhere/{encoded}",
                f"/{encoded}",
                f"/{encoded}/log",
                f"/v1/tokens/{encoded}",
                f"/v1/tokens/{encoded}/log",
                f"/v1/token/{encoded}",
                f"/v1/account/{encoded}",
                f"/v1/account/{quote(encoded, safe='')}",
                f"/admin/tokens/{encoded}",
                f"/auth?scope=api&account={encoded}",
            ):
                for method in ("GET", "DELETE"):
                    await edge.request(
                        method, url, headers={**bearer, "referer": f"https://x.example/{value}"}
                    )
                    await edge.request(method, url, headers={"referer": f"{value}", "user-agent": value})
            await edge.get("/v1/self", headers={"authorization": f"Bearer {value} {value}"})
            await edge.post("/oauth2/introspect", data={"token": value}, auth=("x", value))
            await edge.post("/admin/sign-in", data={"token": value})
            await edge.request(value.replace("/", "-"), "/v1/self")
    text = path.read_text()
    assert len(text.splitlines()) > 100
    for value in canaries:
        for form in (value, quote(value, safe=""), quote(quote(value, safe=""), safe="")):
            assert form not in text
    assert "https://x.example" in text


ROUTES = (
    *("/v1/tokens/{token_id}", "/v1/tokens/{token_id}/log", "/v1/token/{token}", "/v1/account/{account}"),
    *("/{path}", UNROUTED, "/v1/self"),
)


@given(
    st.text(alphabet=VISIBLE, min_size=16, max_size=40),
    st.sampled_from(ROUTES),
    st.sampled_from(("/", "/v1/tokens/", "/v1/token/", "/v1/account/", "/a/b/c/", "/v1/tokens/tok_x/")),
    st.sampled_from(("", "/log", "/x/y")),
    st.sampled_from(("", "/", "%")),
)
@example("abcdefgh/ijklmnop", UNROUTED, "/", "", "/")
@example("a/b/c/d/e/f/g/h/i", "/{path}", "/", "", "/")
@example("a" * 15 + "/", "/admin/{path}", "/admin/", "", "/")
@example("/" + "a" * 14 + "/", "/v1/account/{account}", "/v1/account/", "", "/")
def test_a_masked_path_contains_no_token(value: str, route: str, before: str, after: str, safe: str):
    raw = (before + quote(value, safe=safe) + after).encode()
    masked = masked_path(raw, route)
    assert value not in masked
    assert quote(value, safe="") not in masked
    assert masked.isascii()
    assert masked.isprintable()


@pytest.mark.parametrize(
    ("raw", "route", "masked"),
    [
        (b"/v1/self", UNROUTED, "/v1/self"),
        (b"/wp-login.php", "/{path}", "/wp-login.php"),
        (b"/oauth2/introspect", "/oauth2/introspect", "/oauth2/introspect"),
        (b"/v1/account/alice", "/v1/account/{account}", "/v1/account/alice"),
        (b"/v1/account/alice@example.com.invalid", "/v1/account/{account}", "/v1/account/*"),
        (b"/v1/tokens/tok_01m843q3qr6w1ap6798pcsndkt/log", "/v1/tokens/{token_id}/log", None),
        (b"/" + b"a" * 16, UNROUTED, "/*"),
        (b"/nowhere/far/away/from/here", UNROUTED, "/nowhere/far/*"),
        (b'/\x7f\xff"\n', UNROUTED, "/%7F%FF%22%0A"),
    ],
)
def test_a_masked_path_keeps_short_segments(raw: bytes, route: str, masked: str | None):
    assert masked_path(raw, route).lower() == (masked or raw.decode()).lower()


class Line(NamedTuple):
    time: float
    text: str


def test_logged_text_adds_no_line(tmp_path):
    path = tmp_path / "log"
    texts = ["a\nb", "\r\n{}", "\x00\x1b[2J", '"}\n{"forged": "', "\u2028\x85", "é"]
    writer = LineWriter(path)
    with writer.running():
        for text in texts:
            writer.put(Line(1.5, text))
    raw = path.read_bytes()
    assert raw.count(b"\n") == len(texts)
    assert not any(byte < 0x20 for byte in raw.replace(b"\n", b""))
    assert [json.loads(line)["text"] for line in raw.split(b"\n")[:-1]] == texts


async def test_a_renamed_file_is_replaced_by_a_new_file(tmp_path):
    path, moved = tmp_path / "log", tmp_path / "log.1"
    writer = LineWriter(path)
    with writer.running():
        writer.put(Line(1, "before"))
        await until_async(lambda: len(lines(path)) == 1)
        path.rename(moved)
        writer.put(Line(2, "after"))
        await until_async(lambda: len(lines(path)) == 1)
        path.unlink()
        writer.put(Line(3, "again"))
        await until_async(lambda: len(lines(path)) == 1)
    assert [line["text"] for line in lines(moved)] == ["before"]
    assert [line["text"] for line in lines(path)] == ["again"]


async def test_a_pipe_without_a_reader_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setattr(line_writer, "STOP_S", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(path)
    total = 4 * line_writer.MAX_WAITING
    loop = asyncio.get_running_loop()
    with writer.running():
        start = loop.time()
        for number in range(total):
            writer.put(Line(number, "x" * 100))
        assert loop.time() - start < 5
        assert writer.dropped >= total - 2 * line_writer.MAX_WAITING
    received = b""
    accounted_for = 0

    def count() -> int:
        nonlocal received, accounted_for
        with suppress(BlockingIOError):
            received += os.read(reader, 1 << 20)
        *whole, received = received.split(b"\n")
        for line in map(json.loads, whole):
            accounted_for += int(line.get("dropped", "text" in line))
        return accounted_for

    await until_async(lambda: count() >= total, 20)
    assert count() == total
    os.close(reader)


async def test_lines_that_cannot_be_written_are_counted(tmp_path, caplog):
    folder = tmp_path / "later"
    writer = LineWriter(folder / "log")
    with writer.running():
        writer.put(Line(1, "lost"))
        await until_async(lambda: "cannot write the access log: No such file" in caplog.text)
        folder.mkdir()
        await until_async(lambda: [line.get("dropped") for line in lines(folder / "log")] == [1])


def test_the_access_log_is_off_by_default(tmp_path):
    assert isinstance(create_app(Settings(nats_url="nats://x")), AuthenticationMiddleware)
    path = str(tmp_path / "log")
    app = create_app(Settings(nats_url="nats://x", access_log="all", access_log_path=path))
    assert isinstance(app, AccessLog)


@pytest.mark.parametrize("name", ["missing/log", "."])
def test_an_unwritable_path_is_an_invalid_setting(tmp_path, name: str):
    settings = Settings(nats_url="nats://x", access_log="all", access_log_path=str(tmp_path / name))
    with pytest.raises(SettingsError, match="TALLYSTICK_ACCESS_LOG_PATH") as error:
        settings.access_log_file()
    assert str(tmp_path) not in str(error.value)


def test_the_settings_are_read_from_the_environment(tmp_path):
    environment = {
        "TALLYSTICK_NATS_URL": "nats://x",
        "TALLYSTICK_ACCESS_LOG": "rejected",
        "TALLYSTICK_ACCESS_LOG_PATH": str(tmp_path / "log"),
        "TALLYSTICK_CORS_ORIGINS": "https://app.example.com",
    }
    settings = load(Settings, environment)
    assert (settings.access_log, settings.access_log_file()) == ("rejected", tmp_path / "log")
    with pytest.raises(SettingsError, match="TALLYSTICK_ACCESS_LOG"):
        load(Settings, {**environment, "TALLYSTICK_ACCESS_LOG": "everything"})

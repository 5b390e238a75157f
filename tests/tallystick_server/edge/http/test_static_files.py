"""Static files are served compressed and revalidated by their ETag."""

import gzip
from typing import Any

import httpx
import pytest

from tallystick_server.edge.app import create_app
from tallystick_server.edge.dashboard.assets import MEDIA_TYPES
from tallystick_server.edge.settings import Settings

PATHS = {
    "/docs": "text/html; charset=utf-8",
    "/docs/page.js": "text/javascript; charset=utf-8",
    "/docs/page.css": "text/css; charset=utf-8",
    "/docs/openapi.json": "application/json",
    **{
        f"/admin/assets/{name}": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
        for name, kind in MEDIA_TYPES.items()
    },
}


@pytest.fixture(scope="module")
def application() -> Any:
    return create_app(Settings(nats_url="nats://127.0.0.1:1"))


@pytest.fixture
async def client(application: Any):
    # No service is needed, so none is started.
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, coding: str, **headers: str) -> httpx.Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.get(path, headers={"accept-encoding": coding, **fields})


@pytest.mark.parametrize("path", PATHS)
async def test_a_file_has_equal_content_and_its_own_etag_in_each_coding(client: httpx.AsyncClient, path: str):
    plain, compressed = await get(client, path, "identity"), await get(client, path, "br, gzip")
    assert plain.status_code == compressed.status_code == 200
    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert int(compressed.headers["content-length"]) < int(plain.headers["content-length"])
    assert plain.content == compressed.content  # httpx has decompressed it
    assert plain.headers["etag"] != compressed.headers["etag"]
    for response in (plain, compressed):
        assert response.headers["content-type"] == PATHS[path]
        assert response.headers["vary"] == "accept-encoding"
        assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", PATHS)
async def test_an_unchanged_file_is_not_sent_again(client: httpx.AsyncClient, path: str):
    for coding in ("identity", "gzip"):
        tag = (await get(client, path, coding)).headers["etag"]
        assert tag.startswith('"')
        for matching in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            response = await get(client, path, coding, if_none_match=matching)
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == tag
            assert response.headers["vary"] == "accept-encoding"
        for different in ('"other"', tag.strip('"'), "", f"{tag[:-1]}x{tag[-1:]}", '"other", *', "*, *"):
            assert (await get(client, path, coding, if_none_match=different)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_head_has_the_headers_of_get(client: httpx.AsyncClient, path: str):
    get_response = await get(client, path, "gzip")
    head_response = await client.head(path, headers={"accept-encoding": "gzip"})
    assert (head_response.status_code, head_response.content) == (200, b"")
    for name in ("content-length", "content-type", "content-encoding", "etag", "vary"):
        assert head_response.headers[name] == get_response.headers[name]


async def test_a_file_is_compressed_when_the_application_is_created(application: Any):
    file = application._app.state.docs["openapi.json"]
    assert gzip.decompress(file.compressed) == file.content


async def test_a_response_for_one_token_is_not_compressed(client: httpx.AsyncClient):
    for path in ("/v1/self", "/admin/sign-in", "/health/live"):
        assert "content-encoding" not in (await get(client, path, "gzip")).headers

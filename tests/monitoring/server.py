"""Prometheus with the repository's configuration."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tallystick_server.local.processes import spawn
from tests.support.ports import free_port

CONFIGURATION = Path(__file__).parent.parent.parent / "deploy" / "prometheus"


class Series(NamedTuple):
    """Args:
    labels: by name.
    samples: times in seconds and values.
    """

    labels: dict[str, str]
    samples: list[tuple[float, float]]


class Prometheus:
    """Args:
    folder: the server's copy of the configuration. A test can change ``secrets/token`` in it.
    client: an HTTP client of the server.
    """

    def __init__(self, folder: Path, client: httpx.AsyncClient) -> None:
        self.token = folder / "secrets" / "token"
        self._client = client

    async def api(self, path: str, **parameters: Any) -> Any:
        """Return the data of a successful response."""
        response = (await self._client.get(f"/api/v1/{path}", params=parameters)).json()
        assert response["status"] == "success", (parameters, response)
        assert not response.get("warnings"), (parameters, response["warnings"])
        return response["data"]

    async def query(self, expr: str, at: float | None = None) -> list[Series]:
        result = await self.api("query", query=expr, **({} if at is None else {"time": f"{at:.3f}"}))
        if result["resultType"] == "scalar":
            return [_series({"metric": {}, "value": result["result"]})]
        return [_series(item) for item in result["result"]]

    async def query_range(self, expr: str, start: float, end: float, step_s: float) -> list[Series]:
        result = await self.api("query_range", query=expr, start=start, end=end, step=step_s)
        return [_series(item) for item in result["result"]]

    async def until(
        self, expr: str, condition: Callable[[list[float]], bool], timeout_s: float = 30
    ) -> list[float]:
        """Query until the values meet the condition, and return them."""
        values: list[float] = []
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            values = [series.samples[-1][1] for series in await self.query(expr)]
            if condition(values):
                return values
            await asyncio.sleep(0.2)
        raise AssertionError(f"{expr} is {values}")


def _series(item: dict[str, Any]) -> Series:
    samples = item["values"] if "values" in item else [item["value"]]
    return Series(item["metric"], [(float(at), float(value)) for at, value in samples])


@asynccontextmanager
async def prometheus(folder: Path, ports: list[int], token: str) -> AsyncIterator[Prometheus]:
    """Args:
    folder: an empty folder for the configuration, the data and the log.
    ports: the ports of the edges.
    token: a token of scope ``metrics``.
    """
    settings = folder / "settings"
    shutil.copytree(CONFIGURATION, settings, ignore=shutil.ignore_patterns("secrets"))
    main = settings / "prometheus.yml"
    main.write_text(main.read_text().replace("15s", "1s"))
    (settings / "targets.yml").write_text(str([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
    (settings / "secrets").mkdir(mode=0o700)
    (settings / "secrets" / "token").write_text(token)
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = await spawn(
            [
                "prometheus",
                f"--config.file={main}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            output=log,
        )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10
        ) as client:
            async with asyncio.timeout(20):
                while not await _ready(client):
                    assert process.returncode is None, (folder / "log").read_text()
                    await asyncio.sleep(0.1)
            yield Prometheus(settings, client)
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


async def _ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx.TransportError:
        return False

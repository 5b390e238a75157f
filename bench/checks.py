"""The cost of a check, as ratios to a reference measured in the same run: the medians of several rounds.

    .venv/bin/python -m bench.checks            needs Debian's wrk; some minutes
    .venv/bin/python -m bench.checks warm cold  only these

The server under test has one core, everything else another. Ratios are of requests per second unless said otherwise.
"""

import argparse
import asyncio
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx

from tallystick.tokens import format as token_format
from tallystick_server.local.nats import free_port
from tallystick_server.local.processes import spawn
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.http import Connection
from tests.support.paths import PYTHON_PATH, ROOT
from tests.support.up import environment

SERVER, REST = {0}, {1}
"""The cores."""
CONNECTIONS = 32
LUA = """
local lines = {}
for line in io.lines(os.getenv("TOKENS")) do lines[#lines + 1] = line end
local n = 0
request = function()
  n = n % #lines + 1
  return wrk.format("GET", nil, {["Authorization"] = "Bearer " .. lines[n]})
end
"""


class Load(NamedTuple):
    rate: float
    p99_ms: float


async def wrk(
    url: str,
    *,
    token: str = "",
    scheme: str = "Bearer",
    tokens: Path | None = None,
    seconds: float = 2,
    connections: int = CONNECTIONS,
) -> Load:
    """Sends requests as fast as responses arrive. ``tokens``: a file of tokens, used one after the other."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if token:
        argv += ["-H", f"Authorization: {scheme} {token}"]
    if tokens:
        argv += ["-s", str(tokens.with_suffix(".lua"))]
        tokens.with_suffix(".lua").write_text(LUA)
    process = await asyncio.create_subprocess_exec(
        *argv, url, stdout=subprocess.PIPE, env={**os.environ, "TOKENS": str(tokens)}
    )
    printed = (await process.communicate())[0].decode()
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", printed)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert p99, printed
    assert rate, printed
    return Load(float(rate[1]), float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]])


@asynccontextmanager
async def served(app: str, running: Fleet, **settings: str) -> AsyncIterator[str]:
    """An application of `bench.apps` on a core of its own; its address."""
    port = free_port()
    process = await spawn(
        ["taskset", "-c", "0", str(Path(sys.executable).with_name("granian")), "--interface", "asgi"]
        + ["--factory", f"bench.apps:{app}", "--port", str(port), "--workers", "1", "--loop", "uvloop"]
        + ["--http", "1", "--no-ws", "--log-level", "warning"],
        environment=_environment(running, **settings),
    )
    try:
        yield await _listening(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        await process.wait()


def _environment(running: Fleet, **settings: str) -> dict[str, str]:
    return {
        **environment(nats_url=running.nats_url("edge"), **settings),
        "BENCH_NATS_URL": running.nats_url("edge"),
        "BENCH_RESPONDER_URL": running.nats_url("tokens"),
        "BENCH_DATABASE_URL": running.database_url("tokens"),
        "PYTHONPATH": PYTHON_PATH,
    }


async def _listening(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(200):
            try:
                await client.get(f"{url}/auth")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                break
    await asyncio.sleep(0.5)  # an edge takes its lease
    return url


async def rounds(contenders: dict[str, tuple[str, str]], count: int = 5) -> dict[str, float]:
    """Requests per second of each, by turns; the medians. A contender is an address and a token."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(count):
        for name, (url, token) in contenders.items():
            measured[name].append((await wrk(url, token=token)).rate)
    return {name: statistics.median(rates) for name, rates in measured.items()}


def say(what: str, ours: float, theirs: float, unit: str = "/s") -> None:
    print(f"{what:<66} {ours:>10.5g}{unit} {theirs:>10.5g}{unit}  ratio {ours / theirs:.2f}", flush=True)


async def warm(running: Fleet) -> None:
    token = (await make_tokens(running, 1))[0]
    async with (
        served("edge", running) as edge,
        served("bare_litestar", running) as litestar,
        served("bare_asgi", running) as asgi,
        served("selecting", running) as selecting,
    ):
        rates = await rounds(
            {
                "small": (f"{edge}/small", token),
                "bare small": (f"{litestar}/small", token),
                "auth": (f"{edge}/auth?scope=api", token),
                "bare auth": (f"{asgi}/auth", token),
                "401": (f"{edge}/v1/self", token[:-1]),
                "bare 401": (f"{asgi}/401", token[:-1]),
                "403": (f"{edge}/auth?scope=other", token),
                "bare 403": (f"{asgi}/403", token),
                "select": (f"{selecting}/small", token),
            }
        )
    say("warm check on a small JSON route : the route in bare Litestar", rates["small"], rates["bare small"])
    say("warm forward-auth : a bare ASGI application", rates["auth"], rates["bare auth"])
    say("401 by shape : a bare ASGI application", rates["401"], rates["bare 401"])
    say("403 : a bare ASGI application", rates["403"], rates["bare 403"])
    say("warm check : Litestar with one asyncpg select for each request", rates["small"], rates["select"])


async def hex_tokens(running: Fleet) -> None:
    """EmailEngine's tokens beside ours, both in the edge's cache."""
    ours = (await make_tokens(running, 1))[0]
    theirs = secrets.token_hex(32)
    await store_tokens(running, [token_format.digest(theirs) or ""])
    async with served("edge", running) as edge:
        contenders = {
            f"{path} {name}": (f"{edge}{path}", token)
            for path in ("/auth?scope=api", "/auth?scope=other", "/small")
            for name, token in (("hex", theirs), ("ours", ours))
        }
        async with httpx.AsyncClient(trust_env=False) as client:
            for url, token in contenders.values():
                answer = await client.get(url, headers={"authorization": f"Bearer {token}"})
                assert answer.status_code == (403 if "other" in url else 200), url
        rates = await rounds(contenders)
    for path, what in (
        ("/auth?scope=api", "warm forward-auth"),
        ("/auth?scope=other", "403"),
        ("/small", "warm check on a small JSON route"),
    ):
        say(f"{what}, a 64-hex token : a tly_ token", rates[f"{path} hex"], rates[f"{path} ours"])


async def cold(running: Fleet) -> None:
    rounds_, per_round = 5, 20_000
    tokens = await make_tokens(running, rounds_ * per_round)
    responder = await spawn([sys.executable, "-m", "bench.apps"], environment=_environment(running))
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with served("edge", running) as edge, served("asking", running) as asking:
            for number in range(rounds_):
                file = Path(folder) / f"{number}.tokens"
                file.write_text("\n".join(tokens[number * per_round : (number + 1) * per_round]))
                ours.append((await wrk(f"{edge}/small", tokens=file)).rate)
                theirs.append((await wrk(f"{asking}/small", tokens=file)).rate)
    responder.terminate()
    await responder.wait()
    say(
        "cold check : Litestar, one nats-py request, one asyncpg select",
        statistics.median(ours),
        statistics.median(theirs),
    )


async def many(running: Fleet) -> None:
    """The same edge with more and more tokens in PostgreSQL. What the machine itself makes of the time in between is
    taken out by what a bare application does beside it.
    """
    token = (await make_tokens(running, 1))[0]
    by_count = {}
    async with served("edge", running) as edge, served("bare_litestar", running) as litestar:
        for count in (10**3, 10**5, 10**6):
            await fill(running, count)
            fresh = await make_tokens(running, 10_000)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "tokens"
                file.write_text("\n".join(fresh))
                colds = (await wrk(f"{edge}/small", tokens=file, seconds=1)).rate
            warms = await rounds({"ours": (f"{edge}/small", token), "bare": (f"{litestar}/small", token)})
            by_count[count] = warms["ours"] / warms["bare"], colds
    for count in (10**5, 10**6):
        say(f"warm : bare, with {count:,} tokens : with 1,000", by_count[count][0], by_count[10**3][0], "")
        say(f"cold check with {count:,} tokens : with 1,000", by_count[count][1], by_count[10**3][1])


async def flood(running: Fleet) -> None:
    """The 99th percentile of a good client, alone and while 20,000 distinct bad tokens a second come in."""
    token = (await make_tokens(running, 1))[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bad"
        file.write_text("\n".join(token_format.PREFIX + secrets.token_hex(24) for _ in range(50_000)))
        async with served("edge", running) as edge:
            alone = await good_client(edge, token)
            bad = asyncio.create_task(wrk(f"{edge}/v1/self", tokens=file, seconds=4, connections=4))
            await asyncio.sleep(0.3)
            flooded = await good_client(edge, token)
            rate = (await bad).rate
    say(f"p99 of a good client during {rate:,.0f} bad tokens a second : alone", flooded, alone, " ms")


async def good_client(url: str, token: str) -> float:
    """The 99th percentile, in milliseconds, of one request every two milliseconds."""
    connection = Connection(int(url.rpartition(":")[2]))
    took = []
    for _ in range(1000):
        began = time.perf_counter()
        assert (await connection.send("GET", "/small", token)).status == 200
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.002)
    connection.close()
    return statistics.quantiles(took, n=100)[98]


async def peers(running: Fleet) -> None:
    """Django REST Knox under gunicorn, from an environment of its own: see `bench/peers/requirements.txt`."""
    programs = Path(os.environ.get("BENCH_PEERS", ".venv-peers")) / "bin"
    if not (programs / "gunicorn").exists():
        print(f"peers: not measured, {programs} has no gunicorn (bench/peers/requirements.txt)")
        return
    database = urlsplit(running.database_url("tokens"))
    settings = {
        "BENCH_NAME": database.path[1:],
        "BENCH_USER": str(database.username),
        "BENCH_PASSWORD": str(database.password),
        "BENCH_HOST": database.query.removeprefix("host="),
    }
    folder = ROOT / "bench" / "peers"
    preparing = await asyncio.create_subprocess_exec(
        str(programs / "python"),
        str(folder / "django_knox.py"),
        stdout=subprocess.PIPE,
        env=environment() | settings,
    )
    token = (await preparing.communicate())[0].decode()
    port = free_port()
    gunicorn = await spawn(
        ["taskset", "-c", "0", str(programs / "gunicorn"), "--chdir", str(folder), "django_knox:application"]
        + ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--worker-class", "gthread", "--threads", "8"],
        environment=environment() | settings,
    )
    theirs = await _listening(f"http://127.0.0.1:{port}")
    ours = (await make_tokens(running, 1))[0]
    async with served("edge", running) as edge:
        pairs = []
        for _ in range(3):
            mine = await wrk(f"{edge}/small", token=ours)
            knox = await wrk(f"{theirs}/small", token=token, scheme="Token")
            pairs.append((mine.rate, knox.rate))
    gunicorn.terminate()
    await gunicorn.wait()
    say(
        "warm check : Django REST Knox under gunicorn",
        statistics.median(mine for mine, _ in pairs),
        statistics.median(knox for _, knox in pairs),
    )


async def revoking() -> None:
    """How long a revoke call takes."""
    for workers in (1, 2, 4):
        async with fleet(edges=1, replicas=2, workers=workers) as running:
            connection = Connection(running.ports[0])
            await asyncio.sleep(1)
            took = []
            for _ in range(300):
                answer = await connection.send("POST", "/v1/tokens", running.admin, b'{"scopes":["api"]}')
                identity = answer.body.partition(b'"id":"')[2][:30].decode()
                began = time.perf_counter()
                answer = await connection.send("DELETE", f"/v1/tokens/{identity}", running.admin)
                took.append((time.perf_counter() - began) * 1000)
                assert f'"edges":{workers}'.encode() in answer.body, answer.body
            connection.close()
        percentiles = statistics.quantiles(took, n=100)
        print(
            f"revoke, {workers} workers: p50 {percentiles[49]:.1f} ms, p99 {percentiles[98]:.1f} ms",
            flush=True,
        )


async def make_tokens(running: Fleet, count: int) -> list[str]:
    """New tokens of scope ``api``, straight into the database."""
    created = [token_format.new_secret() for _ in range(count)]
    await store_tokens(running, [secret.digest for secret in created])
    return [secret.value for secret in created]


async def store_tokens(running: Fleet, digests: Sequence[str]) -> None:
    connection = await asyncpg.connect(running.database_url("tokens"))
    await connection.executemany(
        "insert into tokens.token (id, digest, hint, description, scopes, restrictions, created_by, family, chain)"
        " values ($1, $2, '', '', '{api}', '{}', 'bench', $1, $1)",
        [(f"tok_{digest[:26]}", bytes.fromhex(digest)) for digest in digests],
    )
    await connection.close()


async def fill(running: Fleet, count: int) -> None:
    """As many other tokens as are missing."""
    connection = await asyncpg.connect(running.database_url("tokens"))
    await connection.execute(
        """
        insert into tokens.token (id, digest, hint, description, scopes, restrictions, created_by, family, chain)
        select id, sha256(n::text::bytea), '', '', '{api}', '{}', 'bench', id, id
        from generate_series(1, $1) n cross join lateral (select 'tok_' || substr(md5(n::text), 1, 26) as id) as named
        on conflict do nothing
        """,
        count,
        timeout=300,
    )
    # PostgreSQL would do so by itself, during the next measurement.
    await connection.execute("vacuum analyze tokens.token", timeout=300)
    await connection.close()


PARTS = {"warm": warm, "hex": hex_tokens, "peers": peers, "cold": cold, "many": many, "flood": flood}


async def run(wanted: Sequence[str]) -> None:
    os.sched_setaffinity(0, REST)
    async with fleet(edges=0, replicas=1) as running:
        for name, part in PARTS.items():
            if name in wanted:
                await part(running)
    if "revoking" in wanted:
        os.sched_setaffinity(0, SERVER | REST)
        await revoking()


def main() -> None:
    parser = argparse.ArgumentParser(description="What a check costs")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}, revoking; all without any")
    asyncio.run(run(parser.parse_args().parts or [*PARTS, "revoking"]))


if __name__ == "__main__":
    main()

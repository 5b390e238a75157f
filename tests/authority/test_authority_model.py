"""The services against the model: over HTTP, an edge's and the operator's NATS subjects, sequentially and concurrently."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tallystick_server.edge.dashboard.sessions import csrf
from tests.authority.cases import CASES
from tests.authority.commands import ALICE, by, create, disable, edit, enable, revoke, rotate, sign_in
from tests.authority.driver import Run, System
from tests.authority.model import Command, Grant
from tests.authority.programs import programs, steps
from tests.authority.search import search
from tests.authority.servers import serve
from tests.support.servers import Database, Nats

READER = Grant(("orders:read",), account="alice")


@pytest.fixture
async def system(database: Database, nats_server: Nats) -> AsyncIterator[System]:
    async with serve(database.owner, nats_server) as running:
        yield running


async def test_known_attacks(system: System):
    failures = []
    limit = asyncio.Semaphore(4)

    async def check(name: str) -> None:
        async with limit:
            try:
                await system.check(CASES[name])
            except AssertionError as error:
                failures.append(f"{name}: {error}")

    await asyncio.gather(*map(check, CASES))
    assert not failures, "\n\n".join(failures)


async def test_slow_forms(system: System):
    """The last byte of a form is sent after its sender has lost the permission."""
    start = steps(create("root"), create("duty"), create("plain"))
    async with system.started(start) as run:

        def bearer(name: str) -> dict[str, str]:
            return {"authorization": f"Bearer {run.values[name]}"}

        for path in ("/oauth2/revoke", "/oauth2/introspect"):
            form = {"token": run.values["plain"]}
            headers = bearer("duty") if path == "/oauth2/revoke" else bearer("root")
            acting = "duty" if path == "/oauth2/revoke" else "root"
            # The edge has cached the token before the request starts.
            assert (
                await run.observe(Command("use", by(acting, http=True), scope="api:tokens:delete"))
            ).code == "ok"
            response = await run.post_slowly(path, form, headers, disable(acting))
            assert response.status_code == 401, response.text
            assert (await run.observe(enable(acting))).code == "ok"
        plain = run.ids["plain"]
        before = await run.read_state()
        for path, form in (
            (f"/admin/tokens/{plain}/revoke", {}),
            (f"/admin/tokens/{plain}/disable", {}),
            (f"/admin/tokens/{plain}/rotate", {"grace": "0"}),
            (f"/admin/tokens/{plain}/edit", {"description": "x", "scopes": "orders"}),
            ("/admin/tokens/new", {"description": "x", "scopes": "orders"}),
            ("/admin/accounts", {"account": f"bob-{run.prefix}"}),
        ):
            assert (await run.observe(sign_in("root", "s", http=True))).code == "ok"
            secret = run.sessions["s"]
            headers = {"cookie": f"{run.cookie}={secret}"}
            response = await run.post_slowly(
                path, {**form, "csrf": csrf(secret)}, headers, Command("sign_out", target="s")
            )
            assert response.status_code == 303, path
            assert response.headers["location"].startswith("/admin/sign-in")
        audit, accepted = await run.read_state()
        assert [row for row in audit if row[0] != "session.started"] == list(before[0])
        assert accepted == before[1]


async def test_sequential_programs(system: System):
    await asyncio.to_thread(search, system, asyncio.get_running_loop(), programs(max_burst=0), examples=20)


async def test_concurrent_programs(system: System):
    await asyncio.to_thread(search, system, asyncio.get_running_loop(), programs(max_steps=8), examples=15)


async def test_changes_of_one_family_do_not_deadlock(system: System):
    """Fifty concurrent changes have too many orders for the model. That no token outlives the account is checked here."""
    before = await system.deadlocks()
    start = steps(ALICE, create("root"), create("alice_maker"), create("r0", READER))
    chain = steps(*(rotate(f"r{number}", f"r{number + 1}") for number in range(3)))
    async with system.started((*start, *chain)) as run:
        changes = [
            change
            for number in range(6)
            for change in (
                disable(f"r{number % 4}"),
                enable(f"r{3 - number % 4}", by("root", http=True)),
                rotate("r3", f"x{number}", by("r3")),
                rotate("alice_maker", f"m{number}", by("alice_maker")),
                edit("r3", {"description": f"{number}"}),
                create(f"y{number}", READER, by("alice_maker")),
                create(f"z{number}", READER, by("root", http=True)),
                revoke("r1", by("root"))
                if number == 4
                else edit("alice_maker", {"description": f"{number}"}),
            )
        ]
        ends = [Command("revoke_all", target="alice"), Command("delete_account", target="alice")]
        observations = await asyncio.gather(*map(run.observe, [*changes, *ends]))
        assert len(observations) == 50
        assert not {observation.code for observation in observations} & {"internal", "500"}
        if observations[-1].code != "ok":
            await run.observe(Command("delete_account", target="alice"))
        final_state = await run.read_state()
        assert {name for name, accepted in final_state[1].items() if accepted} == {"root"}
        await run.check_invariants(len(start), list(observations), final_state)
    assert await system.deadlocks() == before


async def test_no_secret_outlives_its_account(system: System):
    """A token rotates itself in a loop, each time with the newest secret, while its account is deleted."""
    for attempt in range(10):
        async with system.started(steps(ALICE, create("r0", READER))) as run:
            is_deleted = False

            async def rotate_until_deleted(run: Run = run) -> None:
                number = 0
                while (
                    await run.observe(rotate(f"r{number}", f"r{number + 1}", by(f"r{number}")))
                ).code == "ok":
                    number += 1

            loop = asyncio.create_task(rotate_until_deleted())
            await asyncio.sleep(0.005 * attempt)
            while not is_deleted:
                is_deleted = (await run.observe(Command("delete_account", target="alice"))).code == "ok"
            _, accepted = await run.read_state()
            assert not any(accepted.values()), accepted
            await loop
            _, accepted = await run.read_state()
            assert not any(accepted.values()), accepted


async def test_what_a_limited_token_rotates_shares_its_count(system: System):
    uses = 3
    grant = Grant(("api:tokens", "orders"), rate=(uses, 86_400))
    start = steps(create("maker", grant), create("sibling", grant), rotate("sibling", "next", by("maker")))
    async with system.started(start) as run:
        for _ in range(uses):
            assert (await run.observe(Command("use", by("next"), scope="orders"))).code == "ok"
        assert (await run.observe(Command("use", by("maker"), scope="orders"))).code == "rate_limited"

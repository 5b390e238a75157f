"""Runs programs against a real tokens service and a real edge, and compares their responses with the model."""

import asyncio
import functools
import hashlib
import itertools
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import msgspec
from msgspec.structs import replace as replace_fields
from nats.aio.client import Client

from tallystick.contracts.accounts import (
    ADD_ACCOUNT,
    DELETE_ACCOUNT,
    AccountDeleted,
    AddAccount,
    AddedAccount,
    DeleteAccount,
)
from tallystick.contracts.imports import IMPORT_TOKENS, Imported, ImportTokens
from tallystick.contracts.operation import Actor, Failure, Operation
from tallystick.contracts.propagation import SETTLE, Settle
from tallystick.contracts.records import NewToken, Token
from tallystick.contracts.sessions import RESUME_SESSION, SIGN_IN, SIGN_OUT, ResumeSession, SignIn, SignOut
from tallystick.contracts.tokens import (
    CREATE_TOKEN,
    EDIT_TOKEN,
    REVOKE_ALL,
    REVOKE_TOKEN,
    ROTATE_TOKEN,
    AllRevoked,
    CreatedToken,
    CreateToken,
    EditToken,
    RevokeAll,
    Revoked,
    RevokeToken,
    RotateToken,
    TokenUpdate,
)
from tallystick.contracts.verification import VERIFY, VerifyToken
from tallystick.rpc.call import call
from tallystick.tokens import format as token_format
from tallystick.tokens.ids import new_id
from tests.authority.linearization import DELETED, FORBIDDEN, UNKNOWN, Observation, linearize
from tests.authority.model import Caller, Command, Grant, State, apply, is_active
from tests.authority.programs import Program, Step, to_json

PAUSE_S = 0.025
"""Between two commands that wait for a locked row, so that they queue for it in the order of the program."""
UNISSUED = "unissued"
"""The name of a token that no program creates."""
TOKEN_OPERATIONS = {"edit", "expire", "revoke", "rotate"}
"""The operations whose target is a token."""
REST_S = 3.0
"""For how long nothing may change before a command without a response counts as finished: longer than it may wait for a lock."""


class Mismatch(AssertionError):
    """The model does not explain an observation."""

    def __init__(self, program: Program, step: int, message: str) -> None:
        super().__init__(f"step {step}: {message}\n{to_json(program[: step + 1])}")


@dataclass
class System:
    """The services under test.

    Args:
        app: the edge's ASGI application.
        edge: a NATS connection with an edge's permissions.
        operator: a NATS connection with an operator's permissions.
        database: connections to PostgreSQL as the owner.
    """

    app: Any
    edge: Client
    operator: Client
    database: asyncpg.Pool
    unknown_outcomes: int = 0
    """The number of commands whose outcome was reported as unknown: the model allows both outcomes."""

    _numbers = itertools.count()

    async def deadlocks(self) -> int:
        """The number of deadlocks that PostgreSQL has resolved so far."""
        count: int = await self.database.fetchval(
            "select deadlocks from pg_stat_database where datname = current_database()"
        )
        return count

    async def check(self, program: Program) -> None:
        """Runs a program with its own accounts and tokens.

        Raises:
            Mismatch: the model does not explain an observation.
        """
        async with self.started(program):
            pass

    @asynccontextmanager
    async def started(self, program: Program) -> AsyncIterator["Run"]:
        """Runs and checks a program like `check`; afterwards, further commands can use the same tokens."""
        run = Run(self, program, next(self._numbers))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://edge", timeout=10
        ) as run.http:
            await run.check()
            yield run


class Run:
    """One run of a program, with its own ids, secrets and accounts for the names in the program."""

    http: httpx.AsyncClient

    def __init__(self, system: System, program: Program, number: int) -> None:
        self.system = system
        self.program = program
        self.prefix = f"{number}-{secrets.token_hex(3)}"
        self.started = datetime.now(UTC).replace(microsecond=0)
        self.ids: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self.sessions: dict[str, str] = {}
        self.cookie = ""
        self.unconfirmed: dict[str, str] = {}
        """The values of tokens whose creation got no response, by name: they may exist."""

    async def check(self) -> None:
        state = State()
        for number, step in enumerate(self.program):
            raw_observations = await self.run(step)
            unknown = sum(observation.code == UNKNOWN for observation in raw_observations)
            self.system.unknown_outcomes += unknown
            actual = await (self.read_stable_state() if unknown else self.read_state())
            observations = [self.renamed(observation) for observation in raw_observations]
            after = linearize(state, observations, functools.partial(self.agrees, actual))
            if after is None:
                raise Mismatch(self.program, number, self.explain(state, observations, actual))
            await self.check_invariants(number, observations, actual)
            state = after

    async def run(self, step: Step) -> list[Observation]:
        if step.pause == "last_byte":
            return await self.run_paused(step)
        if step.pause.startswith("row:"):
            async with self.locked(step.pause.removeprefix("row:")):
                tasks = []
                for command in step.commands:
                    tasks.append(asyncio.create_task(self.observe(command)))
                    await asyncio.sleep(PAUSE_S)
            return list(await asyncio.gather(*tasks))
        return list(await asyncio.gather(*map(self.observe, step.commands)))

    async def read_stable_state(self) -> Any:
        """The result of `read_state` once it is stable: a command that got no response in time may still be running."""
        actual, since = await self.read_state(), time.monotonic()
        while time.monotonic() - since < REST_S:
            await asyncio.sleep(0.1)
            if (again := await self.read_state()) != actual:
                actual, since = again, time.monotonic()
        return actual

    async def run_paused(self, step: Step) -> list[Observation]:
        """Holds back the last byte of the first command's body until the other commands have returned."""
        slow, *meanwhile = step.commands
        reached, released = asyncio.Event(), asyncio.Event()

        async def halt() -> None:
            reached.set()
            await released.wait()

        task = asyncio.create_task(self.observe(slow, halt))
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        observations = [await self.observe(command) for command in meanwhile]
        resumed = time.monotonic()
        released.set()
        return [replace(await task, accepted_after=resumed), *observations]

    @asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[None]:
        """Locks the row of a token or an account around the block."""
        async with self.system.database.acquire() as connection, connection.transaction():
            await connection.execute(
                "select from tokens.account where account = $1 for update", self.account(name)
            )
            await connection.execute("select from tokens.token where id = $1 for update", self.id(name))
            yield

    async def post_slowly(
        self, path: str, form: dict[str, str], headers: dict[str, str], *meanwhile: Command
    ) -> httpx.Response:
        """Sends a form without its last byte, and this once the commands have been carried out."""

        async def halt() -> None:
            for command in meanwhile:
                observation = await self.observe(command)
                if observation.code != "ok":
                    raise AssertionError(f"{command}: {observation.code}")

        headers = {**headers, "content-type": "application/x-www-form-urlencoded"}
        content = halting(urlencode(form).encode(), halt)
        return await self.http.post(path, headers=headers, content=content)

    async def observe(
        self, command: Command, halt: Callable[[], Awaitable[None]] | None = None
    ) -> Observation:
        command = self.as_sent(command)
        invoked = time.monotonic()
        if command.caller.http:
            code, value = await self.over_http(command, halt)
        else:
            code, value = await self.over_nats(command)
        return Observation(command, invoked, time.monotonic(), code, value)

    def as_sent(self, command: Command) -> Command:
        """The command with `UNISSUED` instead of a token whose creation has not returned yet: the sender knows neither its id
        nor its secret, even if it exists by then.
        """
        caller, target = command.caller, command.target
        if caller.token and caller.token not in self.values:
            caller = replace_fields(caller, token=UNISSUED)
        if command.operation in TOKEN_OPERATIONS:
            if target == command.caller.token:
                target = caller.token
            elif target not in (self.values if command.by_value else self.ids):
                target = UNISSUED
        return replace_fields(command, caller=caller, target=target)

    # Names

    def account(self, name: str | None) -> str | None:
        return None if name is None else f"{name}-{self.prefix}"

    def id(self, name: str | None) -> str:
        """A token's id, or an unused id if the token does not exist."""
        return self.ids.get(name or "", "tok_" + "0" * 26)

    def value(self, name: str | None) -> str:
        if name not in self.values:
            self.values[name or ""] = token_format.mint()
        return self.values[name or ""]

    def digest(self, name: str | None) -> str:
        return token_format.digest(self.value(name)) or ""

    def session(self, name: str | None) -> str:
        """The digest of a session's secret."""
        return hashlib.sha256(self.sessions.get(name or "", name or "").encode()).hexdigest()

    def renamed(self, observation: Observation) -> Observation:
        names = {id_: name for name, id_ in self.ids.items()}
        names |= {f"{name}-{self.prefix}": name for name in ("alice", "bob", "nobody")}

        def rename(value: Any) -> Any:
            if isinstance(value, tuple | frozenset):
                return type(value)(map(rename, value))
            return names.get(value, value) if isinstance(value, str) else value

        code = observation.code
        return replace(observation, value=rename(observation.value), code=code)

    def time(self, seconds: float | None) -> str | None:
        return None if seconds is None else (self.started + timedelta(seconds=seconds)).isoformat()

    # HTTP

    async def over_http(
        self, command: Command, halt: Callable[[], Awaitable[None]] | None
    ) -> tuple[str, Any]:
        method, path, body = self.http_request(command)
        headers = {"authorization": f"Bearer {self.value(command.caller.token)}"}
        if command.caller.referrer:
            headers["referer"] = command.caller.referrer
        if command.key:
            headers["idempotency-key"] = command.key
        if command.revision is not None:
            headers["if-match"] = f'"{command.revision}"'
        if command.operation == "sign_in":
            return await self.sign_in_over_http(command, headers)
        content: bytes | AsyncIterator[bytes] | None = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
            if halt is not None:
                content = halting(content, halt)
        response = await self.http.request(method, path, headers=headers, content=content)
        if response.status_code == 202:
            self.unconfirmed[command.new or ""] = response.json()["token"]
            return UNKNOWN, None
        if response.status_code >= 400:
            return _code(response), None
        return "ok", self.read_http(command, response)

    def http_request(self, command: Command) -> tuple[str, str, Any]:  # noqa: PLR0911  # one for each operation
        """Method, path and JSON body."""
        token, account = self.id(command.target), self.account(command.target)
        on_itself = command.target == command.caller.token
        match command.operation:
            case "create":
                return "POST", "/v1/tokens", self.document(command.grant)
            case "edit":
                return "PATCH", f"/v1/tokens/{token}", self.patch(command)
            case "rotate":
                path = "self" if on_itself else f"tokens/{token}"
                return "POST", f"/v1/{path}/rotate", {"grace": command.grace}
            case "revoke" if command.by_value:
                return "DELETE", f"/v1/token/{self.value(command.target)}", None
            case "revoke":
                query = {
                    "only": command.only,
                    "descendants": "true" if command.descendants else None,
                    "dryRun": "true" if command.dry_run else None,
                }
                query = {name: value for name, value in query.items() if value}
                path = "/v1/self" if on_itself and not query else f"/v1/tokens/{token}"
                return "DELETE", str(httpx.URL(path, params=query)), None
            case "revoke_all":
                return "DELETE", f"/v1/tokens/account/{account}", None
            case "add_account":
                return "POST", "/v1/account", {"account": account}
            case "delete_account":
                return "DELETE", f"/v1/account/{account}", None
            case "use":
                query = {"scope": command.scope, "account": self.account(command.account)}
                query = {name: value for name, value in query.items() if value}
                return "GET", str(httpx.URL("/auth", params=query)), None
        return "POST", "/admin/sign-in", None

    def document(self, grant: Grant) -> dict[str, Any]:
        """A new token's JSON."""
        restrictions = {"addresses": grant.addresses, "referrers": grant.referrers}
        if grant.rate is not None:
            restrictions["rateLimit"] = {"maxRequests": grant.rate[0], "timeWindow": grant.rate[1]}  # type: ignore[assignment]
        return {
            "description": grant.description,
            "scopes": grant.scopes,
            "account": self.account(grant.account),
            "metadata": json.loads(grant.metadata),
            "restrictions": restrictions,
            "expires": self.time(grant.expires),
        }

    def patch(self, command: Command) -> dict[str, Any]:
        patch = dict(command.patch or {})
        if patch.get("expires") is not None:
            patch["expires"] = self.time(patch["expires"])
        return patch

    def read_http(self, command: Command, response: httpx.Response) -> Any:  # noqa: PLR0911  # one for each operation
        body: Any = response.json() if response.content else {}
        match command.operation:
            case "create" | "rotate":
                replayed = body.get("code") == "already_created"
                if not replayed:
                    self.register_token(command.new, body["id"], body["token"])
                return ("replayed" if replayed else "token", *self.view(body))
            case "edit":
                return ("token", *self.view(body))
            case "revoke" if command.by_value:
                # EmailEngine's route returns less, and only `deleted` if it revoked nothing.
                return (
                    DELETED,
                    body["deleted"],
                    tuple(body.get("covered", ())),
                    body.get("livingDescendants", 0),
                )
            case "revoke":
                return (
                    "revoked",
                    body["deleted"],
                    tuple(body["covered"]),
                    frozenset(body.get("descendants") or ()),
                    body["livingDescendants"],
                    frozenset(body.get("ownChain") or ()),
                )
            case "revoke_all" | "delete_account":
                return ("all_revoked", body["tokens"], body["livingDescendants"])
            case "add_account":
                return ("account", body["state"])
        return ("used",)

    async def sign_in_over_http(self, command: Command, headers: dict[str, str]) -> tuple[str, Any]:
        del headers["authorization"]
        # The dashboard limits failed attempts by address: each attempt comes from a different one.
        address = f"127.{secrets.randbelow(255)}.{secrets.randbelow(255)}.{secrets.randbelow(254) + 1}"
        transport = httpx.ASGITransport(self.system.app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as browser:
            response = await browser.post(
                "/admin/sign-in", headers=headers, data={"token": self.value(command.caller.token)}
            )
        if response.status_code >= 400:
            codes = {401: "invalid_token", 403: FORBIDDEN}
            return codes.get(response.status_code, str(response.status_code)), None
        self.cookie, self.sessions[command.new or ""] = next(iter(response.cookies.items()))
        return "ok", ("session",)

    # NATS

    async def over_nats(self, command: Command) -> tuple[str, Any]:
        actor = self.actor(command.caller)
        match command.operation:
            case "use":
                request = VerifyToken(
                    digest=self.digest(command.caller.token),
                    scope=command.scope,
                    account=self.account(command.account),
                    address=command.caller.address,
                    referrer=command.caller.referrer,
                )
                return _verdict(await call(self.system.edge, VERIFY, request), "used")
            case "sign_in":
                self.sessions[command.new or ""] = secrets.token_urlsafe()
                sign_in = SignIn(actor=actor, session=self.session(command.new))
                return _verdict(await call(self.system.edge, SIGN_IN, sign_in), "session")
            case "resume":
                resume = ResumeSession(session=self.session(command.target))
                return _verdict(await call(self.system.edge, RESUME_SESSION, resume), "session")
            case "sign_out":
                sign_out = SignOut(session=self.session(command.target))
                reply = await call(self.system.edge, SIGN_OUT, sign_out)
                return (reply.code, None) if isinstance(reply, Failure) else ("ok", ("signed_out",))
        operation, payload, new = self.nats_request(command, actor)
        if command.caller.operator and operation is not IMPORT_TOKENS:
            operation = operation.by_operator
        client = self.system.operator if command.caller.operator else self.system.edge
        reply = await call(client, operation, payload)
        if isinstance(reply, Failure):
            if reply.code == UNKNOWN and new is not None:
                self.unconfirmed[command.new or ""] = new.value
            return reply.code, None
        if operation.settles and not command.dry_run:
            await self.await_propagation()
        if command.operation == "expire":
            await asyncio.sleep(0.3)
        return "ok", self.read_reply(command, reply, new)

    async def await_propagation(self) -> None:
        request = Settle()
        while True:
            settled = await call(self.system.edge, SETTLE, request)
            if not isinstance(settled, Failure):
                if settled.settled:
                    return
                request = Settle(seq=settled.seq)

    def actor(self, caller: Caller) -> Actor:
        if caller.operator:
            return Actor(name="operator")
        return Actor(
            token=self.digest(caller.token) if caller.token else None,
            session=self.session(caller.session) if caller.session else None,
            address=caller.address,
            referrer=caller.referrer,
        )

    def nats_request(  # noqa: PLR0911  # one for each operation
        self, command: Command, actor: Actor
    ) -> tuple[Operation[Any, Any], Any, token_format.Secret | None]:
        secret = token_format.new_secret()
        fields: dict[str, Any] = {"actor": actor}
        if command.key is not None:
            fields["idempotency_key"] = command.key if actor.name is None else self.prefix + command.key
        target, account = self.id(command.target), self.account(command.target)
        revisions = None if command.revision is None else (command.revision,)
        match command.operation:
            case "create":
                token = msgspec.convert(self.document(command.grant), NewToken)
                created = CreateToken(token=token, digest=secret.digest, hint=secret.hint, **fields)
                return CREATE_TOKEN, created, secret
            case "edit" | "expire":
                patch = self.patch(command)
                if command.operation == "expire":
                    patch = {"expires": (datetime.now(UTC) + timedelta(seconds=0.25)).isoformat()}
                changes = msgspec.convert(patch, TokenUpdate)
                return (
                    EDIT_TOKEN,
                    EditToken(id=target, changes=changes, revisions=revisions, **fields),
                    None,
                )
            case "rotate":
                rotation = RotateToken(
                    id=target,
                    grace=command.grace,
                    digest=secret.digest,
                    hint=secret.hint,
                    revisions=revisions,
                    **fields,
                )
                return ROTATE_TOKEN, rotation, secret
            case "revoke":
                revocation = RevokeToken(
                    id=None if command.by_value else target,
                    digest=self.digest(command.target) if command.by_value else None,
                    only=command.only,  # type: ignore[arg-type]
                    descendants=command.descendants,
                    dry_run=command.dry_run,
                    revisions=revisions,
                    **fields,
                )
                return REVOKE_TOKEN, revocation, None
            case "revoke_all":
                return REVOKE_ALL, RevokeAll(account=account or "", **fields), None
            case "delete_account":
                return DELETE_ACCOUNT, DeleteAccount(account=account or "", **fields), None
            case "add_account":
                return ADD_ACCOUNT, AddAccount(account=account or "", **fields), None
        record = {
            "id": self.ids.get(command.new or "") or new_id("tok_"),
            "digest": self.digest(command.new),
            "token": self.document(command.grant),
            "disabled": command.disabled,
        }
        return IMPORT_TOKENS, ImportTokens(records=(record,), **fields), None

    def read_reply(self, command: Command, reply: Any, secret: token_format.Secret | None) -> Any:
        match reply:
            case CreatedToken():
                if not reply.replayed and secret is not None:
                    self.register_token(command.new, reply.token.id, secret.value)
                return ("replayed" if reply.replayed else "token", *self.view(_json(reply.token)))
            case Token():
                return ("token", *self.view(_json(reply)))
            case Revoked():
                return (
                    "revoked",
                    reply.deleted,
                    reply.covered,
                    frozenset(reply.descendants),
                    reply.living_descendants,
                    frozenset(reply.own_chain),
                )
            case AllRevoked() | AccountDeleted():
                return ("all_revoked", reply.tokens, reply.living_descendants)
            case AddedAccount():
                return ("account", reply.state)
            case Imported():
                if reply.added:
                    self.ids[command.new or ""] = reply.added[0]
                return ("added",) if reply.added else ("existing",)
        raise TypeError(type(reply).__name__)

    def register_token(self, name: str | None, id_: str, value: str) -> None:
        self.ids[name or ""] = id_
        self.values[name or ""] = value

    def view(self, record: dict[str, Any]) -> tuple[Any, ...]:
        """A token in the form of `tests.authority.model.view`; ids are renamed once all ids of a step are known."""
        restrictions = record.get("restrictions") or {}
        rate = restrictions.get("rateLimit")
        expires = record.get("expires")
        return (
            record["id"],
            tuple(sorted(record["scopes"])),
            record.get("account"),
            _tuple(restrictions.get("addresses")),
            _tuple(restrictions.get("referrers")),
            rate and (rate["maxRequests"], rate["timeWindow"]),
            expires and round((datetime.fromisoformat(expires) - self.started).total_seconds() / 300),
            record["description"],
            json.dumps(record.get("metadata"), sort_keys=True),
            record["disabled"],
            record.get("rotatedTo"),
            record["revision"],
        )

    # The state after a step

    async def read_state(self) -> Any:
        """The audit, and the edge's verdict on every token."""
        for name, value in self.unconfirmed.items():
            digest = bytes.fromhex(token_format.digest(value) or "")
            id_ = await self.system.database.fetchval("select id from tokens.token where digest = $1", digest)
            if id_ is not None:
                self.register_token(name, id_, value)
        names = {id_: name for name, id_ in self.ids.items()}
        accounts = {f"{name}-{self.prefix}": name for name in ("alice", "bob", "nobody")}
        rows = await self.system.database.fetch(
            "select action, token, actor, details ->> 'account' as account from tokens.audit"
            " where not rejected and (token = any($1) or details ->> 'account' = any($2))",
            list(names),
            list(accounts),
        )
        audit = sorted(
            (
                row["action"],
                names.get(row["token"] or "") or accounts.get(row["account"] or "", "?"),
                names.get(row["actor"], row["actor"]),
            )
            for row in rows
        )
        known = list(self.ids)  # a command that is still running may add to them
        verdicts = dict(zip(known, await asyncio.gather(*map(self.is_accepted, known)), strict=True))
        return tuple(audit), verdicts

    async def is_accepted(self, name: str) -> bool:
        headers = {"authorization": f"Bearer {self.values[name]}"}
        response = await self.http.get("/auth?scope=none", headers=headers)
        async with asyncio.timeout(20):
            while response.status_code == 503:  # no verdict, because a busy machine responds late
                await asyncio.sleep(0.05)
                response = await self.http.get("/auth?scope=none", headers=headers)
        # A valid token without that scope gets 403.
        if response.status_code not in {200, 401, 403}:
            raise AssertionError(f"/auth responded {response.status_code}")
        return response.status_code != 401

    def expected(self, state: State) -> Any:
        return state.audit, {
            name: is_active(state, state.tokens[name]) for name in self.ids if name in state.tokens
        }

    def agrees(self, actual: Any, state: State) -> bool:
        return bool(actual == self.expected(state))

    def explain(self, state: State, observations: list[Observation], actual: Any) -> str:
        lines = []
        for observation in observations:
            after, outcome = apply(state, observation.command)
            lines += [
                f"observed {observation.code} {observation.value}",
                f"expected {outcome.codes} {outcome.value}",
            ]
            if len(observations) == 1:
                audit, verdicts = self.expected(after)
                lines += [
                    f"audit: unexpected {_without(actual[0], audit)}, missing {_without(audit, actual[0])}"
                ]
                lines += [
                    f"accepted: {name} {actual[1].get(name)}, expected {verdicts.get(name)}"
                    for name in actual[1] | verdicts
                    if actual[1].get(name) != verdicts.get(name)
                ]
            else:
                sent = msgspec.json.encode(observation.command).decode()
                lines += [f"from {observation.invoked:.4f} to {observation.returned:.4f}: {sent}"]
        if len(observations) > 1:
            lines += [f"audit {actual[0]}", f"accepted {actual[1]}"]
        return "\n".join(lines)

    async def check_invariants(self, number: int, observations: list[Observation], actual: Any) -> None:
        """Checks what must hold independently of the model."""
        _, accepted = actual
        for observation in observations:
            match observation.value:
                case ("revoked", True, covered, descendants, _, _):
                    if living := [name for name in (*covered, *descendants) if accepted.get(name)]:
                        raise Mismatch(self.program, number, f"revoked and still accepted: {living}")
        rows = await self.system.database.fetch(
            "select id, rev, (select count(*) from tokens.audit where token = token.id and not rejected"
            " and split_part(action, '.', 1) = 'token') as audited from tokens.token where id = any($1)",
            list(self.ids.values()),
        )
        if wrong := [tuple(row) for row in rows if row["rev"] != row["audited"]]:
            raise Mismatch(self.program, number, f"revisions and audit rows differ: {wrong}")


async def halting(content: bytes, halt: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    yield content[:-1]
    await halt()
    yield content[-1:]


def _code(response: httpx.Response) -> str:
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        return str(response.json()["code"])
    return str(response.status_code)


def _verdict(reply: Any, name: str) -> tuple[str, Any]:
    if reply.code == "active":
        return "ok", (name,)
    return reply.code, None


def _json(message: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(message))
    return decoded


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _without(rows: Any, removed: Any) -> list[Any]:
    """The difference of two multisets of rows."""
    return list((Counter(rows) - Counter(removed)).elements())

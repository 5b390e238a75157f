"""Programs: what actors do, step by step, as hypothesis generates them and as JSON that replays them."""

import json
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from tests.authority.model import Caller, Command, Grant

OPERATOR = Caller(operator=True)
HOUR_S = 3600


class Step(Struct, frozen=True, omit_defaults=True):
    """Commands that are issued at once.

    Args:
        commands: the commands.
        pause: the named pause point, if any. ``last_byte``: the first command, over HTTP, stops before the last byte of
            its body until the others have been carried out one after the other. ``row:NAME``: all commands start while
            the row of that token or account is locked, one shortly after the other, and run once it is released.
    """

    commands: tuple[Command, ...]
    pause: str = ""


Program = tuple[Step, ...]


def to_json(program: Program) -> str:
    """One step in a line."""
    return "[\n" + ",\n".join(msgspec.json.encode(step).decode() for step in program) + "\n]"


def from_json(text: str) -> Program:
    return tuple(msgspec.convert(step, Step, strict=False) for step in json.loads(text))


def steps(*commands: Command) -> Program:
    """Each command in a step of its own."""
    return tuple(Step((command,)) for command in commands)


CAST = {
    "root": Grant(("*",)),
    "writer": Grant(("admin", "api:tokens:write", "orders"), expires=48 * HOUR_S),
    "duty": Grant(("api:tokens:delete", "api:accounts")),
    "limited": Grant(("api:tokens", "orders"), rate=(1000, 86_400)),
    "local": Grant(("*",), addresses=("127.0.0.0/8",), referrers=("https://a.example/*",)),
    "alice_all": Grant(("api",), account="alice"),
    "alice_maker": Grant(("api:tokens", "api:accounts", "orders"), account="alice"),
    "alice_reader": Grant(("orders:read",), account="alice", description="reads"),
    "plain": Grant(("orders",)),
}
"""Who may be there at the start."""

_SCOPES = st.sampled_from(
    [
        ("orders",),
        ("orders:read",),
        ("*",),
        ("admin",),
        ("api:tokens",),
        ("api:tokens:write", "orders"),
        ("api:tokens:delete",),
        ("api", "admin"),
        (),
    ]
)
_ACCOUNTS = st.sampled_from(["alice", "alice", "bob", "nobody"])
_ADDRESSES = st.sampled_from([("127.0.0.0/8",), ("10.0.0.0/8",), ("127.0.0.0/8", "10.0.0.0/8"), ()])
_REFERRERS = st.sampled_from([("https://a.example/*",), ("https://a.example/*", "https://b.example/*")])
_EXPIRES = st.sampled_from([12 * HOUR_S, 36 * HOUR_S, 96 * HOUR_S])
_RATES = st.sampled_from([(1000, 86_400), (2000, 86_400)])
_GRACES = st.sampled_from([0, 0, 600, 600, 1800, 86_400, 86_401, 30 * 86_400 + 1])
# No grace of 0: the services judge expiry by the time at which a transaction began, which is not the order of commits.
_BURST_GRACES = st.sampled_from([600, 1800, 86_400])
_PATCHES = st.sampled_from(
    [
        {"description": "x"},
        {"description": None},
        {"metadata": {"a": {"b": 1, "c": 2}}},
        {"metadata": {"a": {"b": None}}},
        {"metadata": None},
        {"scopes": ["orders"]},
        {"scopes": ["*"]},
        {"scopes": []},
        {"expires": 12 * HOUR_S},
        {"expires": 96 * HOUR_S},
        {"expires": None},
        {"restrictions": {"addresses": ["127.0.0.0/8"]}},
        {"restrictions": {"addresses": None}},
        {"restrictions": {"addresses": []}},
        {"restrictions": {"referrers": ["https://a.example/*"]}},
        {"restrictions": {"referrers": None}},
        {"restrictions": {"rateLimit": {"maxRequests": 2000}}},
        {"restrictions": {"rateLimit": {"maxRequests": 1000, "timeWindow": 86_400}}},
        {"restrictions": {"rateLimit": None}},
        {"restrictions": None},
        {"description": "y", "restrictions": {"rateLimit": {"timeWindow": None}}},
    ]
)
_OPERATIONS = (
    ["rotate"] * 5
    + ["create"] * 3
    + ["revoke"] * 4
    + ["edit"] * 3
    + ["disable"] * 3
    + ["enable"] * 3
    + ["sign_in"] * 2
    + ["import", "revoke_all", "delete_account", "add_account", "resume", "sign_out", "expire", "use"]
)
_BURST_OPERATIONS = (
    ["rotate"] * 4 + ["revoke"] * 3 + ["create", "edit", "disable", "enable", "delete_account", "use", "use"]
)


@st.composite
def programs(draw: st.DrawFn, max_steps: int = 14, max_burst: int = 6) -> Program:
    """A few of the cast, created by an operator, and what they then do."""
    names = draw(st.lists(st.sampled_from(sorted(CAST)), min_size=1, max_size=4, unique=True))
    program = [Step((Command("add_account", target="alice"),))]
    program += [Step((Command("create", new=name, grant=CAST[name]),)) for name in names]
    world = _Names(names)
    for _ in range(draw(st.integers(1, max_steps))):
        kind = draw(st.sampled_from(["one"] * 7 + ["burst", "burst", "slow"])) if max_burst else "one"
        program.append(draw(_step(world, kind, max_burst)))
    return tuple(program)


class _Names:
    """The tokens and sessions a program has named so far."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = list(tokens)
        self.sessions: list[str] = []

    def new_token(self) -> str:
        self.tokens.append(f"t{len(self.tokens)}")
        return self.tokens[-1]

    def new_session(self) -> str:
        self.sessions.append(f"s{len(self.sessions)}")
        return self.sessions[-1]


@st.composite
def _step(draw: st.DrawFn, names: _Names, kind: str, max_burst: int) -> Step:
    if kind == "one":
        return Step((draw(_command(names, _OPERATIONS)),))
    if kind == "slow":
        slow = draw(_slow_command(names))
        others = draw(st.lists(_command(names, _OPERATIONS), min_size=1, max_size=2))
        return Step((slow, *others), pause="last_byte")
    known = list(names.tokens)
    burst = draw(st.lists(_command(names, _BURST_OPERATIONS), min_size=2, max_size=max_burst))
    burst = [_with_grace(command, draw(_BURST_GRACES)) for command in burst]
    held = draw(st.sampled_from(["", "row:alice", *(f"row:{name}" for name in known)]))
    return Step(tuple(burst), pause=held)


def _with_grace(command: Command, grace: int) -> Command:
    return msgspec.structs.replace(command, grace=grace) if command.operation == "rotate" else command


@st.composite
def _caller(draw: st.DrawFn, names: _Names, *, http: bool | None = None) -> Caller:
    who = draw(st.sampled_from(["operator", *["token"] * 4, *(["session"] if names.sessions else [])]))
    if who == "operator" and http is None:
        return OPERATOR
    referrer = draw(st.sampled_from([None, "https://a.example/x"]))
    if who == "session" and http is None:
        return Caller(session=draw(st.sampled_from(names.sessions)), referrer=referrer)
    is_http = draw(st.booleans()) if http is None else http
    address = "127.0.0.1" if is_http else draw(st.sampled_from(["127.0.0.1", "127.0.0.1", "10.1.2.3"]))
    return Caller(token=draw(_token(names)), http=is_http, address=address, referrer=referrer)


@st.composite
def _token(draw: st.DrawFn, names: _Names) -> str:
    """Recent tokens more often; rarely one that never existed."""
    recent = names.tokens[-3:]
    return draw(st.sampled_from([*names.tokens, *recent, *recent, "ghost"]))


@st.composite
def _grant(draw: st.DrawFn) -> Grant:
    return Grant(
        scopes=draw(_SCOPES),
        account=draw(st.none() | _ACCOUNTS),
        addresses=draw(st.none() | st.none() | _ADDRESSES),
        referrers=draw(st.none() | st.none() | _REFERRERS),
        rate=draw(st.none() | _RATES),
        expires=draw(st.none() | _EXPIRES),
    )


@st.composite
def _slow_command(draw: st.DrawFn, names: _Names) -> Command:
    caller = draw(_caller(names, http=True))
    return draw(_arguments(names, draw(st.sampled_from(["create", "edit", "disable", "rotate"])), caller))


@st.composite
def _command(draw: st.DrawFn, names: _Names, operations: list[str]) -> Command:
    operation = draw(st.sampled_from(operations))
    if operation in {"import", "expire", "resume", "sign_out"}:
        return draw(_arguments(names, operation, OPERATOR))
    if operation in {"sign_in", "use"}:
        referrer = draw(st.sampled_from([None, "https://a.example/x"]))
        caller = Caller(token=draw(_token(names)), http=draw(st.booleans()), referrer=referrer)
        return draw(_arguments(names, operation, caller))
    return draw(_arguments(names, operation, draw(_caller(names))))


@st.composite
def _arguments(  # noqa: C901  # one case for each operation
    draw: st.DrawFn, names: _Names, operation: str, caller: Caller
) -> Command:
    fields: dict[str, Any] = {"caller": caller}
    if operation in {"create", "rotate", "edit", "disable", "revoke"} and not caller.operator:
        fields["key"] = draw(st.sampled_from([None] * 6 + ["k1"]))
    if operation in {"edit", "disable", "enable", "rotate", "revoke", "expire"}:
        fields["target"] = _itself(draw, caller) or draw(_token(names))
    match operation:
        case "create" | "import":
            fields |= {"grant": draw(_grant()), "new": names.new_token()}
            fields["disabled"] = operation == "import" and draw(st.booleans())
        case "rotate":
            fields |= {"grace": draw(_GRACES), "new": names.new_token()}
        case "edit":
            fields["patch"] = draw(_PATCHES)
            fields["revision"] = draw(st.sampled_from([None, None, None, 1, 2]))
        case "disable" | "enable":
            fields["patch"] = {"disabled": operation == "disable"}
        case "revoke":
            fields |= draw(_revocation())
            if fields.get("dry_run"):
                fields["key"] = None
        case "revoke_all" | "delete_account" | "add_account":
            fields["target"] = draw(_ACCOUNTS)
        case "sign_in":
            fields["new"] = names.new_session()
        case "resume" | "sign_out":
            fields["target"] = draw(st.sampled_from([*names.sessions, "ghost"]))
        case "use":
            fields |= {"scope": draw(st.sampled_from(["orders:read", "api", "admin"]))}
            fields["account"] = draw(st.none() | _ACCOUNTS)
    name = "edit" if operation in {"disable", "enable"} else operation
    return Command(name, **fields)


def _itself(draw: st.DrawFn, caller: Caller) -> str | None:
    return caller.token if caller.token is not None and draw(st.integers(0, 3)) == 0 else None


@st.composite
def _revocation(draw: st.DrawFn) -> dict[str, Any]:
    return draw(
        st.sampled_from(
            [
                {},
                {},
                {},
                {"by_value": True},
                {"only": "predecessors"},
                {"descendants": True},
                {"descendants": True, "dry_run": True},
                {"dry_run": True},
            ]
        )
    )

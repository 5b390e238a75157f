"""The cases of the specification as commands for the model."""

import msgspec
import pytest
from hypothesis import given, settings

from tests.authority.commands import (
    ALICE,
    by,
    create,
    disable,
    edit,
    enable,
    resume,
    revoke,
    rotate,
    sign_in,
)
from tests.authority.linearization import Observation, linearize
from tests.authority.model import Command, Grant, State, apply, exceeds, is_active, verdict
from tests.authority.programs import Program, from_json, programs, steps, to_json


def after(*commands: Command, state: State = State()) -> State:  # noqa: B008  # it is frozen
    """The state after commands that all succeed."""
    for command in commands:
        state, outcome = apply(state, command)
        assert outcome.is_ok, (command, outcome)
    return state


def codes(state: State, command: Command) -> tuple[str, ...]:
    return apply(state, command)[1].codes


def covered(state: State, command: Command) -> tuple[str, ...]:
    outcome = apply(state, command)[1]
    assert outcome.is_ok, outcome
    names: tuple[str, ...] = outcome.value[2]
    return names


def test_a_revocation_covers_the_whole_chain_by_id_and_by_value():
    state = after(create("root"), create("a"), rotate("a", "b"), rotate("b", "c"))
    for name in ("a", "b", "c"):
        assert covered(state, revoke(name)) == ("a", "b", "c")
        assert covered(state, revoke(name, by_value=True)) == ("a", "b", "c")
    revoked = after(revoke("b"), state=state)
    assert {verdict(revoked, name) for name in ("a", "b", "c")} == {"invalid_token"}
    assert covered(revoked, revoke("a")) == ("a", "b", "c")
    assert len([row for row in revoked.audit if row[0] == "token.revoked"]) == 3


def test_a_lapsed_token_is_not_covered():
    state = after(create("a"), rotate("a", "b", grace=0), rotate("b", "c"))
    assert covered(state, revoke("c")) == ("b", "c")
    assert covered(state, revoke("c", only="predecessors")) == ("b",)


def test_a_token_that_revokes_itself_spares_an_administrators_successor():
    state = after(create("root"), create("a"), rotate("a", "b", by("root")))
    assert covered(state, revoke("a", by("a"))) == ("a",)
    state = after(create("a"), rotate("a", "b", by("a")), rotate("b", "c", by("b")))
    assert covered(state, revoke("a", by("a"))) == ("a", "b", "c")
    assert covered(state, revoke("c", by("c"))) == ("a", "b", "c")


def test_in_its_grace_period_a_token_cannot_change_its_chain():
    state = after(create("root"), create("duty"), rotate("root", "next"), rotate("duty", "off"))
    for command in (
        rotate("next", "x", by("root")),
        edit("next", {"description": "x"}, by("root")),
        disable("next", by("root")),
        revoke("next", by("root")),
        revoke("off", by("duty")),
    ):
        assert codes(state, command) == ("exceeds_authority",)
    assert covered(state, revoke("root", by("root"))) == ("root",)
    # Its other permissions stay until it expires.
    longer, shorter = Grant(("orders",), expires=12 * 3600), Grant(("orders",), expires=300)
    assert codes(state, create("x", longer, by("root"))) == ("exceeds_authority",)
    assert codes(state, create("x", shorter, by("root"))) == ("ok",)


def test_enabling_restores_the_tokens_of_the_same_disable():
    state = after(create("a"), rotate("a", "b"), disable("b"), rotate("b", "c"))
    assert {verdict(state, name) for name in ("a", "b", "c")} == {"invalid_token"}
    state = after(enable("c"), state=state)
    assert {verdict(state, name) for name in ("a", "b", "c")} == {"active"}


def test_self_rotation_is_bounded():
    state = after(create("a"))
    assert codes(state, rotate("a", "b", by("a"), grace=86_401)) == ("bad_request",)
    state = after(rotate("a", "b", by("a")), rotate("b", "c", by("b")), state=state)
    assert codes(state, rotate("c", "d", by("c"))) == ("conflict",)
    assert codes(state, rotate("c", "d", by("c"), grace=0)) == ("ok",)
    assert codes(state, rotate("c", "d")) == ("ok",)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (disable("plain", by("duty")), "ok"),
        (revoke("plain", by("duty")), "ok"),
        (enable("plain", by("duty")), "insufficient_scope"),
        (disable("plain", by("writer")), "insufficient_scope"),
        (revoke("plain", by("writer")), "insufficient_scope"),
        (rotate("plain", "x", by("writer")), "exceeds_authority"),
        (rotate("ghost", "x", by("writer")), "not_found"),
        (rotate("plain", "x", by("alice_all")), "account_mismatch"),
        (rotate("ghost", "x", by("alice_all")), "account_mismatch"),
        (edit("alice_reader", {"description": "x"}, by("alice_all")), "account_mismatch"),
        (disable("alice_reader", by("alice_all")), "ok"),
        (revoke("plain", by("alice_all")), "account_mismatch"),
        (create("x", Grant(("api",), account="alice"), by("alice_all")), "insufficient_scope"),
        (create("x", Grant(("orders",), account="alice"), by("alice_maker")), "ok"),
        (create("x", Grant(("orders",), account="bob"), by("alice_maker")), "account_mismatch"),
        (create("x", Grant(("orders",), account="bob"), by("alice_maker", http=True)), "account_mismatch"),
        (create("x", Grant(("orders",), account="bob")), "bad_request"),
        (create("x", Grant(("orders",)), by("limited")), "exceeds_authority"),
        (create("x", Grant(("orders",), rate=(1000, 86_400)), by("limited")), "ok"),
        (create("x", Grant(("orders",)), by("ghost")), "invalid_token"),
        (edit("plain", {"description": "x"}, revision=2), "stale"),
        (edit("plain", {"restrictions": {"rateLimit": {"maxRequests": 5}}}), "bad_request"),
        (Command("delete_account", by("alice_maker"), target="bob"), "account_mismatch"),
        (Command("delete_account", by("alice_maker"), target="alice"), "ok"),
    ],
)
def test_permissions_of_the_cast(command, expected):
    commands = [
        create(name) for name in ("writer", "duty", "limited", "alice_all", "alice_maker", "alice_reader")
    ]
    state = after(ALICE, *commands, create("plain", Grant(("invoices",))))
    assert codes(state, command)[0] == expected


def test_edits_merge_at_every_depth():
    state = after(
        create("local"), edit("local", {"restrictions": {"rateLimit": {"maxRequests": 9, "timeWindow": 9}}})
    )
    grant = state.tokens["local"].grant
    assert grant.addresses == ("127.0.0.0/8",)
    assert grant.rate == (9, 9)
    # An edit without a change writes nothing.
    assert after(edit("local", {"restrictions": {"rateLimit": {"timeWindow": 9}}}), state=state) == state


def test_a_revocation_may_cover_descendants():
    state = after(
        create("root"),
        create("a", Grant(("api:tokens", "orders")), by("root")),
        create("b", Grant(("orders",)), by("a")),
        rotate("b", "c", by("root")),
    )
    outcome = apply(state, revoke("a"))[1]
    assert outcome.value == ("revoked", True, ("a",), frozenset(), 2, frozenset())
    outcome = apply(state, revoke("a", descendants=True, dry_run=True))[1]
    assert outcome.value == ("revoked", False, ("a",), frozenset({"b", "c"}), 0, frozenset())
    # "root" created "c" by rotation.
    assert apply(state, revoke("root", dry_run=True))[1].value[4] == 3


def test_an_ended_session_stays_ended():
    state = after(create("root"), sign_in("root", "s"))
    assert codes(state, resume("s")) == ("ok",)
    narrowed = [edit("root", {"expires": 3600}), edit("root", {"expires": None})]
    for commands in ([disable("root"), enable("root")], narrowed):
        assert codes(after(*commands, state=state), resume("s")) == ("invalid_token",)
    assert codes(after(edit("root", {"description": "x"}), state=state), resume("s")) == ("ok",)


def test_a_repeated_request_gets_the_stored_reply():
    state = after(create("root"), create("first", caller=by("root"), key="k"))
    again, outcome = apply(state, create("second", Grant(("orders",)), by("root"), key="k"))
    assert outcome.value[:2] == ("replayed", "first")
    assert again == state
    assert codes(state, create("second", Grant(("api",)), by("root"), key="k")) == ("conflict",)
    assert codes(after(disable("root"), state=state), create("x", caller=by("root"), key="k")) == (
        "invalid_token",
    )


def test_the_successor_of_an_imported_token_may_not_create_tokens():
    grant = Grant(("api:tokens", "orders"), account="alice")
    state = after(ALICE, Command("import", new="a", grant=grant), rotate("a", "b", by("a")))
    assert codes(state, create("x", grant, by("b"))) == ("insufficient_scope",)


def observe(command: Command, invoked: float, returned: float, code: str = "ok", value=None) -> Observation:
    return Observation(command, invoked, returned, code, value)


def test_a_history_is_linearizable_only_in_a_valid_order():
    state = after(create("a"))
    _, revoked = apply(state, revoke("a"))
    use = Command("use", by("a"), scope="orders")
    revocation = observe(revoke("a"), 0, 2, value=revoked.value)
    used = ("used",)
    assert linearize(state, [revocation, observe(use, 1, 3, value=used)], lambda _: True)
    assert linearize(state, [revocation, observe(use, 3, 4, "invalid_token")], lambda _: True)
    # Accepted after the revocation had returned.
    assert linearize(state, [revocation, observe(use, 3, 4, value=used)], lambda _: True) is None
    # Rejected by a revocation that had not begun.
    assert linearize(state, [observe(use, -2, -1, "invalid_token"), revocation], lambda _: True) is None


def test_a_program_survives_a_round_trip_through_json():
    program: Program = steps(
        ALICE, create("limited"), edit("limited", {"metadata": None}, by("limited", http=True))
    )
    assert from_json(to_json(program)) == program


def without_expiry(grant: Grant) -> Grant:
    return msgspec.structs.replace(grant, expires=None)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(programs(max_steps=15, max_burst=0))
def test_no_token_has_more_than_an_administrator_granted(program: Program):
    """Traces each token to the grant with which an administrator created it, independently of the model's bookkeeping."""
    state, granted = State(), {}
    for step in program:
        for command in step.commands:
            before = state
            state, outcome = apply(state, command)
            if not outcome.is_ok or outcome.value[0] != "token":
                continue
            name = command.new or command.target
            assert name is not None
            if command.caller.operator:
                granted[name] = state.tokens[name].grant
                continue
            session = dict(before.sessions).get(command.caller.session or "", "")
            actor = command.caller.token or session
            if command.operation == "rotate":
                granted[name] = granted[command.target or ""]
            elif command.operation == "create" or "disabled" not in (command.patch or {}):
                granted[name] = granted[actor]
    for token in state.tokens.values():
        if is_active(state, token) and not token.imported:
            assert not exceeds(without_expiry(granted[token.name]), without_expiry(token.grant))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(programs(max_steps=15, max_burst=0))
def test_each_change_has_one_audit_row(program: Program):
    state = State()
    for step in program:
        for command in step.commands:
            before, (state, outcome) = state, apply(state, command)
            assert outcome.is_ok or state == before
    for name, token in state.tokens.items():
        assert token.revision == sum(row[1] == name and row[0] != "session.started" for row in state.audit)
        assert token.revoked == (("token.revoked", name) in [row[:2] for row in state.audit])

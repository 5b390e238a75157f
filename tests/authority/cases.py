"""Programs for attacks that once succeeded. The generator finds them too, but not within seconds."""

from collections.abc import Mapping

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
from tests.authority.model import Caller, Command, Grant
from tests.authority.programs import Program, Step, steps

HTTP_ROOT = by("root", http=True)
DELETE_ALICE = Command("delete_account", target="alice")
REVOKE_ALICE = Command("revoke_all", target="alice")
ALICE_TOKEN = create("alice_reader")


def at_once(*commands: Command, row: str) -> Step:
    """All commands wait for one row."""
    return Step(commands, pause=f"row:{row}")


def paused(slow: Command, *meanwhile: Command) -> Step:
    """The first command's last byte is sent after the others have returned."""
    return Step((slow, *meanwhile), pause="last_byte")


def self_rotate(name: str, new: str, caller: Caller | None = None, **fields) -> Command:
    return rotate(name, new, caller or by(name), **fields)


def _slow(slow: Command, *meanwhile: Command, cast: Program = ()) -> Program:
    start = steps(ALICE, create("root"), create("plain"), create("second", Grant(("*",))))
    return (*start, *cast, paused(slow, *meanwhile))


A_CHAIN = steps(
    create("root"), create("duty"), create("plain"), self_rotate("plain", "p2"), rotate("p2", "p3")
)

CASES: Mapping[str, Program] = {
    "self-rotation while its account is deleted": (
        *steps(ALICE, ALICE_TOKEN),
        at_once(self_rotate("alice_reader", "a2"), DELETE_ALICE, row="alice"),
    ),
    "self-rotation while its account is deleted, the token locked": (
        *steps(ALICE, ALICE_TOKEN),
        at_once(DELETE_ALICE, self_rotate("alice_reader", "a2"), row="alice_reader"),
    ),
    "self-rotation while all tokens of its account are revoked": (
        *steps(ALICE, ALICE_TOKEN),
        at_once(REVOKE_ALICE, self_rotate("alice_reader", "a2"), row="alice_reader"),
    ),
    "revocation of a token while its account is deleted": (
        *steps(ALICE, ALICE_TOKEN),
        at_once(revoke("alice_reader"), DELETE_ALICE, row="alice_reader"),
    ),
    "creation while its account is deleted": (
        *steps(ALICE, create("alice_maker")),
        at_once(
            DELETE_ALICE,
            create("x", Grant(("orders",), account="alice"), by("alice_maker")),
            row="alice",
        ),
    ),
    "creation while its account is deleted, the creator locked": (
        *steps(ALICE, create("alice_maker")),
        at_once(
            create("x", Grant(("orders",), account="alice"), by("alice_maker")),
            DELETE_ALICE,
            row="alice_maker",
        ),
    ),
    "creation while its creator is revoked with descendants": (
        *steps(create("root"), create("writer")),
        at_once(
            revoke("writer", descendants=True),
            create("x", Grant(("orders",), expires=3600), by("writer")),
            row="writer",
        ),
    ),
    "rotation while the token is revoked": (
        *steps(create("root"), create("plain")),
        at_once(revoke("plain"), rotate("plain", "p2", by("root")), row="plain"),
    ),
    "rotation while the token is disabled": (
        *steps(create("root"), create("plain")),
        at_once(disable("plain"), rotate("plain", "p2", by("root")), row="plain"),
    ),
    "revocation by a token that may delete covers the chain": (
        *A_CHAIN,
        *steps(revoke("plain", by("duty")), revoke("p3", by("duty"))),
    ),
    "revocation by value covers the chain": (*A_CHAIN, *steps(revoke("plain", by_value=True))),
    "revocation of the last covers the first": (
        *steps(create("root"), create("plain"), rotate("plain", "p2")),
        *steps(rotate("p2", "p3", grace=0), revoke("p3", HTTP_ROOT), revoke("p3")),
    ),
    "only the predecessors": (*A_CHAIN, *steps(revoke("p3", HTTP_ROOT, only="predecessors"))),
    "a self-revocation spares an administrator's successor": (
        *steps(create("root"), create("plain"), rotate("plain", "p2", by("root"))),
        *steps(revoke("plain", by("plain", http=True))),
    ),
    "a self-revocation covers what was self-rotated": (
        *steps(create("plain"), self_rotate("plain", "p2"), self_rotate("p2", "p3")),
        *steps(revoke("plain", by("plain", http=True))),
    ),
    "disabling covers the chain, enabling restores it": (
        *A_CHAIN,
        *steps(disable("plain", by("duty", http=True)), rotate("p3", "p4"), enable("p2", HTTP_ROOT)),
    ),
    "no token changes or grants more than it has": (
        *steps(create("writer"), create("x", Grant(("invoices",), expires=3600))),
        *steps(create("y", Grant(("orders",), expires=3600))),
        *steps(edit("x", {"scopes": ["orders"]}, by("writer", http=True))),
        *steps(edit("y", {"scopes": ["invoices"]}, by("writer"))),
        *steps(edit("y", {"expires": None}, by("writer"))),
        *steps(rotate("x", "x2", by("writer")), rotate("y", "y2", by("writer"))),
        *steps(create("z", Grant(("invoices",), expires=3600), by("writer"))),
    ),
    "enabling needs the authority of create": (
        *steps(create("root"), create("writer"), create("x", Grant(("invoices",)))),
        *steps(disable("x"), enable("x", by("writer")), enable("x", by("root"))),
    ),
    "the creator is revoked before the last byte of a creation": _slow(
        create("x", Grant(("orders",)), HTTP_ROOT), revoke("root")
    ),
    "the creator is narrowed before the last byte of a creation": _slow(
        create("x", Grant(("orders",)), HTTP_ROOT), edit("root", {"scopes": ["api"]})
    ),
    "the editor is revoked before the last byte of an edit": _slow(
        edit("plain", {"description": "x"}, HTTP_ROOT), revoke("root", by("second"))
    ),
    "the editor is narrowed before the last byte of an edit": _slow(
        edit("plain", {"description": "x"}, HTTP_ROOT), edit("root", {"scopes": ["orders"]})
    ),
    "the rotator is disabled before the last byte of a rotation": _slow(
        rotate("plain", "x", HTTP_ROOT), disable("root")
    ),
    "the rotator itself is rotated before the last byte": _slow(
        rotate("root", "x", HTTP_ROOT), rotate("root", "y")
    ),
    "the account is deleted before the last byte of a creation": _slow(
        create("x", Grant(("orders",), account="alice"), by("alice_maker", http=True)),
        DELETE_ALICE,
        cast=steps(create("alice_maker")),
    ),
    "the editor is narrowed while the token is locked": (
        *steps(create("root"), create("second", Grant(("*",))), create("plain")),
        *steps(edit("plain", {"scopes": ["orders:read"]}, by("root"))),
        at_once(
            edit("root", {"scopes": ["invoices"]}),
            edit("plain", {"scopes": ["*"]}, by("root")),
            row="root",
        ),
    ),
    "a sibling of a limited token is rotated": steps(
        create("limited"),
        create("x", Grant(("orders",), rate=(1000, 86_400)), by("limited")),
        create("other", Grant(("api:tokens", "orders"), rate=(1000, 86_400))),
        rotate("x", "x2", by("limited")),
        rotate("other", "o2", by("limited")),
    ),
    "the old secret changes its successor": steps(
        create("root"),
        rotate("root", "r2"),
        rotate("r2", "r3", by("root")),
        edit("r2", {"description": "x"}, by("root")),
        disable("r2", by("root")),
        revoke("r2", by("root")),
        revoke("r2", by("root"), only="predecessors"),
        revoke("root", by("root")),
        revoke("r2", by("r2")),
    ),
    "the old secret ends its account": steps(
        ALICE,
        create("alice_maker"),
        create("deleter", Grant(("api:accounts:delete", "api:tokens:delete"), account="alice")),
        rotate("deleter", "d2"),
        Command("revoke_all", by("deleter"), target="alice"),
        Command("delete_account", by("deleter"), target="alice"),
    ),
    "a token with the delete scope disables and revokes, and nothing else": steps(
        create("duty"),
        create("plain", Grant(("invoices",))),
        disable("plain", by("duty", http=True)),
        enable("plain", by("duty", http=True)),
        edit("plain", {"description": "x"}, by("duty", http=True)),
        rotate("plain", "x", by("duty", http=True)),
        revoke("plain", by("duty", http=True)),
    ),
    "a token with the write scope neither disables nor revokes": steps(
        create("writer"),
        create("plain", Grant(("orders",), expires=3600)),
        disable("plain", by("writer", http=True)),
        revoke("plain", by("writer", http=True)),
        edit("plain", {"description": "x"}, by("writer", http=True)),
    ),
    "a session ends with a disable": steps(
        create("root"), sign_in("root", "s"), disable("root"), enable("root"), resume("s")
    ),
    "a session ends with a narrowing": steps(
        create("root"),
        sign_in("root", "s", http=True),
        resume("s"),
        edit("root", {"description": "x"}),
        resume("s"),
        edit("root", {"scopes": ["admin"]}),
        edit("root", {"scopes": ["*"]}),
        resume("s"),
    ),
    "a session survives a change of the rate limit": steps(
        create("root"),
        sign_in("root", "s"),
        edit("root", {"restrictions": {"rateLimit": {"maxRequests": 9, "timeWindow": 60}}}),
        resume("s"),
    ),
    "a rejected sign-in starts no session": steps(
        create("plain"), sign_in("plain", "s"), sign_in("plain", "s", http=True), resume("s")
    ),
    "self-rotation in a loop": steps(
        create("plain"),
        self_rotate("plain", "p2", grace=86_401),
        self_rotate("plain", "p2"),
        self_rotate("p2", "p3"),
        self_rotate("p3", "p4"),
        rotate("p3", "p4", by("p3", http=True)),
        self_rotate("p3", "p4", grace=86_401),
        self_rotate("p3", "p4", grace=0),
    ),
    "rotation from an allowed page while an edit restricts the referrers": (
        *steps(create("plain")),
        at_once(
            edit("plain", {"restrictions": {"referrers": ["https://a.example/*"]}}),
            self_rotate("plain", "p2", caller=by("plain", http=True, referrer="https://a.example/x")),
            row="plain",
        ),
    ),
    "an edit of one restriction keeps the others": steps(
        create("root"),
        create("local"),
        edit("local", {"restrictions": {"rateLimit": {"maxRequests": 9, "timeWindow": 60}}}, HTTP_ROOT),
        edit("local", {"restrictions": {"rateLimit": {"maxRequests": 10}}}, by("root")),
        edit("local", {"restrictions": {"rateLimit": {"maxRequests": None}}}),
        edit("local", {"restrictions": None}),
    ),
    "a repeated request": steps(
        create("root"),
        create("x", Grant(("orders",)), HTTP_ROOT, key="k"),
        create("y", Grant(("orders",)), by("root"), key="k"),
        create("z", Grant(("orders:read",)), by("root"), key="k"),
        edit("root", {"scopes": ["orders"]}),
        create("w", Grant(("orders",)), HTTP_ROOT, key="k"),
        create("w", Grant(("orders",)), by("root"), key="k"),
        disable("root"),
        create("v", Grant(("orders",)), by("root"), key="k"),
    ),
    "a bound token that may not create tokens": steps(
        ALICE,
        create("alice_all"),
        Command("import", new="imported", grant=Grant(("api:tokens", "orders"), account="alice")),
        create("x", Grant(("orders",), account="alice"), by("alice_all", http=True)),
        create("x", Grant(("orders",), account="alice"), by("imported")),
        rotate("imported", "i2", by("imported")),
        create("x", Grant(("orders",), account="alice"), by("i2")),
    ),
    "a self-revocation with descendants spares those of an administrator's successor": steps(
        create("root"),
        create("deleter", Grant(("api:tokens", "orders"))),
        create("x", Grant(("orders",)), by("deleter")),
        rotate("deleter", "d2", by("root")),
        create("y", Grant(("orders",)), by("d2")),
        revoke("deleter", by("deleter"), dry_run=True),
        revoke("deleter", by("deleter"), descendants=True),
    ),
    "the predecessors with descendants": steps(
        create("root"),
        create("maker", Grant(("api:tokens", "orders"))),
        create("x", Grant(("orders",)), by("maker")),
        rotate("maker", "m2"),
        create("y", Grant(("orders",)), by("m2")),
        revoke("m2", by("root"), only="predecessors", descendants=True),
    ),
    "with descendants": steps(
        create("root"),
        create("maker", Grant(("api:tokens", "orders")), by("root")),
        create("x", Grant(("orders",)), by("maker")),
        rotate("maker", "m2", by("root")),
        create("y", Grant(("orders",)), by("m2")),
        rotate("y", "y2", by("root")),
        revoke("maker", by("root"), descendants=True, dry_run=True),
        revoke("maker", by("root")),
        revoke("m2", HTTP_ROOT, descendants=True),
        revoke("m2", by("root"), descendants=True),
    ),
}

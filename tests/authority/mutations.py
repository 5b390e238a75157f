"""Reintroduces former faults into a copy of the sources, one at a time, and expects the tests to detect each of them.

python -m tests.authority.mutations [NAME ...]
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

TESTS = "known or slow or shares or outlives or deadlock"
"""The tests with fixed programs. The generator detects most of these faults too, but not in so few programs."""

AUTHORITY = "services/tallystick_server/tokens/authority.py"
CHANGES = "services/tallystick_server/tokens/store/writes.py"
OPERATIONS = "services/tallystick_server/tokens/operations.py"
SESSIONS = "services/tallystick_server/tokens/handlers/sessions.py"
TOKENS = "services/tallystick_server/tokens/handlers/tokens.py"
TRANSITIONS = "services/tallystick_server/tokens/transitions.py"
UNIT_OF_WORK = "services/tallystick_server/tokens/handlers/unit_of_work.py"


class Mutation(NamedTuple):
    """``before`` must occur in the file exactly once."""

    file: str
    before: str
    after: str


MUTATIONS = {
    "A3: the account is not locked": Mutation(
        CHANGES, 'strength = "update" if to_change else "share"', 'strength = "key share"'
    ),
    "A3: chains are not locked": Mutation(CHANGES, "        if chains:\n", "        if chains and False:\n"),
    "the tokens of an account are read before they are locked": Mutation(
        TRANSITIONS,
        """    authority = await change.lock(*chains)
    authority.require(rule, account=account)
    members = await change.members(chains)
""",
        """    members = await change.members(chains)
    authority = await change.lock(*chains)
    authority.require(rule, account=account)
""",
    ),
    "A4: a revocation spares the successors": Mutation(
        TRANSITIONS,
        "    if not of_itself:\n        return chain\n",
        "    if not of_itself:\n        return chain[: place + 1]\n",
    ),
    "A4: a disable covers the token alone": Mutation(
        TRANSITIONS,
        "covered = [member for member in chain if not member.is_over and not member.token.disabled]",
        "covered = [member for member in [target] if not member.token.disabled]",
    ),
    "A4: a self-revocation covers an administrator's successor": Mutation(
        TRANSITIONS, "chain[end].rotated_by == chain[end].token.id", "chain[end].token.rotated_to"
    ),
    "A5: a revocation stops at a token past its grace": Mutation(
        TRANSITIONS,
        "    if not of_itself:\n        return chain\n",
        "    if not of_itself:\n"
        "        over = [number for number, member in enumerate(chain[:place]) if member.is_over]\n"
        "        return chain[max(over, default=-1) + 1 :]\n",
    ),
    "A6: the actor is checked before the locks only": Mutation(
        CHANGES,
        "self._authority = Authority(self._actor, await holder(self._connection, self._actor, lock=True))",
        "self.authority.holder",
    ),
    "A6: the edge checks a client before the body only": Mutation(
        "services/tallystick_server/edge/authentication/client_authentication.py",
        "    await authenticate_again(request)\n",
        "    if context_of(request).cached is None:\n        await authenticate_again(request)\n",
    ),
    "A6: scopes are checked before the locks only": Mutation(
        TOKENS,
        """                authority.require(
                    rule, account=transitions.account_of(rule, target), of_itself=authority.is_holder(target)
                )
""",
        """                pass
""",
    ),
    "A11: a rotation by a limited token has its own count": Mutation(
        TOKENS, "limited_by = transitions.limited_holder(authority) or target", "limited_by = target"
    ),
    "A12: a replaced token changes its chain": Mutation(
        AUTHORITY, "if holder is None or holder.token.rotated_to is None:", "if True:"
    ),
    "A14: the write scope allows to disable": Mutation(
        OPERATIONS, '    "disable",\n    [DELETE],', '    "disable",\n    [WRITE],'
    ),
    "A14: the write scope allows to revoke": Mutation(
        OPERATIONS, '    "revoke",\n    [DELETE],', '    "revoke",\n    [WRITE],'
    ),
    "A14: the delete scope allows to enable": Mutation(
        OPERATIONS, '    "enable",\n    [WRITE],', '    "enable",\n    [DELETE],'
    ),
    "A14: enabling needs no authority over the token": Mutation(
        TRANSITIONS,
        "    authority.require_grant(*(rows.as_new_token(member.token) for member in covered))\n",
        "",
    ),
    "A15: a session survives a disable": Mutation(
        TRANSITIONS,
        "        await change.disable(_ids(covered), target.disabled_with)\n"
        "        await change.end_sessions(_ids(covered))\n",
        "        await change.disable(_ids(covered), target.disabled_with)\n",
    ),
    "A15: a session survives a narrowing": Mutation(
        TRANSITIONS, "if not target.is_active or narrows(before, after):", "if not target.is_active:"
    ),
    "A17: a rejected sign-in starts a session": Mutation(
        SESSIONS,
        """            Authority(actor, await self._store.find(verdict.token.id)).require(operations.SIGN_IN)
""",
        """            try:
                Authority(actor, await self._store.find(verdict.token.id)).require(operations.SIGN_IN)
            except Rejected:
                async with self._store.change(actor) as change:
                    await change.begin_session(request.session, request.link)
                raise
""",
    ),
    "A19: the number of secrets is not limited": Mutation(
        TOKENS, "if older + (1 if grace_s else 0) + 1 > MAX_LIVING_SECRETS:", "if False:"
    ),
    "A19: the grace period is not limited": Mutation(
        TOKENS, "        if grace_s > max_grace_s:\n", "        if False:\n"
    ),
    "a stored reply is replayed without authorization": Mutation(
        UNIT_OF_WORK,
        "    authority = await change.lock()\n    if authority.holder is not None:\n",
        "    authority = await change.lock()\n    if False:\n",
    ),
    "a rotation drops the import mark": Mutation(
        CHANGES, "imported=predecessor.is_imported", "imported=False"
    ),
    "a bound token creates tokens with any scope": Mutation(
        TOKENS, "            authority.require_right_to_create()\n", ""
    ),
    "an edit may exceed its editor": Mutation(
        TRANSITIONS, "    authority.require_grant(before, after)\n", ""
    ),
    "a rotation may exceed its rotator": Mutation(
        TOKENS,
        "            authority.require_grant(new_token)\n            if of_itself",
        "            if of_itself",
    ),
    "a successor of a disabled token does not belong to the disable": Mutation(
        CHANGES, "disabled_with=predecessor.disabled_with", "disabled_with=None"
    ),
}


def find(mutation: Mutation | None) -> str:
    """The error of the tests with the fault, or an empty string if they succeed."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        for folder in ("services", "shared", "tests"):
            shutil.copytree(ROOT / folder, Path(name) / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", name)
        if mutation is not None:
            put_back(mutation, Path(name) / mutation.file)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "tests/authority/test_authority_model.py",
            "-k",
            TESTS,
        ]
        result = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        if result.returncode not in {0, 1}:
            raise RuntimeError(result.stdout[-2000:] + result.stderr[-2000:])
        return next((line[1:].strip() for line in result.stdout.splitlines() if line.startswith("E ")), "")


def put_back(mutation: Mutation, file: Path) -> None:
    source = file.read_text()
    if source.count(mutation.before) != 1:
        raise ValueError(f"{file} holds this {source.count(mutation.before)} times: {mutation.before}")
    file.write_text(source.replace(mutation.before, mutation.after))


def main() -> None:
    names = [name for name in MUTATIONS if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    if failure := find(None):
        sys.exit(f"The tests fail without any fault: {failure}")
    missed = []
    for name in names:
        failure = find(MUTATIONS[name])
        print(f"{name}: {failure or 'MISSED'}", flush=True)
        missed += [] if failure else [name]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

"""Decides whether some order of concurrent commands explains what was observed (Wing and Gong, with memoization)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.authority.model import Command, Outcome, State, apply

UNKNOWN = "unavailable"
"""The outcome of a command that may or may not have been carried out."""
FORBIDDEN = "403"
"""The dashboard's sign-in page shows the status only, which stands for one of `_FORBIDDEN_CODES`."""
DELETED = "deleted"
"""The response of EmailEngine's route to a revocation: whether it revoked anything, the tokens it covered, and the number
of living descendants.
"""
_FORBIDDEN_CODES = {"insufficient_scope", "account_mismatch", "address_not_allowed", "referrer_not_allowed"}
_LATE_CODES = {"not_found", "bad_request"}
"""The further codes that a caller may get whose token became invalid while its request waited for a lock."""


@dataclass(frozen=True)
class Observation:
    """A command and its response.

    Args:
        command: the command.
        invoked: when it was sent, in monotonic seconds.
        returned: when its response arrived.
        code: ``ok``, or the code of the rejection.
        value: the response of a success, in the representation of the model.
        accepted_after: a success took effect after this moment, since the last byte of the body had not been sent before.
    """

    command: Command
    invoked: float
    returned: float
    code: str
    value: Any = None
    accepted_after: float | None = None

    @property
    def starts(self) -> float:
        """The earliest moment at which the command may have taken effect."""
        if self.code == "ok" and self.accepted_after is not None:
            return self.accepted_after
        return self.invoked


def is_explained(observation: Observation, outcome: Outcome) -> bool:
    if observation.code == FORBIDDEN:
        return bool(_FORBIDDEN_CODES.intersection(outcome.codes))
    if observation.code == "ok" and observation.value[:1] == (DELETED,):
        return _is_deletion(observation.value, outcome)
    if "invalid_token" in outcome.codes and observation.code in _LATE_CODES:
        return True
    if observation.code != "ok" or not outcome.is_ok:
        return observation.code in outcome.codes
    return bool(observation.value == outcome.value)


def _is_deletion(value: tuple[Any, ...], outcome: Outcome) -> bool:
    _, revoked, covered, living = value
    if not revoked:
        rejected = {"not_found", "invalid_token"}.intersection(outcome.codes)  # see _LATE_CODES
        return bool(rejected) or (outcome.is_ok and not outcome.value[1])
    return outcome.is_ok and (True, covered, living) == (*outcome.value[1:3], outcome.value[4])


def linearize(
    state: State, observations: Sequence[Observation], is_final: Callable[[State], bool]
) -> State | None:
    """The state after an order of the commands in which each outcome is the model's; None if no such order exists.

    A command precedes another one if its response arrived before the other one was sent.

    Args:
        state: the state before all of them.
        observations: the commands and their responses.
        is_final: whether a state agrees with the state that was read afterwards.
    """
    visited: set[tuple[Any, ...]] = set()
    stack: list[tuple[State, frozenset[int]]] = [(state, frozenset(range(len(observations))))]
    while stack:
        current, pending = stack.pop()
        if not pending:
            if is_final(current):
                return current
            continue
        key = (pending, current.key())
        if key in visited:
            continue
        visited.add(key)
        first_return = min(observations[index].returned for index in pending)
        for index in pending:
            observation = observations[index]
            if observation.starts > first_return:
                continue
            rest = pending - {index}
            after, outcome = apply(current, observation.command)
            if observation.code == UNKNOWN:
                stack += [(current, rest), (after, rest)]
            elif is_explained(observation, outcome):
                stack.append((after, rest))
    return None

"""Who may publish which events. The subject of an event names its publisher (``tallystick.events.<publisher>.<noun>.<verb>``)
and NATS permissions bind that name to a user, so that no service reports events as another.
"""

import re
from collections.abc import Mapping, Sequence

from tallystick.contracts.events import EVENTS_PREFIX

SERVICES: Mapping[str, Sequence[str]] = {
    "edge": ("thread.*", "api.calls", "metrics.reported"),
    "tokens": ("thread.*", "token.*", "account.added", "account.deleted", "metrics.reported"),
    "metrics": ("thread.*", "metrics.reported"),
    "up": ("thread.*",),
}
"""The event types of each service of Tallystick itself, and of `tallystick up`, which starts them on one machine."""

RESERVED: Sequence[str] = ("token.>", "api.>", "metrics.>", "account.added", "account.deleted")
"""The event types that no other service may publish: Tallystick's own counters are made of them."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a NATS user, and so a publisher, may have this name: it becomes a token of a subject."""
    return _NAME.fullmatch(text) is not None


def publisher(source: str) -> str:
    """The publisher that a source of events belongs to: ``mailer`` for ``mailer`` and for ``mailer.worker``."""
    return source.partition(".")[0]


def subject(source: str, kind: str) -> str:
    """The subject on which this source publishes events of this type."""
    return f"{EVENTS_PREFIX}{publisher(source)}.{kind}"


def may_publish(name: str, kind: str) -> bool:
    """Whether this publisher may publish events of this type (``noun.verb``)."""
    own = SERVICES.get(name)
    if own is not None:
        return any(_matches(pattern, kind) for pattern in own)
    return not any(_matches(pattern, kind) for pattern in RESERVED)


def _matches(pattern: str, kind: str) -> bool:
    noun, verb = pattern.split(".")
    got_noun, _, got_verb = kind.partition(".")
    one_word = "." not in got_verb
    return noun == got_noun and (verb in (">", got_verb) or (verb == "*" and one_word))

"""Every payload is an event or a dead letter."""

import json
from datetime import UTC, datetime

import pytest

from tallystick_server.metrics.events import Message, NotAnEvent, decode

NUMBERED = {"source": "mailer", "boot": "b1", "n": 1}
ACCOUNT = {"data": {"account": "alice"}}


def message(subject: str, payload: object) -> Message:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(1, f"tallystick.events.{subject}", raw, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        *(
            ("account.added", raw)
            for raw in (
                b"",
                b"{",
                b"null",
                b"[]",
                b"\xff",
                b"[" * 5000,
                b"NaN",
                b'{"data":{"account":"\\ud800"}}',
            )
        ),
        ("account.added", {}),
        ("account.added", {"data": {}}),
        ("account.added", {"data": []}),
        ("account.added", {"data": {"account": 5}}),
        ("account.added", {"data": {"account": ""}}),
        ("account.added", {"data": {"account": "\0"}}),
        ("account.added", {"data": {"account": "a" * 257}}),
        ("account.added", {**ACCOUNT, "type": "account.deleted"}),
        ("account.added", {**ACCOUNT, "source": "mailer"}),
        ("account.added", {**ACCOUNT, "source": "mailer", "boot": "b1"}),
        ("account.added", {**ACCOUNT, "n": 1}),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": 0}),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": -1}),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": 1.5}),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": "1"}),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": 2**62}),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": 2**70}),
        ("account.added", {**ACCOUNT, **NUMBERED, "source": ""}),
        ("account.added", {**ACCOUNT, **NUMBERED, "boot": "b" * 257}),
        ("account.added", {**ACCOUNT, **NUMBERED, "source": "\0"}),
        ("account.added", {**ACCOUNT, "time": "yesterday"}),
        ("account.added", {**ACCOUNT, "time": 5}),
        ("account.state", {"data": {"account": "a", "state": "s" * 65}}),
        ("account.state", {"data": {"account": "a"}}),
        ("thread.started", {"data": {"thread": "t"}}),
        ("thread.heartbeat", {"data": {"threads": {}}}),
        ("thread.heartbeat", {"data": {"threads": [{"thread": "t", "type": "\0"}]}}),
        ("mailer.token.revoked", {}),
        ("mailer.api.calls", {"data": {"calls": []}}),
        ("mailer.metrics.reported", {}),
        ("mailer.account.added", ACCOUNT),
        ("mailer.account.deleted", {**ACCOUNT, **NUMBERED}),
        ("edge.token.revoked", {}),
        ("metrics.api.calls", {"data": {"calls": []}}),
        ("tokens.mail.sent", {}),
        ("mailer.mail.sent", {**NUMBERED, "source": "tokens"}),
        ("mailer.mail.sent", {**NUMBERED, "source": "mailerx"}),
        ("mailer.mail.sent", {**NUMBERED, "source": "tokens.mailer"}),
        ("mailer.NOUN.verb", {}),
        ("NOUN.verb", {}),
        ("noun", {}),
        ("noun.", {}),
        ("noun.vérb", {}),
        ("noun.verb verb", {}),
        ("a" * 65 + ".verb", {}),
    ],
)
def test_an_invalid_event_is_a_dead_letter(subject: str, payload: object):
    with pytest.raises(NotAnEvent):
        decode(message(subject, payload))


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("noun.verb", {}),
        ("mailer.noun.verb", {"data": {}, "colour": "red"}),
        ("mailer.mail.sent", NUMBERED),
        ("mailer.mail.sent", {**NUMBERED, "source": "mailer.worker"}),
        ("mailer.account.state", {"data": {"account": "a", "state": "s"}}),
        ("mailer.mail.token.created", {}),
        ("tokens.token.created", {**NUMBERED, "source": "tokens"}),
        ("edge.api.calls", {"data": {"calls": []}}),
        ("account.added", ACCOUNT),
        ("account.added", {**ACCOUNT, **NUMBERED, "n": 2**62 - 1}),
        ("account.added", {**ACCOUNT, **NUMBERED, "type": "account.added", "time": "2026-01-01T00:00:00Z"}),
    ],
)
def test_a_valid_event_is_decoded(subject: str, payload: object):
    words = subject.split(".")
    assert decode(message(subject, payload)).type == ".".join(words[1:] if len(words) > 2 else words)

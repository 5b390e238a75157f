"""The configuration of every NATS server, embedded, in containers or in a cluster: accounts that keep JetStream away from
requests, and users with the least permissions they need.

JetStream acts with the permissions of its account, not with those of the user who sent the request: it sends a pushed,
pulled, republished or read message, and the acknowledgement of a publish, to any subject that the request names. The event
stream therefore has a separate account. Other accounts send events into it; only the acknowledgements of events come back.

python -m tallystick_server.runtime.nats_permissions        prints the table of permissions in docs/permissions.md
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tallystick.contracts import publishers, registry
from tallystick.contracts.events import (
    EVENTS_PREFIX,
    EVENTS_STREAM,
    RECONCILIATION_CONSUMER,
    STREAM_CONSUMER,
)
from tallystick.contracts.propagation import ACKNOWLEDGED, CHANGED
from tallystick.contracts.quotas import RECALLED
from tallystick.contracts.verification import VERIFY, VERIFY_MANY

CORE = "TALLYSTICK"
"""The account of requests, replies and change notices. It has no JetStream."""
EVENTS = "EVENTS"
"""The account of the event stream."""
SERVICES = "SERVICES"
"""The account of services that are not part of Tallystick: they verify tokens and publish events."""

SYSTEM = "$SYS"
"""The account in which NATS servers report about themselves. No user logs in to it."""

_CONSUMERS = (STREAM_CONSUMER, RECONCILIATION_CONSUMER)
"""The metrics service's consumers of the stream."""
_VERIFICATION = [VERIFY.subject, VERIFY_MANY.subject]
_EVENTS_SERVICE = {"service": f"{EVENTS_PREFIX}>", "accounts": [CORE, SERVICES]}
_EVENTS_IMPORT = {"service": {"account": EVENTS, "subject": f"{EVENTS_PREFIX}>"}}
STREAM_READS = [
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    f"$JS.API.STREAM.INFO.{EVENTS_STREAM}",
    f"$JS.API.CONSUMER.NAMES.{EVENTS_STREAM}",
    f"$JS.API.CONSUMER.LIST.{EVENTS_STREAM}",
    f"$JS.API.CONSUMER.INFO.{EVENTS_STREAM}.*",
]
"""Requests that `nats stream` and `nats consumer` send for `ls`, `info` and `report`. Reading stored messages is not
allowed: JetStream sends them to whatever subject the request names, here one of the account of the requests.
"""
SERVER_READS = [
    "$SYS.REQ.SERVER.PING",
    *(f"$SYS.REQ.SERVER.PING.{what}" for what in ("VARZ", "JSZ", "ROUTEZ")),
]
"""Requests that `nats server` sends for `ping`, `ls`, `info` and `report`. Every server of a cluster answers. ``HEALTHZ``
is left out: its response contains text of the request, and goes to the reply subject that the request names.
"""
CONNECTIONS_READ = "$SYS.REQ.SERVER.PING.CONNZ"
"""The request of `nats server report connections`. Every account may send it, and gets its own connections."""
_MAX_MEMORY_BYTES = 64 << 20
_MAX_FILE_BYTES = 4 << 30

ACCOUNTS: Mapping[str, Mapping[str, Any]] = {
    CORE: {
        "exports": [{"service": subject, "accounts": [SERVICES]} for subject in _VERIFICATION],
        "imports": [
            _EVENTS_IMPORT,
            *({"service": {"account": EVENTS, "subject": subject}} for subject in STREAM_READS),
            *({"service": {"account": SYSTEM, "subject": subject}} for subject in SERVER_READS),
        ],
    },
    EVENTS: {
        "jetstream": "enabled",
        "exports": [_EVENTS_SERVICE, *({"service": subject, "accounts": [CORE]} for subject in STREAM_READS)],
    },
    SYSTEM: {
        "exports": [
            {"service": subject, "response_type": "stream", "accounts": [CORE]} for subject in SERVER_READS
        ]
    },
    SERVICES: {
        "imports": [
            _EVENTS_IMPORT,
            *({"service": {"account": CORE, "subject": subject}} for subject in _VERIFICATION),
        ]
    },
}


class User(NamedTuple):
    """The permissions of a NATS user.

    Args:
        account: the account it belongs to; it cannot reach subjects of another account.
        publish: subjects it may publish to.
        subscribe: subjects it may subscribe to.
        deny: subjects it may not publish to, although ``publish`` covers them.
    """

    account: str
    publish: Sequence[str]
    subscribe: Sequence[str]
    deny: Sequence[str] = ()

    @property
    def permissions(self) -> dict[str, dict[str, list[str]]]:
        """The permissions in the format of nats-server's configuration."""
        return {
            "publish": {"allow": list(self.publish), "deny": list(self.deny)},
            "subscribe": {"allow": list(self.subscribe)},
        }


def inbox_prefix(name: str) -> str:
    """The prefix of the subjects that receive a user's replies; no other user may subscribe to them."""
    return f"_INBOX.{name}"


def _inbox(name: str) -> str:
    return f"{inbox_prefix(name)}.>"


def _own_events(name: str) -> list[str]:
    return [f"{EVENTS_PREFIX}{name}.{kind}" for kind in publishers.SERVICES[name]]


def _on_consumers(verb: str) -> list[str]:
    return [f"$JS.API.CONSUMER.{verb}.{EVENTS_STREAM}.{consumer}" for consumer in _CONSUMERS]


def service_user(name: str) -> User:
    """A service that is not part of Tallystick: it verifies tokens, and publishes events under its own name."""
    return User(
        SERVICES,
        publish=[*_VERIFICATION, f"{EVENTS_PREFIX}{name}.>"],
        subscribe=[_inbox(name)],
        deny=[f"{EVENTS_PREFIX}{name}.{kind}" for kind in publishers.RESERVED],
    )


USERS: Mapping[str, User] = {
    "edge": User(
        CORE,
        publish=[
            "tallystick.v1.tokens.>",
            "tallystick.v1.edge.tokens.>",
            "tallystick.v1.edge.accounts.>",
            "tallystick.v1.edge.sessions.>",
            "tallystick.v1.metrics.>",
            ACKNOWLEDGED,
            *_own_events("edge"),
        ],
        subscribe=[_inbox("edge"), CHANGED, RECALLED],
    ),
    "tokens": User(
        CORE,
        # `_R_` is where the server collects replies for another account.
        publish=[*_own_events("tokens"), "_INBOX.>", "_R_.>", CHANGED, RECALLED],
        subscribe=[
            "tallystick.v1.tokens.>",
            "tallystick.v1.edge.>",
            "tallystick.v1.operator.>",
            "$SRV.>",
            _inbox("tokens"),
        ],
    ),
    "metrics": User(
        CORE,
        # An edge receives verdicts in its inbox, too: the metrics service reaches only its own part of it.
        publish=[*_own_events("metrics"), "_INBOX.edge.metrics.>", "_INBOX.operator.>"],
        subscribe=[
            "tallystick.v1.metrics.>",
            "tallystick.v1.operator.metrics.>",
            "$SRV.>",
            _inbox("metrics"),
        ],
    ),
    "events": User(
        EVENTS,
        publish=[
            *(f"$JS.API.STREAM.{verb}.{EVENTS_STREAM}" for verb in ("CREATE", "INFO", "UPDATE", "PURGE")),
            *_on_consumers("CREATE"),
            *_on_consumers("DELETE"),
            *_on_consumers("MSG.NEXT"),
            f"$JS.ACK.{EVENTS_STREAM}.>",
        ],
        subscribe=[_inbox("events")],
    ),
    # For a person who reads the stream, backs it up and restores it, or replaces it.
    "events-operator": User(
        EVENTS,
        publish=[
            "$JS.API.>",
            f"$JS.SNAPSHOT.ACK.{EVENTS_STREAM}.>",
            f"$JS.SNAPSHOT.RESTORE.{EVENTS_STREAM}.>",
            f"$JS.ACK.{EVENTS_STREAM}.>",
        ],
        subscribe=[_inbox("events-operator")],
        # Only the metrics service may acknowledge an event: one that it has not counted would be lost.
        deny=[f"$JS.ACK.{EVENTS_STREAM}.{consumer}.>" for consumer in _CONSUMERS],
    ),
    "operator": User(
        CORE,
        publish=[
            "tallystick.v1.tokens.>",
            "tallystick.v1.operator.>",
            "tallystick.v1.metrics.>",
            "$SRV.>",
            *STREAM_READS,
            *SERVER_READS,
            CONNECTIONS_READ,
        ],
        subscribe=[_inbox("operator")],
    ),
    # `tallystick up` publishes events about the processes that it starts.
    "up": User(CORE, publish=_own_events("up"), subscribe=[_inbox("up")]),
    "service": service_user("service"),
}
"""The users of an installation that `tallystick up` runs."""
DEPLOYED = tuple(user for user in USERS if user != "up")
"""The users of any other installation."""


def user(name: str) -> User:
    """The permissions of the user with this name: one of `USERS`, or a service that is not part of Tallystick.

    While passwords are replaced, a user has a second name with another password: the first name, a dot and a suffix.
    ``edge.2`` has the permissions of ``edge``.
    """
    role = name.partition(".")[0]
    return USERS.get(role) or service_user(role)


class Tls(NamedTuple):
    """Files in PEM: the server's certificate and key, and the certificate of the CA that signed it."""

    certificate: Path
    key: Path
    authority: Path


class Cluster(NamedTuple):
    """Args:
    listen: ``host:port`` at which this node accepts the other nodes.
    routes: the URLs of the other nodes, with credentials.
    password: the password of the user ``route``, with which the nodes authenticate to each other.
    """

    listen: str
    routes: Sequence[str]
    password: str


def settings(
    passwords: Mapping[str, str],
    *,
    name: str,
    listen: str,
    store: str,
    extra: Mapping[str, User] | None = None,
    tls: Tls | None = None,
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """A server's configuration. nats-server reads it as JSON, of which its own format is a superset.

    Args:
        passwords: by user.
        name: the server's name.
        listen: ``host:port`` for clients.
        store: JetStream's folder.
        extra: permissions of some of these users that replace those of `user`.
        tls: the certificate for clients and between the nodes; None for connections without TLS.
        cluster: the other nodes; None for a single server.
    """
    extra = extra or {}
    configuration: dict[str, Any] = {
        "server_name": name,
        "listen": listen,
        "max_payload": 1 << 20,
        # Of subject and reply subject together. nats-py closes a connection that brings it a line over 4 KiB, which
        # is what the server sends plus a few words.
        "max_control_line": 2048,
        "ping_interval": "2s",
        "ping_max": 2,
        "jetstream": {
            "store_dir": store,
            "max_mem": _MAX_MEMORY_BYTES,
            "max_file": _MAX_FILE_BYTES,
            # An acknowledged event survives a loss of power.
            "sync_interval": "always",
        },
        "accounts": accounts(
            Login(login, password, extra.get(login) or user(login)) for login, password in passwords.items()
        ),
    }
    encryption = {
        "cert_file": str(tls.certificate),
        "key_file": str(tls.key),
        "ca_file": str(tls.authority),
    } if tls else None  # fmt: skip
    if encryption:
        configuration["tls"] = encryption
    if cluster:
        configuration["cluster"] = {
            "name": "tallystick",
            "listen": cluster.listen,
            "routes": list(cluster.routes),
            "authorization": {"user": "route", "password": cluster.password},
            # Clients are configured with all nodes; an advertised address would lack their credentials.
            "no_advertise": True,
            # Nodes authenticate each other by their certificates.
            **({"tls": {**encryption, "verify": True}} if encryption else {}),
        }
    return configuration


class Login(NamedTuple):
    """A user of a server's configuration."""

    name: str
    password: str
    user: User


def accounts(logins: Iterable[Login]) -> dict[str, Any]:
    """The part ``accounts`` of a server's configuration."""
    logins = list(logins)
    return {
        account: {
            **exchange,
            "users": [
                {"user": login.name, "password": login.password, "permissions": login.user.permissions}
                for login in logins
                if login.user.account == account
            ],
        }
        for account, exchange in ACCOUNTS.items()
    }


def subjects() -> list[str]:
    """The subjects of the table: those of the contracts (requests, notices, events) and those of NATS itself."""
    operations = [operation.subject for operation in registry.operations()]
    kinds = (
        "thread.started",
        "token.created",
        "api.calls",
        "metrics.reported",
        "account.added",
        "account.state",
    )
    return [
        *sorted(operations),
        CHANGED,
        RECALLED,
        ACKNOWLEDGED,
        *(f"{EVENTS_PREFIX}{user}.{kind}" for user in (*publishers.SERVICES, "service") for kind in kinds),
        f"{EVENTS_PREFIX}thread.started",
        *(f"$SRV.{verb}" for verb in ("PING", "INFO", "STATS")),
        *(f"$SRV.{verb}.tallystick-tokens.id" for verb in ("PING", "INFO", "STATS")),
        *SERVER_READS,
        CONNECTIONS_READ,
        *(f"$SYS.REQ.SERVER.{what}" for what in ("PING.HEALTHZ", "PING.SUBSZ", "id.VARZ")),
        *(f"$SYS.REQ.SERVER.id.{what}" for what in ("RELOAD", "KICK", "LDM")),
        "$SYS.REQ.ACCOUNT.EVENTS.CONNZ",
        "$SYS.REQ.CLAIMS.UPDATE",
        *STREAM_READS[:-1],
        f"$JS.API.CONSUMER.INFO.{EVENTS_STREAM}.{STREAM_CONSUMER}",
        "$JS.API.STREAM.INFO.other",
        "$JS.API.CONSUMER.LIST.other",
        *(f"$JS.API.STREAM.{verb}.{EVENTS_STREAM}" for verb in ("CREATE", "UPDATE", "DELETE", "PURGE")),
        *(f"$JS.API.STREAM.{verb}.{EVENTS_STREAM}" for verb in ("MSG.GET", "MSG.DELETE", "SNAPSHOT")),
        f"$JS.API.STREAM.LEADER.STEPDOWN.{EVENTS_STREAM}",
        f"$JS.API.DIRECT.GET.{EVENTS_STREAM}",
        "$JS.API.STREAM.CREATE.other",
        *_on_consumers("CREATE"),
        f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}",
        f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}.other",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{EVENTS_STREAM}.{STREAM_CONSUMER}",
        *_on_consumers("MSG.NEXT"),
        *_on_consumers("DELETE"),
        f"$JS.API.CONSUMER.PAUSE.{EVENTS_STREAM}.{STREAM_CONSUMER}",
        *(f"$JS.ACK.{EVENTS_STREAM}.{consumer}.1.1.1.1.0" for consumer in (*_CONSUMERS, "other")),
        *(f"$JS.SNAPSHOT.{verb}.{EVENTS_STREAM}.x" for verb in ("ACK", "RESTORE")),
        *(f"_INBOX.{user}.x" for user in USERS),
        "_INBOX.edge.metrics.x",
        "_INBOX.x",
        "_R_.x",
        "anything.else",
    ]


def allows(user: User, way: str, subject: str) -> bool:
    """Whether a user may publish or subscribe (``way``) to a subject without wildcards."""
    if way == "subscribe":
        return any(_covers(pattern, subject) for pattern in user.subscribe)
    return any(_covers(pattern, subject) for pattern in user.publish) and not any(
        _covers(pattern, subject) for pattern in user.deny
    )


def _covers(pattern: str, subject: str) -> bool:
    pattern_parts, subject_parts = pattern.split("."), subject.split(".")
    if pattern_parts[-1] == ">":
        pattern_parts, subject_parts = (
            pattern_parts[:-1],
            subject_parts[: len(pattern_parts) - 1]
            if len(subject_parts) >= len(pattern_parts)
            else ["", *subject_parts],
        )
    return len(pattern_parts) == len(subject_parts) and all(
        expected in ("*", actual) for expected, actual in zip(pattern_parts, subject_parts, strict=True)
    )


def table() -> str:
    """The permissions of each user by subject, as a Markdown table."""
    lines = [
        "| subject | " + " | ".join(f"{name} ({user.account})" for name, user in USERS.items()) + " |",
        "|---" * (len(USERS) + 1) + "|",
    ]
    for subject in subjects():
        ways = [
            " and ".join(way for way in ("publish", "subscribe") if allows(user, way, subject))
            for user in USERS.values()
        ]
        lines.append(f"| `{subject}` | " + " | ".join(ways) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())

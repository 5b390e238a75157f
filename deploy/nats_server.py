"""How every NATS server of ours is set, embedded, in containers or in a cluster: users with the least they need.

python -m deploy.nats_server        prints the table of permissions that docs/permissions.md holds
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shared import contracts
from shared.contracts import ACKNOWLEDGED, CHANGED, EVENTS_PREFIX, EVENTS_STREAM, Operation

Permissions = Mapping[str, Mapping[str, list[str]]]

# Replies go to the asker's own inbox prefix; only who answers may publish there.
_INBOXES = ["_INBOX.>", "_INBOX_edge.>", "_INBOX_operator.>"]
_EVENTS = [f"{EVENTS_PREFIX}>"]
PERMISSIONS: Permissions = {
    "edge": {
        "publish": [
            "tallystick.v1.tokens.>",
            "tallystick.v1.edge.tokens.>",
            "tallystick.v1.edge.sessions.>",
            "tallystick.v1.admin.>",
            "tallystick.v1.metrics.>",
            ACKNOWLEDGED,
            *_EVENTS,
        ],
        "subscribe": ["_INBOX_edge.>", CHANGED],
    },
    "tokens": {
        "publish": [*_EVENTS, *_INBOXES, CHANGED],
        "subscribe": [
            "tallystick.v1.tokens.>",
            "tallystick.v1.edge.>",
            "tallystick.v1.admin.>",
            "$SRV.>",
            "_INBOX_tokens.>",
        ],
    },
    "metrics": {
        "publish": [*_EVENTS, *_INBOXES, "$JS.API.>", f"$JS.ACK.{EVENTS_STREAM}.>"],
        "subscribe": ["tallystick.v1.metrics.>", "$SRV.>", "_INBOX_metrics.>"],
    },
    "operator": {
        "publish": [
            "tallystick.v1.tokens.>",
            "tallystick.v1.edge.tokens.>",
            "tallystick.v1.admin.>",
            "tallystick.v1.metrics.>",
            "$SRV.>",
        ],
        "subscribe": ["_INBOX_operator.>"],
    },
    "service": {
        "publish": ["tallystick.v1.tokens.>", "$SRV.>", *_EVENTS],
        "subscribe": ["_INBOX.>"],
    },
}


class Tls(NamedTuple):
    """Files in PEM: this server's certificate and key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


class Cluster(NamedTuple):
    """Args:
    listen: where this node listens for the others.
    routes: where the others listen, credentials included.
    password: what the nodes show each other, as the user ``route``.
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
    permissions: Permissions = PERMISSIONS,
    tls: Tls | None = None,
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """One server's configuration; as JSON it is what nats-server reads, whose own format is a superset."""
    made: dict[str, Any] = {
        "server_name": name,
        "listen": listen,
        "max_payload": 1 << 20,
        "ping_interval": "2s",
        "ping_max": 2,
        "jetstream": {
            "store_dir": store,
            "max_mem": 64 << 20,
            "max_file": 4 << 30,
            # What was acknowledged survives a loss of power.
            "sync_interval": "always",
        },
        "authorization": {
            "users": [
                {"user": user, "password": passwords[user], "permissions": allowed}
                for user, allowed in permissions.items()
            ]
        },
    }
    encryption = {
        "cert_file": str(tls.certificate),
        "key_file": str(tls.key),
        "ca_file": str(tls.authority),
    } if tls else None  # fmt: skip
    if encryption:
        made["tls"] = encryption
    if cluster:
        made["cluster"] = {
            "name": "tallystick",
            "listen": cluster.listen,
            "routes": list(cluster.routes),
            "authorization": {"user": "route", "password": cluster.password},
            # Clients are told all nodes; an address found out here would come without their credentials.
            "no_advertise": True,
            # Between the nodes both sides show a certificate.
            **({"tls": {**encryption, "verify": True}} if encryption else {}),
        }
    return made


def subjects() -> list[str]:
    """Every subject there is, from the contracts: requests, notices, events, and what NATS itself offers."""
    operations = [each.subject for each in vars(contracts).values() if isinstance(each, Operation)]
    return [
        *sorted(operations),
        CHANGED,
        ACKNOWLEDGED,
        f"{EVENTS_PREFIX}thread.started",
        "$SRV.PING",
        f"$JS.API.STREAM.INFO.{EVENTS_STREAM}",
        f"$JS.ACK.{EVENTS_STREAM}.metrics",
        *(f"_INBOX_{user}.x" for user in PERMISSIONS if user != "service"),
        "_INBOX.x",
        "anything.else",
    ]


def allows(user: str, way: str, subject: str) -> bool:
    """Whether a user may publish or subscribe (``way``) to a subject without wildcards."""
    return any(_covers(pattern, subject) for pattern in PERMISSIONS[user][way])


def _covers(pattern: str, subject: str) -> bool:
    if pattern.endswith(".>"):
        return subject.startswith(pattern[:-1])
    return pattern == subject


def table() -> str:
    """Who may do what, in Markdown."""
    lines = [
        "| subject | " + " | ".join(PERMISSIONS) + " |",
        "|---" * (len(PERMISSIONS) + 1) + "|",
    ]
    for subject in subjects():
        ways = [
            " and ".join(way for way in ("publish", "subscribe") if allows(user, way, subject))
            for user in PERMISSIONS
        ]
        lines.append(f"| `{subject}` | " + " | ".join(ways) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())

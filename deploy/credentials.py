"""Makes the passwords and configuration that a deployment needs, once: a folder for each part, so that none sees
another's. What is there stays as it is.

    python -m deploy.credentials FOLDER [--nats nats:4222] [--postgres postgres:5432] [--nodes nats-0,nats-1,nats-2]
"""

import argparse
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from deploy import nats_server
from deploy.embedded.postgres import DATABASE, ROLES, roles_sql
from shared import token_record, token_value
from shared.contracts import NewToken
from shared.ids import new_id


def make(
    folder: Path,
    *,
    nats: str,
    postgres: str,
    nodes: Sequence[str] = (),
    scheme: str = "nats",
    options: str = "",
) -> bool:
    """Writes everything, or answers False where it is there.

    Args:
        folder: where to.
        nats: where the servers will be, ``host:port``, several separated by commas.
        postgres: where PostgreSQL will be, ``host:port``, several separated by commas.
        nodes: the hosts of a NATS cluster, as they see each other.
        scheme: ``tls`` where NATS is to be spoken to encrypted only.
        options: of the PostgreSQL URLs, such as ``sslmode=verify-full&sslrootcert=/run/secrets/authority.pem``.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    finished = folder / "nats" / "server.conf"
    if finished.exists():
        return False
    passwords = {name: secrets.token_hex(24) for name in ("postgres", *ROLES)}
    users = {user: secrets.token_hex(24) for user in nats_server.PERMISSIONS}
    for user, password in users.items():
        servers = (f"{scheme}://{user}:{password}@{server}" for server in nats.split(","))
        _write(folder / user / "nats_url", ",".join(servers))
    for role in ROLES:
        query = f"?{options}" if options else ""
        _write(
            folder / role / "database_url",
            f"postgresql://{role}:{passwords[role]}@{postgres}/{DATABASE}{query}",
        )
    _write(folder / "postgres" / "password", passwords["postgres"])
    _write(folder / "postgres" / "roles.sql", roles_sql(passwords))
    _write(folder / "grafana" / "admin_password", secrets.token_hex(24))
    _metrics_token(folder)
    configuration = nats_server.settings(
        users, name="tallystick", listen="0.0.0.0:4222", store="/data", cluster=_cluster(nodes)
    )
    _write(finished, json.dumps(configuration, indent=1))
    return True


def _cluster(nodes: Sequence[str]) -> nats_server.Cluster | None:
    """All nodes share this; what tells them apart is ``nats-server --name``."""
    if not nodes:
        return None
    password = secrets.token_hex(24)
    routes = [f"nats://route:{password}@{node}:6222" for node in nodes]
    return nats_server.Cluster(listen="0.0.0.0:6222", routes=routes, password=password)


def _metrics_token(folder: Path) -> None:
    """A token for Prometheus, and its record for the tokens service, which imports it at its start."""
    secret = token_value.new_secret()
    record = token_record.TokenRecord(
        id=new_id("tok_"),
        digest=secret.digest,
        hint=secret.hint,
        token=NewToken(description="Prometheus", scopes=("metrics",)),
    )
    _write(folder / "prometheus" / "token", secret.value)
    _write(folder / "tokens" / "prepared_token", msgspec.json.encode(record).decode())


def _write(path: Path, text: str) -> None:
    """Who may see the folder may read its files: PostgreSQL, Prometheus and Grafana run as users of their own."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    path.chmod(0o444)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nats", default="nats:4222")
    parser.add_argument("--postgres", default="postgres:5432")
    parser.add_argument("--nodes", default="", help="hosts of a NATS cluster, separated by commas")
    parser.add_argument("--scheme", choices=["nats", "tls"], default="nats")
    parser.add_argument("--uri-options", default="")
    asked = parser.parse_args(arguments)
    made = make(
        asked.folder,
        nats=asked.nats,
        postgres=asked.postgres,
        nodes=[node for node in asked.nodes.split(",") if node],
        scheme=asked.scheme,
        options=asked.uri_options,
    )
    print("credentials were made" if made else "credentials are there")


if __name__ == "__main__":
    main()

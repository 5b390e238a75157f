"""Makes the passwords and configuration that a deployment needs: a folder for each part, so that none sees another's.

    python -m deploy.credentials FOLDER [--nats nats:4222] [--postgres postgres:5432] [--nodes nats-0,nats-1,nats-2]
        [--certificate nats=nats --certificate postgres=postgres --certificate edge=edge]

Run again, it leaves the passwords as they are, gives NATS' users what this version needs, and makes new certificates.
"""

import argparse
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from deploy import nats_server
from deploy.embedded.postgres import DATABASE, ROLES, roles_sql
from shared import token_record, token_value
from shared.contracts import NewToken
from shared.ids import new_id

AUTHORITY = Path(__file__).with_name("authority")
SEEN_AT = Path("/secrets")
"""Where each part finds its folder."""
TLS = nats_server.Tls(
    SEEN_AT / "certificate.pem", SEEN_AT / "certificate.pem.key", authority=SEEN_AT / "authority.pem"
)


class Unfit(Exception):
    """What is there was made another way."""


def make(
    folder: Path,
    *,
    nats: str,
    postgres: str,
    nodes: Sequence[str] = (),
    options: str = "",
    certificates: Mapping[str, str] | None = None,
) -> bool:
    """Writes what is not there yet.

    Args:
        folder: where to.
        nats: where the servers will be, ``host:port``, several separated by commas.
        postgres: where PostgreSQL will be, ``host:port``, several separated by commas.
        nodes: the hosts of a NATS cluster, as they see each other.
        options: of the PostgreSQL URLs, such as ``sslmode=verify-full&sslrootcert=/secrets/authority.pem``.
        certificates: for which parts, and for which hosts each, separated by commas. NATS and PostgreSQL are spoken
            to encrypted only where they have one.

    Returns:
        Whether there was nothing yet.

    Raises:
        Unfit: NATS was set with TLS before, and is to be without it, or the other way round.
        subprocess.CalledProcessError: openssl cannot make such a certificate.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    certificates = certificates or {}
    finished = folder / "nats" / "server.conf"
    if finished.exists():
        configuration = json.loads(finished.read_text())
        if ("tls" in configuration) != ("nats" in certificates):
            raise Unfit
        _grant(configuration)
        _write(finished, json.dumps(configuration, indent=1))
        _certify(folder, certificates)
        return False
    if "postgres" in certificates:
        options = f"sslmode=verify-full&sslrootcert={TLS.authority}"
    scheme, tls = ("tls", TLS) if "nats" in certificates else ("nats", None)
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
    _certify(folder, certificates)
    configuration = nats_server.settings(
        users, name="tallystick", listen="0.0.0.0:4222", store="/data", tls=tls, cluster=_cluster(nodes)
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


def _grant(configuration: dict[str, Any]) -> None:
    """What this version's services need; whatever else was set stays."""
    for user in configuration["authorization"]["users"]:
        if user["user"] in nats_server.PERMISSIONS:
            user["permissions"] = nats_server.PERMISSIONS[user["user"]]


def _certify(folder: Path, certificates: Mapping[str, str]) -> None:
    """New certificates by the authority that is there, or a new one; its own key is nobody else's."""
    if not certificates:
        return
    own = folder / "authority"
    wanted = (f"{part}={hosts}" for part, hosts in certificates.items())
    subprocess.run(["sh", str(AUTHORITY), str(own), *wanted], check=True)
    for part in certificates:
        _write(folder / part / TLS.key.name, (own / f"{part}.key").read_text())
        _write(folder / part / TLS.certificate.name, (own / f"{part}.pem").read_text())
    for each in folder.iterdir():
        if each != own:
            _write(each / TLS.authority.name, (own / "authority.pem").read_text())


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
    new = path.with_name(path.name + ".new")
    new.write_text(text.rstrip("\n") + "\n")
    new.chmod(0o444)
    new.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nats", default="nats:4222")
    parser.add_argument("--postgres", default="postgres:5432")
    parser.add_argument("--nodes", default="", help="hosts of a NATS cluster, separated by commas")
    parser.add_argument("--uri-options", default="", help="of the URLs of PostgreSQL")
    parser.add_argument(
        "--certificate",
        action="append",
        default=[],
        metavar="PART=HOST[,HOST]",
        help="for nats or postgres, then spoken to encrypted only, or for another part",
    )
    asked = parser.parse_args(arguments)
    try:
        made = make(
            asked.folder,
            nats=asked.nats,
            postgres=asked.postgres,
            nodes=[node for node in asked.nodes.split(",") if node],
            options=asked.uri_options,
            certificates=dict(each.split("=", 1) for each in asked.certificate),
        )
    except Unfit:
        sys.exit(
            "the credentials that are there were made with TLS and this start is without it, or the other way round: "
            "start as before, or make new ones as docs/backup.md says"
        )
    print("credentials were made" if made else "credentials are there")


if __name__ == "__main__":
    main()

"""Creates the passwords and the configuration of a deployment, in a folder for each service, so that no service can read
those of another.

    python -m tallystick_server.cli.credentials FOLDER [--nats nats:4222] [--postgres postgres:5432]
        [--nodes nats-0,nats-1,nats-2]
        [--certificate nats=nats --certificate postgres=postgres --certificate edge=edge]
        [--service NAME] [--remove-service NAME] [--nats-data FOLDER]

If it is run again, it keeps the passwords, gives the NATS users the permissions of this version, and creates new
certificates. The NATS URL of an added service is in FOLDER/services/NAME/nats_url.
"""

import argparse
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tallystick.contracts import publishers
from tallystick.contracts.records import NewToken
from tallystick.errors import Unavailable
from tallystick.tokens import format as token_format, record as token_record
from tallystick.tokens.ids import new_id
from tallystick_server.local import nats as embedded_nats
from tallystick_server.local.postgres import DATABASE, ROLES, roles_sql
from tallystick_server.runtime import AUTHORITY_SCRIPT, nats_permissions

SERVICES = "services"
"""The folder that has a folder for each added service."""
EVENTS_USERS = {"events": "metrics", "events-operator": "operator"}
"""NATS users in the account of the event stream, by user, with the service that also has a user in the other account."""
SEEN_AT = Path("/secrets")
"""Where each service's folder is mounted."""
TLS = nats_permissions.Tls(
    SEEN_AT / "certificate.pem", SEEN_AT / "certificate.pem.key", authority=SEEN_AT / "authority.pem"
)


class Unfit(Exception):
    """The folder was created with other options."""


def make(
    folder: Path,
    *,
    nats: str,
    postgres: str,
    nodes: Sequence[str] = (),
    options: str = "",
    certificates: Mapping[str, str] | None = None,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    nats_data: Path | None = None,
) -> bool:
    """Creates the files that do not exist yet.

    Args:
        folder: the folder to write to.
        nats: the addresses of the NATS servers, ``host:port``, separated by commas.
        postgres: the addresses of PostgreSQL, ``host:port``, separated by commas.
        nodes: the hosts of a NATS cluster, as they reach each other.
        options: of the PostgreSQL URLs, such as ``sslmode=verify-full&sslrootcert=/secrets/authority.pem``.
        certificates: for each service that gets a certificate, its hosts, separated by commas. Connections to NATS and
            to PostgreSQL use TLS only if they have one.
        add: services that get a NATS user each.
        remove: services whose NATS user is removed.
        nats_data: JetStream's folder. If an earlier version kept the event stream in another account, the stream is moved.
            NATS must not run then.

    Returns:
        Whether the credentials were created, and not only updated.

    Raises:
        Unavailable: the event stream cannot be moved.
        Unfit: NATS was set up with TLS before and now has none, or the other way round.
        subprocess.CalledProcessError: openssl cannot create such a certificate.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    certificates = certificates or {}
    finished = folder / "nats" / "server.conf"
    if finished.exists():
        configuration = json.loads(finished.read_text())
        if (certificates or not (add or remove)) and ("tls" in configuration) != ("nats" in certificates):
            raise Unfit
        if nats_data is not None and "accounts" not in configuration:
            embedded_nats.move_stream(nats_data)
        users = _grant(configuration, add, remove)
        _write(finished, json.dumps(configuration, indent=1))
        _write_nats_urls(folder, users, "tls" if "tls" in configuration else "nats", nats)
        for name in remove:
            shutil.rmtree(folder / SERVICES / name, ignore_errors=True)
        _certify(folder, certificates)
        return False
    if "postgres" in certificates:
        options = f"sslmode=verify-full&sslrootcert={TLS.authority}"
    scheme, tls = ("tls", TLS) if "nats" in certificates else ("nats", None)
    passwords = {name: _password() for name in ("postgres", *ROLES)}
    users = {user: _password() for user in (*nats_permissions.DEPLOYED, *add)}
    _write_nats_urls(folder, users, scheme, nats)
    for role in ROLES:
        query = f"?{options}" if options else ""
        _write(
            folder / role / "database_url",
            f"postgresql://{role}:{passwords[role]}@{postgres}/{DATABASE}{query}",
        )
    _write(folder / "postgres" / "password", passwords["postgres"])
    _write(folder / "postgres" / "roles.sql", roles_sql(passwords))
    _write(folder / "grafana" / "admin_password", _password())
    _metrics_token(folder)
    _certify(folder, certificates)
    configuration = nats_permissions.settings(
        users, name="tallystick", listen="0.0.0.0:4222", store="/data", tls=tls, cluster=_cluster(nodes)
    )
    _write(finished, json.dumps(configuration, indent=1))
    return True


def _password() -> str:
    return secrets.token_hex(24)


def _write_nats_urls(folder: Path, users: Mapping[str, str], scheme: str, nats: str) -> None:
    """Writes the NATS URL of each user that has no such file yet."""
    for user, password in users.items():
        path = _nats_url_file(folder, user)
        if "." not in user and not path.exists():
            servers = (f"{scheme}://{user}:{password}@{server}" for server in nats.split(","))
            _write(path, ",".join(servers))


def _nats_url_file(folder: Path, user: str) -> Path:
    if part := EVENTS_USERS.get(user):
        return folder / part / "events_nats_url"
    return (folder if user in nats_permissions.USERS else folder / SERVICES) / user / "nats_url"


def _cluster(nodes: Sequence[str]) -> nats_permissions.Cluster | None:
    """The configuration that all nodes share; each has its own ``nats-server --name``."""
    if not nodes:
        return None
    password = secrets.token_hex(24)
    routes = [f"nats://route:{password}@{node}:6222" for node in nodes]
    return nats_permissions.Cluster(listen="0.0.0.0:6222", routes=routes, password=password)


def _grant(configuration: dict[str, Any], add: Sequence[str], remove: Sequence[str]) -> dict[str, str]:
    """Gives the users the permissions of this version, and new users a password; other settings stay.
    Returns the passwords by user.
    """
    # Before there were accounts, all users were in one list.
    parts = [configuration.pop("authorization", {}), *configuration.get("accounts", {}).values()]
    passwords = {user["user"]: user["password"] for part in parts for user in part.get("users", ())}
    users = {
        user: passwords.get(user) or _password() for user in (*nats_permissions.DEPLOYED, *passwords, *add)
    }
    for user in list(users):
        if user.partition(".")[0] in remove:
            del users[user]
    configuration["accounts"] = nats_permissions.accounts(
        nats_permissions.Login(user, password, nats_permissions.user(user))
        for user, password in users.items()
    )
    return users


def _certify(folder: Path, certificates: Mapping[str, str]) -> None:
    """Creates certificates, signed by the CA in the folder, or by a new one. The CA's key is copied to no service."""
    if not certificates:
        return
    own = folder / "authority"
    certificate_args = (f"{part}={hosts}" for part, hosts in certificates.items())
    subprocess.run(["sh", str(AUTHORITY_SCRIPT), str(own), *certificate_args], check=True)
    for part in certificates:
        _write(folder / part / TLS.key.name, (own / f"{part}.key").read_text())
        _write(folder / part / TLS.certificate.name, (own / f"{part}.pem").read_text())
    for part_folder in (*folder.iterdir(), *folder.glob(f"{SERVICES}/*")):
        if part_folder not in {own, folder / SERVICES}:
            _write(part_folder / TLS.authority.name, (own / "authority.pem").read_text())


def _metrics_token(folder: Path) -> None:
    """Creates a token for Prometheus, and its record, which the tokens service imports at startup."""
    secret = token_format.new_secret()
    record = token_record.TokenRecord(
        id=new_id("tok_"),
        digest=secret.digest,
        hint=secret.hint,
        token=NewToken(description="Prometheus", scopes=("metrics",)),
    )
    _write(folder / "prometheus" / "token", secret.value)
    _write(folder / "tokens" / "prepared_token", msgspec.json.encode(record).decode())


def _write(path: Path, text: str) -> None:
    """Writes a file that every user may read who may enter its folder: PostgreSQL, Prometheus and Grafana run as users of
    their own.
    """
    path.parent.mkdir(exist_ok=True, parents=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text.rstrip("\n") + "\n")
    temporary.chmod(0o444)
    temporary.replace(path)


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
        help="for nats or postgres, whose connections then use TLS, or for another service",
    )
    parser.add_argument(
        "--service", action="append", default=[], metavar="NAME", help="add a NATS user for a service"
    )
    parser.add_argument(
        "--remove-service", action="append", default=[], metavar="NAME", help="remove a service's NATS user"
    )
    parser.add_argument(
        "--nats-data", type=Path, help="JetStream's folder, to upgrade it while NATS is stopped"
    )
    args = parser.parse_args(arguments)
    for name in (*args.service, *args.remove_service):
        if not publishers.is_name(name) or name in nats_permissions.USERS:
            parser.error(f"{name!r} cannot be a service's name")
    try:
        is_new = make(
            args.folder,
            nats=args.nats,
            postgres=args.postgres,
            nodes=[node for node in args.nodes.split(",") if node],
            options=args.uri_options,
            certificates=dict(certificate.split("=", 1) for certificate in args.certificate),
            add=args.service,
            remove=args.remove_service,
            nats_data=args.nats_data,
        )
    except Unavailable as error:
        sys.exit(str(error))
    except Unfit:
        sys.exit(
            "the existing credentials were created with TLS and this start is without it, or the other way round: "
            "start as before, or create new ones as described in docs/backup.md"
        )
    print("credentials created" if is_new else "credentials exist")


if __name__ == "__main__":
    main()

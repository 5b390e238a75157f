"""The credentials of a deployment's parts: each has its own, and none has another's."""

import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tallystick import connection as bus
from tallystick.errors import Unavailable
from tallystick_server.cli import credentials
from tallystick_server.local import nats as embedded_nats
from tallystick_server.runtime import nats_permissions
from tests.support.paths import ROOT
from tests.support.ports import free_port

CERTIFICATES = {"nats": "localhost,127.0.0.1", "postgres": "db", "proxy": "localhost"}


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def users_of(configuration: str) -> dict[str, dict[str, Any]]:
    accounts = json.loads(configuration)["accounts"]
    return {user["user"]: user for account in accounts.values() for user in account["users"]}


def test_credentials_are_created_once(tmp_path: Path):
    assert credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    contents = files(tmp_path)
    assert not credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    assert files(tmp_path) == contents


def test_no_part_has_the_credentials_of_another(tmp_path: Path):
    credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    contents = files(tmp_path)
    users = users_of(contents["nats/server.conf"])
    assert users.keys() == set(nats_permissions.DEPLOYED)
    for user, login in users.items():
        part = credentials.EVENTS_USERS.get(user)
        own = f"{part}/events_nats_url" if part else f"{user}/nats_url"
        assert {name for name, text in contents.items() if login["password"] in text} == {
            "nats/server.conf",
            own,
        }
    for file in ("prometheus/token", "grafana/admin_password"):
        assert [name for name, text in contents.items() if contents[file].strip() in text] == [file]


@pytest.mark.parametrize("overlays", [[], ["deploy/compose/tls.yaml"]])
def test_compose_has_a_volume_for_each_part(tmp_path: Path, overlays: list[str]):
    """Writing anywhere else would fail there: the file system is read-only."""
    volumes: list[str] = []
    for name in ("compose.yaml", *overlays):
        service = yaml.safe_load((ROOT / name).read_text())["services"]["credentials"]
        volumes += [volume.partition(":")[2] for volume in service["volumes"]]
    certificates = {"nats": "nats", "postgres": "postgres", "edge": "edge", "proxy": "proxy"}
    credentials.make(
        tmp_path,
        nats="nats:4222",
        postgres="postgres:5432",
        certificates=certificates if overlays else None,
        add=["mailer"],
    )
    assert {f"/secrets/{folder.name}" for folder in tmp_path.iterdir()} <= set(volumes)


def test_the_nodes_of_a_nats_cluster(tmp_path: Path):
    nodes = ["nats-0.nats", "nats-1.nats"]
    credentials.make(tmp_path, nats="a:1,b:2", postgres="p:5", nodes=nodes)
    contents = files(tmp_path)
    cluster = json.loads(contents["nats/server.conf"])["cluster"]
    assert [route.partition("@")[2] for route in cluster["routes"]] == [f"{node}:6222" for node in nodes]
    assert [url.partition("@")[2] for url in contents["edge/nats_url"].strip().split(",")] == ["a:1", "b:2"]


def test_a_second_run_updates_the_permissions_of_nats_users(tmp_path: Path):
    credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    contents = files(tmp_path)
    file = tmp_path / "nats/server.conf"
    older = json.loads(contents["nats/server.conf"])
    older["accounts"]["TALLYSTICK"]["users"][0]["permissions"]["publish"]["allow"].pop()
    older["jetstream"]["max_file"] = 1 << 40
    older["accounts"]["TALLYSTICK"]["users"].append({"user": "edge.2", "password": "second"})
    file.unlink()
    file.write_text(json.dumps(older))
    assert not credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    newer = users_of(file.read_text())
    second = newer.pop("edge.2")
    assert newer == users_of(contents["nats/server.conf"])
    assert second == {**newer["edge"], "user": "edge.2", "password": "second"}
    assert json.loads(file.read_text())["jetstream"]["max_file"] == 1 << 40


def test_an_installation_without_accounts_is_migrated_with_its_stream(tmp_path: Path):
    data = tmp_path / "data"
    stream = data / "jetstream/$G/streams/TALLYSTICK_EVENTS"
    stream.mkdir(parents=True)
    (stream / "meta.inf").write_text("x")
    older = {
        "server_name": "tallystick",
        "authorization": {
            "users": [
                {"user": user, "password": f"{user}'s", "permissions": {"publish": [">"]}}
                for user in ("edge", "tokens", "metrics", "operator", "service")
            ]
        },
    }
    (tmp_path / "s/nats").mkdir(parents=True)
    (tmp_path / "s/nats/server.conf").write_text(json.dumps(older))
    credentials.main([str(tmp_path / "s"), "--nats-data", str(data)])
    contents = files(tmp_path / "s")
    assert "authorization" not in json.loads(contents["nats/server.conf"])
    users = users_of(contents["nats/server.conf"])
    assert users["edge"]["password"] == "edge's"
    assert users["edge"]["permissions"] == nats_permissions.USERS["edge"].permissions
    assert users["events"]["password"] in contents["metrics/events_nats_url"]
    assert (data / "jetstream/EVENTS/streams/TALLYSTICK_EVENTS/meta.inf").exists()
    assert not stream.exists()
    stream.mkdir(parents=True)
    with pytest.raises(Unavailable, match="two event streams"):
        embedded_nats.move_stream(data)


def test_services_are_added_and_removed(tmp_path: Path):
    def run_again(*arguments: str) -> dict[str, str]:
        credentials.main([str(tmp_path), "--certificate", "nats=nats", *arguments])
        return files(tmp_path)

    run_again()
    contents = run_again("--service", "mailer", "--service", "shop")
    login = users_of(contents["nats/server.conf"])["mailer"]
    assert login["permissions"] == nats_permissions.service_user("mailer").permissions
    assert contents["services/mailer/nats_url"] == f"tls://mailer:{login['password']}@nats:4222\n"
    assert contents["services/mailer/authority.pem"] == contents["edge/authority.pem"]
    assert run_again("--service", "mailer") == contents
    credentials.main([str(tmp_path), "--remove-service", "mailer"])
    left = files(tmp_path)
    assert {name for name in contents if name not in left} == {
        "services/mailer/nats_url",
        "services/mailer/authority.pem",
    }
    assert "mailer" not in left["nats/server.conf"]
    for name in ("edge", "operator", "Mailer", "../x", "a.b"):
        with pytest.raises(SystemExit):
            credentials.main([str(tmp_path), "--service", name])


async def test_with_certificates_every_connection_is_encrypted(tmp_path: Path):
    port = free_port()
    server = f"127.0.0.1:{port}"
    assert credentials.make(tmp_path, nats=server, postgres="db:5432", certificates=CERTIFICATES)
    contents = files(tmp_path)
    assert urlsplit(contents["tokens/database_url"].strip()).query == (
        "sslmode=verify-full&sslrootcert=/secrets/authority.pem"
    )
    authority = contents["authority/authority.pem"]
    for part in ("edge", "tokens", "metrics", "operator", "service", "nats", "prometheus", "proxy"):
        assert contents[f"{part}/authority.pem"] == authority
    keys = [
        name for name, text in contents.items() if "PRIVATE KEY" in text and not name.startswith("authority/")
    ]
    assert sorted(keys) == [f"{part}/certificate.pem.key" for part in sorted(CERTIFICATES)]
    # HAProxy finds a key beside its certificate by this name.
    ssl.create_default_context().load_cert_chain(tmp_path / "proxy/certificate.pem", tmp_path / keys[-1])
    settings = contents["nats/server.conf"].replace("/secrets/", f"{tmp_path}/nats/")
    settings = settings.replace("0.0.0.0:4222", server).replace("/data", f"{tmp_path}/data")
    (tmp_path / "server.conf").write_text(settings)
    process = await embedded_nats.start(tmp_path / "server.conf", port, tmp_path / "log")
    url = contents["operator/nats_url"].strip()
    async with bus.connect(url, "operator", wait_s=5, authority=authority) as client:
        assert client.is_connected
    process.kill()
    await process.wait()


def test_certificates_are_renewed_for_other_hosts_and_before_they_expire(tmp_path: Path):
    def renewed_files(certificates: dict[str, str]) -> set[str]:
        before = files(tmp_path)
        assert not credentials.make(tmp_path, nats="n:1", postgres="p:5", certificates=certificates)
        after = files(tmp_path)
        return {name for name in after if before.get(name) != after[name] and "certificate" in name}

    credentials.make(tmp_path, nats="n:1", postgres="p:5", certificates=CERTIFICATES)
    contents = files(tmp_path)
    assert renewed_files(CERTIFICATES) == set()
    moved = CERTIFICATES | {"proxy": "api.example"}
    assert renewed_files(moved) == {"proxy/certificate.pem", "proxy/certificate.pem.key"}
    # One that expires soon, and one whose creation was interrupted before its certificate was written.
    own = tmp_path / "authority"
    request = ["openssl", "req", "-x509", "-key", "nats.key", "-subj", "/CN=nats", "-days", "100"]
    subprocess.run([*request, "-out", "nats.pem"], cwd=own, check=True, capture_output=True)
    (own / "postgres.pem").unlink()
    assert renewed_files(moved) == {
        f"{part}/certificate.pem{end}" for part in ("nats", "postgres") for end in ("", ".key")
    }
    assert files(tmp_path)["edge/authority.pem"] == contents["edge/authority.pem"]


@pytest.mark.parametrize("first", [True, False])
def test_encryption_is_chosen_at_the_first_start(tmp_path: Path, first: bool):
    options = [["--certificate", "nats=nats"], []]
    for arguments, status in zip(options if first else options[::-1], (0, 1), strict=True):
        result = subprocess.run(
            [sys.executable, "-m", "tallystick_server.cli.credentials", str(tmp_path / "s"), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == status
    assert "start as before" in result.stderr
    assert "Traceback" not in result.stderr

"""What a deployment's parts are given: each its own, and none another's."""

import json
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy import credentials, nats_server
from deploy.embedded import nats as embedded_nats
from shared import bus
from shared.lifecycle import Stop
from tests.system.conftest import ROOT

CERTIFICATES = {"nats": "localhost,127.0.0.1", "postgres": "db", "proxy": "localhost"}


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_they_are_made_once(tmp_path: Path):
    assert credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    made = files(tmp_path)
    assert not credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    assert files(tmp_path) == made


def test_no_part_is_given_what_belongs_to_another(tmp_path: Path):
    credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    made = files(tmp_path)
    users = json.loads(made["nats/server.conf"])["authorization"]["users"]
    for user in users:
        assert [name for name, text in made.items() if user["password"] in text] == sorted(
            ["nats/server.conf", f"{user['user']}/nats_url"], key=list(made).index
        )
    for file in ("prometheus/token", "grafana/admin_password"):
        assert [name for name, text in made.items() if made[file].strip() in text] == [file]


def test_a_cluster_of_nats(tmp_path: Path):
    nodes = ["nats-0.nats", "nats-1.nats"]
    credentials.make(tmp_path, nats="a:1,b:2", postgres="p:5", nodes=nodes)
    made = files(tmp_path)
    cluster = json.loads(made["nats/server.conf"])["cluster"]
    assert [route.partition("@")[2] for route in cluster["routes"]] == [f"{node}:6222" for node in nodes]
    assert [url.partition("@")[2] for url in made["edge/nats_url"].strip().split(",")] == ["a:1", "b:2"]
    assert set(nats_server.PERMISSIONS) >= {"edge", "tokens", "metrics"}


def test_run_again_nats_users_get_what_this_version_needs(tmp_path: Path):
    credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    made = files(tmp_path)
    file = tmp_path / "nats/server.conf"
    older = json.loads(made["nats/server.conf"])
    older["authorization"]["users"][0]["permissions"]["publish"].pop()
    older["jetstream"]["max_file"] = 1 << 40
    older["authorization"]["users"].append({"user": "edge2", "password": "second", "permissions": {}})
    file.unlink()
    file.write_text(json.dumps(older))
    assert not credentials.make(tmp_path, nats="nats:4222", postgres="postgres:5432")
    newer = json.loads(file.read_text())
    assert (
        newer["authorization"]["users"][:-1] == json.loads(made["nats/server.conf"])["authorization"]["users"]
    )
    assert newer["authorization"]["users"][-1]["user"] == "edge2"
    assert newer["jetstream"]["max_file"] == 1 << 40


async def test_with_certificates_each_part_is_spoken_to_encrypted_only(tmp_path: Path):
    port = embedded_nats.free_port()
    server = f"127.0.0.1:{port}"
    assert credentials.make(tmp_path, nats=server, postgres="db:5432", certificates=CERTIFICATES)
    made = files(tmp_path)
    assert urlsplit(made["tokens/database_url"].strip()).query == (
        "sslmode=verify-full&sslrootcert=/secrets/authority.pem"
    )
    authority = made["authority/authority.pem"]
    for part in ("edge", "tokens", "metrics", "operator", "service", "nats", "prometheus", "proxy"):
        assert made[f"{part}/authority.pem"] == authority
    keys = [
        name for name, text in made.items() if "PRIVATE KEY" in text and not name.startswith("authority/")
    ]
    assert sorted(keys) == [f"{part}/certificate.pem.key" for part in sorted(CERTIFICATES)]
    # HAProxy finds a key beside its certificate by this name.
    ssl.create_default_context().load_cert_chain(tmp_path / "proxy/certificate.pem", tmp_path / keys[-1])
    settings = made["nats/server.conf"].replace("/secrets/", f"{tmp_path}/nats/")
    settings = settings.replace("0.0.0.0:4222", server).replace("/data", f"{tmp_path}/data")
    (tmp_path / "server.conf").write_text(settings)
    process = await embedded_nats.start(tmp_path / "server.conf", port, tmp_path / "log")
    url = made["operator/nats_url"].strip()
    async with bus.connect(url, "operator", Stop(), wait_s=5, authority=authority) as client:
        assert client.is_connected
    process.kill()
    await process.wait()


def test_certificates_are_new_for_other_hosts_and_near_their_end(tmp_path: Path):
    def changed(certificates: dict[str, str]) -> set[str]:
        before = files(tmp_path)
        assert not credentials.make(tmp_path, nats="n:1", postgres="p:5", certificates=certificates)
        after = files(tmp_path)
        return {name for name in after if before.get(name) != after[name] and "certificate" in name}

    credentials.make(tmp_path, nats="n:1", postgres="p:5", certificates=CERTIFICATES)
    made = files(tmp_path)
    assert changed(CERTIFICATES) == set()
    moved = CERTIFICATES | {"proxy": "api.example"}
    assert changed(moved) == {"proxy/certificate.pem", "proxy/certificate.pem.key"}
    # One whose end is near; and one that was interrupted before its certificate was written.
    own = tmp_path / "authority"
    request = ["openssl", "req", "-x509", "-key", "nats.key", "-subj", "/CN=nats", "-days", "100"]
    subprocess.run([*request, "-out", "nats.pem"], cwd=own, check=True, capture_output=True)
    (own / "postgres.pem").unlink()
    assert changed(moved) == {
        f"{part}/certificate.pem{end}" for part in ("nats", "postgres") for end in ("", ".key")
    }
    assert files(tmp_path)["edge/authority.pem"] == made["edge/authority.pem"]


@pytest.mark.parametrize("first", [True, False])
def test_encryption_is_chosen_at_the_first_start(tmp_path: Path, first: bool):
    words = [["--certificate", "nats=nats"], []]
    for each, status in zip(words if first else words[::-1], (0, 1), strict=True):
        ended = subprocess.run(
            [sys.executable, "-m", "deploy.credentials", str(tmp_path / "s"), *each],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == status
    assert "start as before" in ended.stderr
    assert "Traceback" not in ended.stderr

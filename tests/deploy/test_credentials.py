"""What a deployment's parts are given: each its own, and none another's."""

import json
from pathlib import Path

from deploy import credentials, nats_server


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

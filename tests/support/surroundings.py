"""`tallystick up` in surroundings of many kinds: folders, users, shells and addresses."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.polling import until
from tests.support.up import Up

SHADOWED = sorted(
    {*sys.stdlib_module_names, "nats", "msgspec", "asyncpg", "litestar", "tallystick", "tallystick_server"}
)
"""Modules in the current folder, named like those that `up` and its children import, now or later."""
OTHER_SERVERS = {
    "PGHOST": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGDATABASE": "nothing",
    "PGPASSWORD": "wrong",
    "PGPASSFILE": "/nonexistent",
    "PGSERVICE": "nothing",
    "PGSSLMODE": "verify-full",
    "PGTARGETSESSIONATTRS": "standby",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PGDATA": "/nonexistent",
    "PGTZ": "nowhere",
    "PGCLIENTENCODING": "LATIN1",
    "NATS_URL": "nats://192.0.2.1:1",
    "NATS_CREDS": "/nonexistent",
}
"""A shell that is set up for other servers."""


class Surroundings(NamedTuple):
    """Args:
    folder: the data folder's name.
    host: where it listens.
    https: whether it has a certificate.
    first: whether it is PID 1, as in a container.
    root: whether it runs as root.
    """

    folder: str
    host: str
    https: bool
    first: bool
    root: bool

    @property
    def prefix(self) -> list[str]:
        """The command that makes the namespaces for it."""
        is_root = os.geteuid() == 0
        if self.root and not is_root:
            user = ["--user", "--map-root-user"]
        elif not self.root and is_root:
            user = ["--user", "--map-user=1000", "--map-group=1000"]
        elif self.first and not is_root:
            user = ["--user", "--map-current-user"]
        else:
            user = []
        first = ["--pid", "--fork", "--kill-child", "--mount-proc"] if self.first else []
        return ["unshare", *user, *first] if user or first else []


class Placed(Up):
    """An `up` in its surroundings."""

    def __init__(self, place: Path, surroundings: Surroundings, certificate: Path) -> None:
        super().__init__(place / surroundings.folder)
        if surroundings.https:
            self.settings = {"tls_cert_file": f"{certificate}.pem", "tls_key_file": f"{certificate}.key"}
        self.surroundings = surroundings
        self.output = place / "output"
        self.prefix = [
            *surroundings.prefix,
            "env",
            *(f"{name}={value}" for name, value in OTHER_SERVERS.items()),
        ]
        self.options = ["--host", surroundings.host]
        self.directory = place / "current"
        self.imported = place / "imported"
        self.directory.mkdir()
        for module in SHADOWED:
            (self.directory / f"{module}.py").write_text(
                f"open({str(self.imported)!r}, 'a').write(__name__)\n"
            )

    @property
    def url(self) -> str:
        host = {"::": "[::1]", "::1": "[::1]", "0.0.0.0": "127.0.0.1"}.get(  # noqa: S104  # compared, not bound
            self.surroundings.host, self.surroundings.host
        )
        return f"{'https' if self.surroundings.https else 'http'}://{host}:{self.port}"

    def status(self, base: str, authority: Path) -> int:
        context = ssl.create_default_context(cafile=authority)
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return httpx.get(f"{base}/v1/stats", headers=headers, verify=context, trust_env=False).status_code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals the process itself, not the one that made its namespace."""
        assert self.process is not None
        if self.surroundings.first and self.process.poll() is None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), number)
        else:
            return super().stop(number)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "sh",
            ROOT / "services/tallystick_server/runtime/authority.sh",
            folder,
            "edge=localhost,127.0.0.1,::1",
        ],
        check=True,
    )
    return folder


@contextmanager
def placed(surroundings: Surroundings, certificates: Path, place: Path) -> Iterator[Placed]:
    up = Placed(place, surroundings, certificates / "edge")
    try:
        yield up
    finally:
        if not up.ended:
            up.stop(signal.SIGKILL)
        until(lambda: not up.processes(), 20)


def serves(up: Placed, certificates: Path) -> None:
    """It starts, says where, and serves there; nothing around it has an effect; it ends when it is told to."""
    up.start().ready()
    assert up.running is not None
    assert up.running.http == up.url
    assert f" is up at {up.url} " in up.printed
    assert "Traceback" not in up.printed
    assert up.status(up.url, certificates / "authority.pem") == 200
    assert not up.imported.exists(), up.imported.read_text()

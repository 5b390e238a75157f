"""TLS between the parts, with certificates from `services/tallystick_server/runtime/authority.sh`."""

import asyncio
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import trustme

from tallystick import connection as bus
from tallystick.errors import Unavailable
from tallystick_server.edge.certificate import Certificate
from tallystick_server.local import nats as embedded_nats
from tallystick_server.local.processes import service_command, spawn
from tallystick_server.runtime.nats_permissions import USERS, Tls
from tallystick_server.runtime.settings import SettingsError
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.up import environment, run


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    names = ["nats=localhost,127.0.0.1", "edge=localhost,127.0.0.1", "elsewhere=elsewhere.example"]
    subprocess.run(
        ["sh", str(ROOT / "services/tallystick_server/runtime/authority.sh"), str(folder), *names], check=True
    )
    return folder


def server_certificate(folder: Path, name: str) -> Tls:
    return Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "authority.pem")


@pytest.fixture(params=["nats"])
async def address(tmp_path: Path, certificates: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a NATS server that presents the certificate of this name."""
    port = free_port()
    configuration = embedded_nats.configure(
        tmp_path / "nats",
        port,
        {user: f"{user}-password" for user in USERS},
        tls=server_certificate(certificates, request.param),
    )
    process = await embedded_nats.start(configuration, port, tmp_path / "log")
    yield f"127.0.0.1:{port}"
    process.kill()
    await process.wait()


async def can_connect(url: str, authority: str | None) -> bool:
    try:
        async with bus.connect(url, "operator", wait_s=1, authority=authority) as client:
            return bool(client.is_connected)
    except Unavailable:
        return False


async def test_nats_uses_a_new_certificate_without_a_restart(tmp_path: Path, certificates: Path):
    port = free_port()
    current = Tls(tmp_path / "shown.pem", tmp_path / "shown.key", certificates / "authority.pem")

    def show(name: str) -> None:
        for kind in ("pem", "key"):
            shutil.copy(certificates / f"{name}.{kind}", tmp_path / f"shown.{kind}")

    show("elsewhere")
    passwords = {user: f"{user}-password" for user in USERS}
    configuration = embedded_nats.configure(tmp_path / "nats", port, passwords, tls=current)
    process = await embedded_nats.start(configuration, port, tmp_path / "log")
    url = f"tls://operator:operator-password@127.0.0.1:{port}"
    authority = (certificates / "authority.pem").read_text()
    assert not await can_connect(url, authority)
    show("nats")
    process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(30):
        while not await can_connect(url, authority):
            await asyncio.sleep(0.05)
    process.kill()
    await process.wait()


async def test_a_client_connects_to_nats_only_with_the_ca_certificate(address: str, certificates: Path):
    authority = (certificates / "authority.pem").read_text()
    url = f"tls://operator:operator-password@{address}"
    assert await can_connect(url, authority)
    assert not await can_connect(url, None)
    assert not await can_connect(url.replace("tls://", "nats://"), None)


@pytest.mark.parametrize("address", ["elsewhere"], indirect=True)
async def test_a_certificate_for_another_host_is_rejected(address: str, certificates: Path):
    authority = (certificates / "authority.pem").read_text()
    assert not await can_connect(f"tls://operator:operator-password@{address}", authority)


@asynccontextmanager
async def edge(certificate: Path, **settings: str) -> AsyncIterator[int]:
    """The port of a serving edge with this certificate."""
    port = free_port()
    process = await spawn(
        service_command("edge"),
        environment=environment(
            nats_url="nats://127.0.0.1:1",
            port=str(port),
            tls_cert_file=f"{certificate}.pem",
            tls_key_file=f"{certificate}.key",
            **settings,
        ),
    )
    try:
        async with asyncio.timeout(40):
            while await served_certificate(port) is None:
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def served_certificate(port: int, tls: ssl.SSLContext | None = None) -> bytes | None:
    """The certificate (DER) of an edge that serves a request on a new connection; None if it does not."""
    if tls is None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate) if b" 200 " in status else None
    return None


@pytest.mark.parametrize(("min_version", "accepts_1_2"), [("1.2", True), ("1.3", False)])
async def test_the_edge_serves_https(certificates: Path, min_version: str, *, accepts_1_2: bool):
    context = ssl.create_default_context(cafile=certificates / "authority.pem")
    old = ssl.create_default_context(cafile=certificates / "authority.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with edge(certificates / "edge", tls_min_version=min_version) as port:
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            assert await is_alive(client, f"https://localhost:{port}")
            assert not await is_alive(client, f"http://localhost:{port}")
        assert (await served_certificate(port, old) is not None) == accepts_1_2


async def test_a_renewed_certificate_is_used_without_a_restart(certificates: Path, tmp_path: Path):
    """A certificate and a key that do not match are not used, and no connection is refused or reset meanwhile."""
    current = tmp_path / "shown"

    def show(name: str, *kinds: str) -> None:
        for kind in kinds:
            shutil.copy(certificates / f"{name}.{kind}", tmp_path / f"new.{kind}")
            (tmp_path / f"new.{kind}").replace(f"{current}.{kind}")

    show("edge", "pem", "key")
    async with edge(current, workers="2") as port, asyncio.timeout(60):
        former = await served_certificate(port)
        show("nats", "key")
        for _ in range(20):
            assert await served_certificate(port) == former
        show("nats", "pem")
        history = [former]
        # With two workers, it is in use when many connections in a row were all served with it.
        while history[-30:] != [history[-1]] * 30 or history[-1] == former:
            history.append(await served_certificate(port))
            await asyncio.sleep(0.02)
        assert None not in history
        assert set(history) == {former, history[-1]}


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("key", "nats.key", "is not the key of"),
        ("key", "text", "is not a PEM private key"),
        ("key", "empty", "is not a PEM private key"),
        ("key", "edge.pem", "is not a PEM private key"),
        ("key", "encrypted", "without a passphrase"),
        ("key", "missing", "cannot be read: No such file"),
        ("key", "folder", "cannot be read: Is a directory"),
        ("pem", "text", "is not a PEM certificate"),
        ("pem", "empty", "is not a PEM certificate"),
        ("pem", "edge.key", "is not a PEM certificate"),
        ("pem", "missing", "cannot be read: No such file"),
    ],
)
def test_an_unusable_certificate_is_reported_in_one_line(
    certificates: Path, tmp_path: Path, kind: str, content: str, message: str
):
    for name in ("edge.pem", "edge.key", "nats.key"):
        shutil.copy(certificates / name, tmp_path)
    (tmp_path / "text").write_text("x")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    command = "openssl pkey -in edge.key -aes256 -passout pass:secret -out encrypted"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    own = {"pem": tmp_path / "edge.pem", "key": tmp_path / "edge.key"}
    own[kind] = tmp_path / "damaged"
    own[kind].symlink_to(tmp_path / content)
    with pytest.raises(SettingsError, match=message) as error:
        Certificate(own["pem"], own["key"]).load()
    assert "\n" not in str(error.value)
    variable = {"pem": "TALLYSTICK_TLS_CERT_FILE", "key": "TALLYSTICK_TLS_KEY_FILE"}[kind]
    # A pair that does not match is reported as an error in its key.
    assert str(error.value).startswith(f"{variable}: ")


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (2020, 2021, "certificate has expired"),
        (2090, 2091, "certificate is not yet valid"),
        (2020, 2090, None),
    ],
)
def test_an_expired_or_future_certificate_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: int, last: int, message: str | None
):
    certificate = trustme.CA().issue_cert(
        "localhost", not_before=datetime(first, 1, 1, tzinfo=UTC), not_after=datetime(last, 1, 1, tzinfo=UTC)
    )
    own = Certificate(tmp_path / "own.pem", tmp_path / "own.key")
    certificate.cert_chain_pems[0].write_to_path(own.chain)
    certificate.private_key_pem.write_to_path(own.key)
    own.load().close()
    assert [record.getMessage() for record in caplog.records] == (
        [f"{own.chain}: {message}; clients will reject it"] if message else []
    )


async def is_alive(client: httpx.AsyncClient, base: str) -> bool:
    try:
        return (await client.get(f"{base}/health/live")).status_code == 200
    except httpx.TransportError:
        return False


def test_a_certificate_needs_its_key(certificates: Path):
    result = run("serve", "edge", nats_url="nats://127.0.0.1:1", tls_cert_file=f"{certificates}/edge.pem")
    assert result.returncode == 78
    assert "must be set together" in result.stderr


@pytest.mark.parametrize("logs", ["text", "json"])
def test_a_failed_connection_logs_no_password(logs: str):
    result = run(
        "serve",
        "tokens",
        nats_url="nats://tokens:bus-secret@127.0.0.1:1",
        database_url="postgresql://tokens:base-secret@127.0.0.1:1/tallystick",
        startup_timeout_s="0.5",
        log_format=logs,
    )
    assert result.returncode == 69
    assert "PostgreSQL" in result.stderr
    assert "secret" not in result.stderr + result.stdout

"""The recipes of docs/tokens.md against a real edge: `.venv/bin/pytest tests/e2e/test_oauth_clients.py`.

A separate command, since it has its own requirements: `pip install fastapi` into the environment, node with
`npm install express openid-client` in a folder that NODE_FOLDER names, and Debian's `apache2` with
`libapache2-mod-oauth2` (in APACHE_FOLDER, if they were only unpacked). A test whose programs are
missing fails and names them; `-k apache` runs one test alone.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from tallystick.contracts.records import NewToken
from tallystick.tokens.format import digest
from tallystick.tokens.ids import new_id
from tallystick.tokens.record import TokenRecord
from tests.support.paths import ROOT
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.up import Up, environment

APACHE = Path(os.environ.get("APACHE_FOLDER", "/"))
MODULES = APACHE / "usr/lib/apache2/modules"
NODE = Path(os.environ.get("NODE_FOLDER", "/nonexistent"))


def require_openid_client() -> None:
    assert (NODE / "node_modules/openid-client").exists(), "needs node, and NODE_FOLDER with openid-client"


def recipe(language: str) -> str:
    """The only block of code in this language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/tokens.md").read_text(), re.DOTALL)
    return str(code)


def issue(up: Up, *scopes: str, **fields: object) -> str:
    with up.client(up.admin_token) as admin:
        return str(admin.post("/v1/tokens", json={"scopes": scopes, **fields}).json()["token"])


@contextmanager
def serve(up: Up, port: int, *command: str, cwd: Path) -> Iterator[httpx.Client]:
    settings = {
        **environment(),
        "TALLYSTICK_URL": up.http,
        "ORDERS_API_TOKEN": issue(up, "introspect"),
        "PORT": str(port),
    }
    process = subprocess.Popen(command, cwd=cwd, env=settings)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            until(lambda: process.poll() is not None or responds(client), 20)
            assert process.poll() is None
            yield client
    finally:
        process.terminate()
        process.wait(10)


def responds(client: httpx.Client) -> bool:
    try:
        client.get("/")
    except httpx.TransportError:
        return False
    return True


def check_decisions(up: Up, client: httpx.Client) -> None:
    here = {"addresses": ["127.0.0.0/8"], "referrers": ["https://shop.example/*"]}
    page = {"referer": "https://shop.example/page"}
    for token, headers, is_accepted in (
        (issue(up, "orders"), {}, True),
        (issue(up, "orders:read"), {}, True),
        (issue(up, "invoices"), {}, False),
        (issue(up, "orders:write"), {}, False),
        (issue(up, "orders", restrictions=here), page, True),
        (issue(up, "orders", restrictions=here), {}, False),
        (issue(up, "orders", restrictions={"addresses": ["10.9.0.0/16"]}), {}, False),
        ("unknown-to-everyone", {}, False),
    ):
        response = client.get("/orders", headers={"authorization": f"Bearer {token}", **headers})
        assert response.status_code == (200 if is_accepted else 401), response.text
    limited = issue(up, "orders", restrictions={"rateLimit": {"maxRequests": 2, "timeWindow": 86_400}})
    statuses = [
        client.get("/orders", headers={"authorization": f"Bearer {limited}"}).status_code for _ in range(4)
    ]
    assert statuses == [200, 200, 401, 401]
    assert client.get("/orders").status_code in {401, 403}


def test_fastapi_with_authlib(up: Up, tmp_path: Path):
    assert importlib.util.find_spec("fastapi"), "needs fastapi in this environment"
    (tmp_path / "orders.py").write_text(recipe("python"))
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "orders:app"]
    with serve(up, port, *command, cwd=tmp_path) as client:
        check_decisions(up, client)


def test_express_with_openid_client(up: Up):
    require_openid_client()
    script = NODE / "recipe.mjs"
    script.write_text(recipe("js"))
    with serve(up, free_port(), "node", str(script), cwd=NODE) as client:
        check_decisions(up, client)


@pytest.mark.parametrize("method", ["ClientSecretBasic", "ClientSecretPost", "None"])
def test_openid_client_introspects_and_revokes(up: Up, method: str):
    """It percent-encodes more of a Basic secret than it must (`tly%5F...`), and imported secrets with `+`, `%` and `=`."""
    require_openid_client()
    script = NODE / "ways.mjs"
    script.write_text(
        """
        import * as oauth from "openid-client";
        const [url, method, secret, token] = process.argv.slice(2);
        const server = new oauth.Configuration(
          { issuer: url, introspection_endpoint: `${url}/oauth2/introspect`, revocation_endpoint: `${url}/oauth2/revoke` },
          "https://api.example/orders", {}, oauth[method](secret));
        oauth.allowInsecureRequests(server);
        try {
          const before = await oauth.tokenIntrospection(server, token, { scope: "orders:read" });
          await oauth.tokenRevocation(server, token);
          const after = await oauth.tokenIntrospection(server, token);
          console.log(before.active, before.scope, after.active);
        } catch (error) {
          console.log(error.code, error.cause?.map?.((challenge) => challenge.scheme).join(" "));
        }
        """
    )
    imported = "imported+value/of%2Bsomebody=="
    import_token(up, imported)
    for secret in (issue(up, "introspect", "api:tokens:delete"), imported):
        result = subprocess.run(
            ["node", str(script), up.http, method, secret, issue(up, "orders")],
            capture_output=True,
            text=True,
            check=True,
        )
        rejected = "OAUTH_WWW_AUTHENTICATE_CHALLENGE bearer basic\n"
        assert result.stdout == (rejected if method == "None" else "true orders:read false\n")


def test_apache_with_mod_oauth2(up: Up, folder: Path):
    assert (MODULES / "mod_oauth2.so").exists(), "needs apache2 and libapache2-mod-oauth2"
    port = free_port()
    loaded = ("mpm_event", "authn_core", "authz_core", "oauth2")
    (folder / "www/orders").mkdir(parents=True)
    (folder / "www/orders/index").write_text("orders")
    folder.chmod(0o755)
    configuration = [
        *(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in loaded),
        f"Listen 127.0.0.1:{port}\nServerName localhost\nPidFile {folder}/pid\nDefaultRuntimeDir {folder}",
        f"ErrorLog /dev/stderr\nDocumentRoot {folder}/www\nUser nobody\nGroup nogroup",
        recipe("apache"),
    ]
    (folder / "apache.conf").write_text("\n".join(configuration))
    command = [str(APACHE / "usr/sbin/apache2"), "-X", "-f", str(folder / "apache.conf")]
    with serve(up, port, *command, cwd=folder) as client:

        def status(token: str) -> int:
            response = client.get("/orders/index", headers={"authorization": f"Bearer {token}"})
            return response.status_code

        token = issue(up, "orders")
        assert [status(token), status(token)] == [200, 200]
        assert status("unknown-to-everyone") == 401
        assert status(issue(up, "invoices")) == 401
        assert status(issue(up, "orders", restrictions={"addresses": ["127.0.0.0/8"]})) == 401
        with up.client(token) as own:
            assert own.delete("/v1/self").status_code == 200
        assert status(token) == 401


def import_token(up: Up, value: str) -> None:
    token = NewToken(scopes=("introspect", "api:tokens:delete"))
    record = TokenRecord(id=new_id("tok_"), digest=digest(value) or "", token=token)
    result = up.command("tokens", "import", stdin=msgspec.json.encode(record).decode())
    assert result.returncode == 0, result.stderr

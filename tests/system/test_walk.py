"""The main use cases, from end to end."""

import json

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tallystick.contracts.tokens import TokenUpdate
from tests.support.examples import VECTOR, VECTOR_TOKEN
from tests.support.polling import until
from tests.support.up import Up


@pytest.fixture
def admin(up: Up):
    with up.client(up.admin_token) as client:
        yield client


def facts(response: httpx.Response) -> tuple:
    """Everything by which a client can tell two responses apart, except the request id and the time."""
    headers = {
        name: value for name, value in response.headers.items() if name not in {"date", "x-request-id"}
    }
    return response.status_code, headers, response.content


def test_a_request_without_a_token_is_rejected(up: Up):
    with up.client() as client:
        response = client.get("/v1/stats")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="tallystick"'
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "missing_token"


def test_header_and_query_are_accepted_and_stats_have_the_original_fields(up: Up, admin: httpx.Client):
    with up.client() as client:
        by_query = client.get("/v1/stats", params={"access_token": up.admin_token})
    by_header = admin.get("/v1/stats")
    assert by_query.status_code == by_header.status_code == 200
    assert list(by_header.json())[:3] == ["version", "license", "accounts"]


def test_the_scopes_of_metrics_and_api_are_separate(up: Up, admin: httpx.Client):
    values = {
        scope: admin.post("/v1/tokens", json={"scopes": [scope]}).json()["token"]
        for scope in ("metrics", "api")
    }
    statuses = {}
    for scope, value in values.items():
        with up.client(value) as client:
            statuses[scope] = client.get("/metrics").status_code, client.get("/v1/stats").status_code
    assert statuses == {"metrics": (200, 403), "api": (403, 200)}


def test_a_revoked_token_is_rejected_at_once_like_an_unknown_one(up: Up, admin: httpx.Client):
    token = admin.post("/v1/tokens", json={"scopes": ["api"]}).json()
    with up.client(token["token"]) as client, up.client("f" * 64) as stranger:
        assert client.get("/v1/stats").status_code == 200
        assert admin.delete(f"/v1/tokens/{token['id']}").json()["deleted"] is True
        assert facts(client.get("/v1/stats")) == facts(stranger.get("/v1/stats"))
        assert facts(client.get("/metrics")) == facts(stranger.get("/metrics"))
    with up.client() as by_query, up.client("tly_mistyped") as mistyped:
        revoked = by_query.get("/v1/stats", params={"access_token": token["token"]})
        assert facts(revoked) == facts(mistyped.get("/v1/stats"))


def test_a_new_token_is_shown_once(admin: httpx.Client):
    creation = admin.post("/v1/tokens", json={"scopes": ["api"]})
    assert creation.status_code == 201
    assert creation.json()["token"].startswith("tly_")
    later = (
        admin.get(f"/v1/tokens/{creation.json()['id']}"),
        admin.get("/v1/tokens", params={"pageSize": 100}),
    )
    assert all(response.status_code == 200 for response in later)
    assert not any(creation.json()["token"] in response.text for response in later)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/tokens/tok_nobody", 404, "not_found"),
        ("GET", "/v1/nowhere", 404, "not_found"),
        ("GET", "/v1/tokens?page=-1", 400, "bad_request"),
        ("PUT", "/v1/tokens", 405, "method_not_allowed"),
        ("POST", "/v1/tokens", 400, "bad_request"),
        ("PATCH", "/v1/tokens/tok_1", 415, "unsupported_media_type"),
    ],
)
def test_every_rejection_is_a_problem_with_a_code(
    admin: httpx.Client, method: str, path: str, status: int, code: str
):
    response = admin.request(method, path)
    assert response.status_code == response.json()["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == code


def test_adding_an_account_raises_the_number_of_accounts(admin: httpx.Client):
    before = admin.get("/v1/stats").json()["accounts"]
    assert admin.post("/v1/account", json={"account": "alice"}).json()["state"] == "new"
    assert admin.get("/v1/stats").json()["accounts"] == before + 1


def test_metrics_match_the_original_s_page(admin: httpx.Client):
    response = admin.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert lines[:7] == [
        "# HELP thread_starts Number of started threads",
        "# TYPE thread_starts counter",
        "thread_starts 3",
        "",
        "# HELP thread_stops Number of stopped threads",
        "# TYPE thread_stops counter",
        "thread_stops 0",
    ]
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert families["thread_starts"].samples[0].value == 3


def test_accounts_are_counted_by_events(admin: httpx.Client):
    def accounts_added() -> float:
        families = text_string_to_metric_families(admin.get("/metrics").text)
        return next(
            s.value for f in families for s in f.samples if s.name == "tallystick_accounts_added_total"
        )

    admin.post("/v1/account", json={"account": "counted"})
    # None was deleted. A difference would not work: an earlier test's event may still be in flight.
    accounts = admin.get("/v1/stats").json()["accounts"]
    until(lambda: accounts_added() == accounts)


def test_the_metrics_of_every_service_are_counted(admin: httpx.Client):
    def samples() -> dict[str, float]:
        families = text_string_to_metric_families(admin.get("/metrics").text)
        return {
            f"{sample.name}{''.join(sample.labels.values())}": sample.value
            for family in families
            for sample in family.samples
        }

    admin.get("/v1/stats")
    until(lambda: samples().get("tallystick_edges_with_lease") == 1, 30)
    until(lambda: samples().get("tallystick_token_checks_totalok", 0) > 0, 30)
    until(lambda: samples().get("tallystick_tokensactive", 0) > 0, 60)
    values = samples()
    assert values["tallystick_edges"] == 1
    assert values["tallystick_dead_letters_total"] == values["tallystick_series_dropped_total"] == 0
    services = ("edge", "tokens", "metrics")
    assert all(values[f"tallystick_process_resident_memory_bytes{service}"] > 1e6 for service in services)


def test_the_command_line_creates_lists_and_revokes(up: Up):
    result = up.command("tokens", "create", "--scope", "api", "--description", "by hand")
    value = result.stdout.strip()
    assert result.returncode == 0, result.stderr
    with up.client(value) as client:
        assert client.get("/v1/stats").status_code == 200
        (line,) = [line for line in up.command("tokens", "list").stdout.splitlines() if "by hand" in line]
        revoked = up.command("tokens", "revoke", line.split()[0])
        assert revoked.returncode == 0, revoked.stderr
        assert client.get("/v1/stats").status_code == 401
    assert "by hand" not in up.command("tokens", "list").stdout


@pytest.mark.parametrize("kind", ["ours", "hexadecimal"])
def test_a_plain_token_as_an_argument_is_rejected(up: Up, kind: str):
    value = {"ours": up.admin_token, "hexadecimal": "f" * 64}[kind]
    result = up.command("tokens", "revoke", value)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (65, "", 1)
    assert value not in result.stderr
    with up.client(up.admin_token) as client:
        assert client.get("/v1/stats").status_code == 200


def test_the_nats_url_of_a_service_is_printed(up: Up):
    assert up.command("nats-url").stdout.startswith("nats://service:")


def test_a_token_of_emailengine_is_imported_once(up: Up):
    first = up.command("tokens", "import", stdin=VECTOR)
    again = up.command("tokens", "import", stdin=VECTOR)
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout.startswith("added tok_")
    assert "1 existed already" in again.stderr
    with up.client(VECTOR_TOKEN) as client:
        assert client.get("/v1/stats").status_code == 200
    exported = up.command("tokens", "export", first.stdout.split()[1])
    assert "ea3873f9234fb3b8b700043373138c730c56fd2f7fa27dbcdc61d4c9c2b2df8d" in exported.stdout
    assert VECTOR_TOKEN not in exported.stdout


def test_an_import_is_all_or_nothing(up: Up, admin: httpx.Client):
    before = admin.get("/v1/tokens").json()["total"]
    for lines in (VECTOR + "\n" + VECTOR[:-10], "", "x" * 5_000_000):
        result = up.command("tokens", "import", stdin=lines)
        assert result.returncode == 65
        assert "Traceback" not in result.stderr
    assert admin.get("/v1/tokens").json()["total"] == before


def test_the_command_line_edits_rotates_and_inspects_a_token(up: Up):
    value = up.command(
        "tokens", "create", "-s", "api", "--rate-limit", "100/60", "-d", "rotated"
    ).stdout.strip()
    with up.client(value) as client:
        token_id = client.get("/v1/self").json()["id"]
        result = up.command("tokens", "edit", token_id, "--scope", "metrics")
        assert '"metrics"' in result.stdout
        assert client.get("/v1/tokens").status_code == 403
        successor = up.command("tokens", "rotate", token_id).stdout.strip()
        assert client.get("/v1/self").status_code == 401
    with up.client(successor) as client:
        assert client.get("/v1/self").json()["scopes"] == ["metrics"]
        assert client.get("/v1/self").headers["ratelimit-policy"] == '"token";q=100;w=60'
    assert up.command("tokens", "inspect", stdin=successor).returncode == 0
    assert up.command("tokens", "inspect", stdin=successor[:-1]).returncode == 65
    assert "token.rotated" in up.command("tokens", "log", token_id).stdout


def test_the_command_line_edits_every_field(up: Up):
    token_id = json.loads(up.command("tokens", "create", "-s", "api", "--json").stdout)["id"]

    def edit(*options: str) -> dict:
        result = up.command("tokens", "edit", token_id, *options)
        assert result.returncode == 0, result.stderr
        record: dict = json.loads(result.stdout)
        return record

    first = edit("-s", "metrics", "-d", "new", "--metadata", '{"a":1}', "--disable")
    assert (first["scopes"], first["description"], first["metadata"]) == (["metrics"], "new", {"a": 1})
    assert first["disabled"] is True
    times = edit("--not-before", "2030-01-01T00:00:00Z", "--expires", "2031-01-01T00:00:00Z", "--enable")
    assert (times["notBefore"], times["expires"]) == ("2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z")
    edit("--address", "10.0.0.0/8", "--referrer", "https://good.example/*")
    limited = edit("--rate-limit", "5/60")["restrictions"]
    assert limited == {
        "addresses": ["10.0.0.0/8"],
        "referrers": ["https://good.example/*"],
        "rateLimit": {"maxRequests": 5, "timeWindow": 60},
    }
    one_less = edit("--clear", "addresses")
    assert one_less["restrictions"] == {**limited, "addresses": None}
    clear = [f"--clear={name}" for name in ("metadata", "expires", "not-before", "referrers", "rate-limit")]
    bare = edit(*clear)
    assert not any([bare["metadata"], bare["expires"], bare["notBefore"], *bare["restrictions"].values()])
    assert (bare["description"], bare["scopes"], bare["disabled"]) == ("new", ["metrics"], False)
    assert up.command("tokens", "edit", token_id, "--metadata", "[]").returncode == 2
    # A new field has to be added here as well.
    tested = {"scopes", "description", "metadata", "disabled", "not_before", "expires", "restrictions"}
    assert set(TokenUpdate.__struct_fields__) == tested


def test_the_command_line_revokes_by_account_and_lists_by_state(up: Up, admin: httpx.Client):
    admin.post("/v1/account", json={"account": "erin"})
    for _ in range(2):
        assert up.command("tokens", "create", "-s", "api", "-a", "erin").returncode == 0
    assert up.command("tokens", "revoke", "-a", "erin").stdout.startswith("2 tokens of 'erin' are rejected")
    assert up.command("tokens", "list", "-a", "erin").stdout == ""
    assert len(up.command("tokens", "list", "-a", "erin", "--state", "revoked").stdout.splitlines()) == 2
    for wrong in ((), ("tok_x", "-a", "erin")):
        assert up.command("tokens", "revoke", *wrong).returncode == 2
    assert up.command("tokens", "revoke", "-a", "nobody").returncode == 65

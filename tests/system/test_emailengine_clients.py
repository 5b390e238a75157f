"""Clients of EmailEngine work after the migration: every kind of record is imported, then read, listed, created again and
deleted over EmailEngine's routes, and each response is compared with EmailEngine's.
"""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from click.testing import Result

from tests.support.command_line import invoke
from tests.support.moving_in import CASES, FILE, REJECTED, Case, digest, secret
from tests.support.up import Up

ACCOUNTS = {"acc-a": {"bound", "bound-to-the-same"}, "me@example.com": {"bound-by-address"}}
EXPIRED = {case.name for case in CASES if case.message and case.message.startswith("skipped")}
IMPORTED = {case.name for case in CASES} - REJECTED.keys() - EXPIRED
AT_EMAILENGINE: dict[str, Any] = {
    "deleted": {"deleted": True},
    "deleted again": {"deleted": False},
    "with the deleted token": 401,
    "unknown": {"deleted": False},
}
"""EmailEngine's response for every record that it has."""
# The import and the form reject these for the same reason; the form responds with 400.
STATUS_OF_FORM = dict.fromkeys(REJECTED.keys() | EXPIRED, 400) | {
    "account-with-a-slash": 404,  # no account has this name, so the response is 404, as at EmailEngine
    "account-too-long": 404,
    "metadata-text": 400,  # EmailEngine's route accepts JSON only
}


@pytest.fixture(scope="module")
def moved_in(up: Up) -> Result:
    return invoke(up, "import", "--skip-rejected", "--accounts", "create", stdin=FILE)


@pytest.fixture
def admin(up: Up, moved_in: Result):
    assert moved_in.exit_code == 0, moved_in.output
    with up.client(up.admin_token) as client:
        yield client


def form(case: Case) -> dict[str, Any]:
    """The request body that would have created this record."""
    body = {"description": case.name, "scopes": ["api"], **case.fields}
    if "expires" in body:
        body["expires"] = datetime.fromtimestamp(body["expires"] / 1000, UTC).date().isoformat()
    return body


def test_there_are_records_of_every_kind():
    assert len(CASES) >= 35
    assert len(IMPORTED) >= 20


def test_a_record_is_read_by_its_id_and_created_as_it_was_imported(
    admin: httpx.Client, subtests: pytest.Subtests
):
    for case in CASES:
        with subtests.test(case=case.name):
            details = admin.get(f"/v1/tokens/{digest(case.name)}")
            log = admin.get(f"/v1/tokens/{digest(case.name)}/log")
            listed = admin.get("/v1/tokens", params={"query": digest(case.name)}).json()
            is_imported = case.name in IMPORTED
            assert (details.status_code, log.status_code) == ((200, 200) if is_imported else (404, 404))
            assert [token["hint"] for token in listed["tokens"]] == (
                [digest(case.name)[:8]] if is_imported else []
            )
            response = admin.post("/v1/token", json=form(case))
            assert response.status_code == STATUS_OF_FORM.get(case.name, 200), response.text
            if response.status_code == 200:
                assert is_imported, "the form accepts nothing that the import rejects"
                for field in ("scopes", "account", "metadata", "restrictions"):
                    assert response.json()[field] == details.json()[field], field
                assert (response.json()["expires"] is None) == (details.json()["expires"] is None)
                assert admin.delete(f"/v1/token/{response.json()['token']}").json()["deleted"]


def test_one_list_has_all_tokens_of_an_account(admin: httpx.Client):
    for account, names in ACCOUNTS.items():
        listed = admin.get(f"/v1/tokens/account/{account}").json()
        assert {token["hint"] for token in listed["tokens"]} == {digest(name)[:8] for name in names}
        assert {token["account"] for token in listed["tokens"]} == {account}
    for _ in range(38):
        response = admin.post(
            "/v1/token", json={"description": "x", "scopes": "api", "account": "me@example.com"}
        )
        assert response.status_code == 200
    listed = admin.get("/v1/tokens/account/me@example.com").json()
    assert (len(listed["tokens"]), listed["truncated"]) == (39, False)


@pytest.mark.parametrize("by", ["id", "value"])
def test_deleting_responds_as_emailengine_does(up: Up, admin: httpx.Client, by: str):
    """Half of the records by their ids, half by their values. A record that was not imported cannot be deleted."""
    identifier = digest if by == "id" else secret
    for name in sorted(case.name for case in CASES)[by == "value" :: 2]:
        with up.client(secret(name)) as holder:
            first, second = [admin.delete(f"/v1/token/{identifier(name)}") for _ in range(2)]
            results = {
                "deleted": {"deleted": first.json()["deleted"]},
                "deleted again": second.json(),
                "with the deleted token": holder.get("/v1/stats").status_code,
                "unknown": admin.delete(f"/v1/token/{'ab' * 32}").json(),
            }
        expected = AT_EMAILENGINE if name in IMPORTED else {**AT_EMAILENGINE, "deleted": {"deleted": False}}
        assert (first.status_code, second.status_code, results) == (200, 200, expected), name

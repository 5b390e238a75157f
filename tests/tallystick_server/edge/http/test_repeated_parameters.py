"""A route rejects a declared parameter that is repeated, in the query and in a form, with a cold and a warm cache."""

from urllib.parse import quote

import msgspec
import pytest

from tallystick.contracts.accounts import ADD_ACCOUNT, AddAccount
from tallystick.contracts.operation import Actor
from tallystick.rpc.call import call
from tallystick_server.edge.authentication.client_authentication import CLIENT_SECRET
from tallystick_server.edge.http.parameters import REPEATED
from tests.support.dashboard import sign_in_and_send_token
from tests.support.routes import ROUTES, encoded
from tests.support.services import issue

FORM = {"content-type": "application/x-www-form-urlencoded"}
QUERY = [
    (path, method, parameter.field_alias)
    for path, method, _, model in ROUTES
    for parameter in sorted(model.expected_query_params, key=lambda parameter: parameter.field_alias)
]
FIELDS = [
    (path, handler.opt["form"], field.encode_name)
    for path, _, handler, _ in ROUTES
    if "form" in handler.opt
    for field in msgspec.structs.fields(handler.opt["form"])
    if field.encode_name != CLIENT_SECRET  # a second one is a second credential: test_client_authentication
]
VALID = {"address": "192.0.2.1", "restrictions": "show"}
"""Valid values of the form fields that do not accept every text."""


def repeated(name: str) -> list[str]:
    return [
        f"{name}=1&{name}=1",
        f"{name}=1&{name}=2",
        f"{name}&{name}=1",
        f"{name}=1&other=2&{name}=",
        f"{name}=1&{encoded(name)}=1",
        f"{encoded(name)}=1&x%5f=&{encoded(name)}=2",
    ]


@pytest.fixture
async def admin(edge, operator, tokens_service, metrics_service):
    """A client that is signed in to the dashboard and sends an all-powerful token."""
    await sign_in_and_send_token(edge, operator)
    return edge


def test_the_tables_contain_the_parameters_of_the_routes():
    assert {(path, name) for path, _, name in QUERY} >= {
        ("/auth", "scope"),
        ("/auth", "account"),
        ("/v1/tokens", "account"),
        ("/v1/tokens", "state"),
        ("/v1/accounts", "page"),
        ("/v1/stats", "seconds"),
        ("/admin/tokens", "state"),
        ("/admin/accounts", "query"),
        ("/admin/sign-in", "next"),
    }
    assert {(path, name) for path, _, name in FIELDS} == {
        (path, name)
        for path in ("/oauth2/introspect", "/oauth2/revoke")
        for name in ("token", "token_type_hint", "client_id")
    } | {("/oauth2/introspect", name) for name in ("scope", "account", "address", "referrer", "restrictions")}


async def test_a_repeated_query_parameter_is_rejected_on_every_route(admin):
    for path, method, name in QUERY:
        for query in repeated(name):
            response = await admin.request(method, f"{path}?{query}")
            assert response.status_code == 400, (method, path, query, response.text)
            if path.startswith("/admin"):
                assert f"{name}: {REPEATED}" in response.text
            else:
                assert response.json()["code"] == "bad_request"
                errors = [error for error in response.json()["errors"] if error["field"] == name]
                assert errors == [{"field": name, "message": REPEATED}]
        single = await admin.request(method, f"{path}?{name}=1&other=1&other=2&other")
        assert REPEATED not in single.text, (method, path, name)


async def test_a_repeated_form_field_is_rejected_on_every_route(admin):
    for path, kind, name in FIELDS:
        names = [field.encode_name for field in msgspec.structs.fields(kind)]
        valid_fields = "&".join(f"{field}={VALID.get(field, 1)}" for field in names if field != CLIENT_SECRET)
        for fields in repeated(name):
            response = await admin.post(path, content=fields, headers=FORM)
            assert (response.status_code, response.json()["code"]) == (400, "bad_request"), fields
            assert response.json()["errors"] == [{"field": name, "message": REPEATED}]
        single = await admin.post(path, content=f"{valid_fields}&other=1&other=2", headers=FORM)
        assert single.status_code == 200, single.text


async def test_a_repeated_account_is_rejected(edge, operator, tokens_service, subtests: pytest.Subtests):
    for path in ("/auth?scope=orders", "/v1/tokens?page=0"):
        for second in ("account", "acc%6funt", "%61ccount"):
            with subtests.test(path=path, second=second):
                await call(
                    operator,
                    ADD_ACCOUNT.by_operator,
                    AddAccount(account="alice", actor=Actor(name="test")),
                )
                value, _ = await issue(operator, "orders", "api", account="alice")
                headers = {"authorization": f"Bearer {value}"}
                for _ in range(2):  # the token is unknown to the edge, then cached
                    for accounts in (("bob", "alice"), ("alice", "bob"), ("alice", "alice")):
                        query = f"account={accounts[0]}&{second}={accounts[1]}"
                        response = await edge.get(f"{path}&{query}", headers=headers)
                        assert (response.status_code, response.json()["code"]) == (400, "bad_request"), query
                    assert (await edge.get(f"{path}&account=alice", headers=headers)).status_code == 200
                    assert (await edge.get(f"{path}&account=bob", headers=headers)).status_code == 403


async def test_an_unauthorized_client_gets_no_error_about_a_repeated_parameter(
    edge, operator, tokens_service
):
    value, token = await issue(operator, "orders")
    for headers, status in (
        ({}, 401),
        ({"authorization": f"Bearer {'f' * 64}"}, 401),
        ({"authorization": f"Bearer {value}"}, 403),
    ):
        response = await edge.get(f"/v1/tokens?page=0&{quote('page')}=1", headers=headers)
        assert response.status_code == status, token.id

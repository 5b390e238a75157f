"""Authlib as the client of a real edge: introspection (RFC 7662) and revocation (RFC 7009), over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator

from tests.support.up import Up

METHODS = ["client_secret_basic", "client_secret_post"]
NAMES = ["orders-api", "https%3A%2F%2Fapi.example", "café & co"]


def issue(up: Up, *scopes: str, **fields: Any) -> str:
    with up.client(up.admin_token) as admin:
        response = admin.post("/v1/tokens", json={"scopes": scopes, **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["token"])


@contextmanager
def oauth_client(secret: str, method: str, name: str = "orders-api") -> Iterator[OAuth2Session]:
    options = {"token_endpoint_auth_method": method, "revocation_endpoint_auth_method": method}
    with OAuth2Session(name, secret, **options) as session:
        session.trust_env = False
        yield session


class Validator(IntrospectTokenValidator):  # type: ignore[misc]  # Authlib has no types
    """A resource server's, which sends the scope of its route; None for one that compares scopes itself."""

    def __init__(self, up: Up, client: OAuth2Session, scope: str | None, **fields: str) -> None:
        super().__init__()
        self.url = f"{up.http}/oauth2/introspect"
        self.client = client
        self.fields = fields | ({"scope": scope} if scope else {})

    def introspect_token(self, token_string: str) -> Any:
        response = self.client.introspect_token(self.url, token_string, body=urlencode(self.fields))
        response.raise_for_status()
        return response.json()


def authorize(validator: Validator, token: str, scope: str) -> Any:
    """Has Authlib authorize a request with the token to a route that requires the scope; returns the introspection."""
    introspection = validator.authenticate_token(token)
    validator.validate_token(introspection, [scope], None)
    return introspection


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_a_client_introspects(up: Up, method: str, name: str):
    token = issue(up, "orders", "stock")
    with oauth_client(issue(up, "introspect"), method, name) as client:
        response = client.introspect_token(
            f"{up.http}/oauth2/introspect", token, token_type_hint="access_token"
        )
        assert response.status_code == 200
        assert (response.json()["active"], response.json()["scope"]) == (True, "orders stock")
        assert client.introspect_token(f"{up.http}/oauth2/introspect", "unknown").json() == {"active": False}


@pytest.mark.parametrize("method", METHODS)
def test_a_route_accepts_a_scope_that_covers_its_own(up: Up, method: str):
    token = issue(up, "orders")
    with oauth_client(issue(up, "introspect"), method) as client:
        assert authorize(Validator(up, client, "orders:read"), token, "orders:read")["scope"] == "orders:read"
        # The library itself does not know that scopes cover others.
        with pytest.raises(InsufficientScopeError):
            authorize(Validator(up, client, None), token, "orders:read")
        with pytest.raises(InvalidTokenError):
            authorize(Validator(up, client, "invoices"), token, "invoices")


def test_a_restricted_token_is_accepted_only_from_its_addresses(up: Up):
    limits = {"addresses": ["10.9.0.0/16"], "rateLimit": {"maxRequests": 1, "timeWindow": 3600}}
    token = issue(up, "orders", restrictions=limits)
    with oauth_client(issue(up, "introspect"), "client_secret_basic") as client:
        for fields in ({}, {"address": "192.0.2.1"}):
            with pytest.raises(InvalidTokenError):
                authorize(Validator(up, client, "orders", **fields), token, "orders")
        right = Validator(up, client, "orders", address="10.9.0.1")
        assert authorize(right, token, "orders")["active"]
        with pytest.raises(InvalidTokenError):  # its one request is used up
            authorize(right, token, "orders")


@pytest.mark.parametrize("method", METHODS)
def test_a_client_revokes(up: Up, method: str):
    token, own = issue(up, "orders"), issue(up, "api:tokens:delete")
    with oauth_client(own, method) as client, up.client() as anyone:
        for _ in range(2):  # the second time the token is revoked already
            assert client.revoke_token(f"{up.http}/oauth2/revoke", token=token).status_code == 200
        assert anyone.get("/v1/self", headers={"authorization": f"Bearer {token}"}).status_code == 401
        assert client.revoke_token(f"{up.http}/oauth2/revoke", token=own).status_code == 200
        assert client.revoke_token(f"{up.http}/oauth2/revoke", token=own).status_code == 401


def test_without_a_secret_there_is_a_challenge(up: Up):
    with oauth_client("", "none") as client:
        for response in (
            client.introspect_token(f"{up.http}/oauth2/introspect", "x"),
            client.revoke_token(f"{up.http}/oauth2/revoke", token="x"),
        ):
            assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
            assert response.raw.headers.getlist("www-authenticate")[1] == 'Basic realm="tallystick"'
        # With a bearer token in the header, the method "none" works.
        headers = {"authorization": f"Bearer {issue(up, 'introspect')}"}
        response = client.introspect_token(f"{up.http}/oauth2/introspect", "unknown-to-all", headers=headers)
        assert response.json() == {"active": False}


def test_a_client_id_with_a_colon_has_to_be_encoded_for_basic(up: Up):
    """The user name ends at the first colon (RFC 7617, section 2), so the rest would be part of the password."""
    secret, name = issue(up, "introspect"), "https://api.example/orders"
    for method, status in (("client_secret_basic", 401), ("client_secret_post", 200)):
        with oauth_client(secret, method, name) as client:
            response = client.introspect_token(f"{up.http}/oauth2/introspect", "unknown-to-all")
            assert response.status_code == status


def test_a_plain_http_client_with_a_password_works_too(up: Up):
    response = httpx.post(
        f"{up.http}/oauth2/introspect",
        data={"token": "unknown-to-everyone"},
        auth=("orders-api", issue(up, "introspect")),
        trust_env=False,
    )
    assert response.json() == {"active": False}

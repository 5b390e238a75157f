"""A committed creation or rotation always returns its secret, whatever is lost after the commit (B2)."""

import re
from collections.abc import Callable

import pytest
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout

from tallystick.coherence import propagation
from tallystick.contracts.operation import Actor
from tallystick.contracts.propagation import SETTLE
from tallystick.contracts.sessions import SIGN_IN
from tallystick.contracts.tokens import CREATE_TOKEN, ROTATE_TOKEN, RotateToken
from tallystick.contracts.verification import VERIFY
from tallystick.rpc import server
from tallystick.tokens import format as token_format
from tallystick_server.edge.dashboard.sessions import Attempts
from tests.support.api import bearer, create_token
from tests.support.dashboard import send, sign_in
from tests.support.services import issue

OPERATOR = Actor(name="test")


@pytest.fixture
def lose(admin, monkeypatch) -> Callable[..., None]:
    """Loses messages of the edge on the given subjects: the request, before it is sent, or the reply."""
    client = admin._transport.app._app.state.client
    request = client.request

    def lose_messages(*subjects: str, sent: bool) -> None:
        async def lossy_request(subject: str, *arguments, **options):
            if subject not in subjects:
                return await request(subject, *arguments, **options)
            if not sent:
                raise NoRespondersError
            await request(subject, *arguments, **options)
            raise NatsTimeout

        monkeypatch.setattr(client, "request", lossy_request)

    return lose_messages


async def test_a_rotation_that_is_not_settled_returns_its_secret(admin, lose):
    token = await create_token(admin)
    lose(SETTLE.subject, sent=False)
    response = await admin.post(f"/v1/tokens/{token['id']}/rotate", json={"grace": 0})
    assert (response.status_code, response.json()["settled"]) == (201, False)
    assert (await admin.get("/v1/self", headers=bearer(response.json()["token"]))).status_code == 200


async def test_a_token_that_rotates_itself_always_gets_its_secret(admin, lose):
    token = await create_token(admin)
    lose(SETTLE.subject, ROTATE_TOKEN.subject, sent=True)
    response = await admin.post("/v1/self/rotate", json={"grace": 0}, headers=bearer(token["token"]))
    assert response.status_code == 201
    assert (await admin.get("/v1/self", headers=bearer(response.json()["token"]))).status_code == 200


@pytest.mark.parametrize("sent", [True, False])
async def test_a_creation_returns_its_secret_if_the_reply_is_lost_and_503_if_the_request_is(
    admin, lose, sent: bool
):
    lose(CREATE_TOKEN.subject, sent=sent)
    response = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    if sent:
        assert (response.status_code, response.json()["settled"]) == (201, True)
        assert (await admin.get("/v1/self", headers=bearer(response.json()["token"]))).status_code == 200
    else:
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert (await admin.get("/v1/tokens")).json()["total"] == 1 + sent


async def test_an_unknown_outcome_returns_the_secret_with_202(admin, operator, lose, monkeypatch):
    value, _ = await issue(operator, "*")
    await sign_in(admin, value)
    monkeypatch.setattr(server, "CLOCKS_S", -2.0)
    lose(CREATE_TOKEN.subject, VERIFY.subject, sent=True)
    response = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    assert (response.status_code, response.json()["committed"]) == (202, "unknown")
    assert response.headers["cache-control"] == "no-store"
    page = (await send(admin, "/admin/tokens/new", scope="api", expires="never")).text
    assert "did not confirm that the token was created" in page
    lose(SIGN_IN.subject, sent=False)
    for _ in range(Attempts.MAX_ATTEMPTS + 1):  # none of them counts as a failed attempt
        assert (await sign_in(admin, value)).status_code == 503
    for secret in (
        response.json()["token"],
        *re.findall(r'id="secret" class="code" value="(tly_\w+)"', page),
    ):
        assert (await admin.get("/v1/self", headers=bearer(secret))).status_code == 200


async def test_a_creation_that_can_no_longer_be_executed_is_a_503(admin, monkeypatch):
    monkeypatch.setattr(server, "CLOCKS_S", -2.0)
    client = admin._transport.app._app.state.client
    request = client.request

    async def lossy_request(subject: str, *arguments, **options):
        if subject == CREATE_TOKEN.subject:
            raise NatsTimeout
        return await request(subject, *arguments, **options)

    monkeypatch.setattr(client, "request", lossy_request)
    response = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    assert response.status_code == 503
    assert "token" not in response.json()


@pytest.mark.parametrize("subjects", [(SETTLE.subject,), (SETTLE.subject, ROTATE_TOKEN.subject)])
async def test_the_dashboard_shows_the_secret_and_warns(admin, operator, lose, subjects: tuple[str, ...]):
    token = await create_token(admin)
    value, _ = await issue(operator, "*")
    await sign_in(admin, value)
    lose(*subjects, sent=True)
    page = await send(admin, f"/admin/tokens/{token['id']}/rotate", grace="0")
    assert page.status_code == 200
    assert "Not all edges have acknowledged" in page.text
    secret = re.findall(r'id="secret" class="code" value="(tly_\w+)"', page.text)[0]
    assert (await admin.get("/v1/self", headers=bearer(secret))).status_code == 200


async def test_a_revocation_that_is_not_settled_is_a_503_and_can_be_retried(admin, lose, monkeypatch):
    token = await create_token(admin)
    lose(SETTLE.subject, sent=False)
    response = await admin.delete(f"/v1/tokens/{token['id']}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    monkeypatch.undo()
    assert (await admin.delete(f"/v1/tokens/{token['id']}")).json()["covered"] == [token["id"]]


async def test_an_operator_gets_the_secret_too(tokens_service, operator, monkeypatch):
    _, token = await issue(operator, "api")
    request = operator.request

    async def lossy_request(subject: str, *arguments, **options):
        reply = await request(subject, *arguments, **options)
        if subject == ROTATE_TOKEN.by_operator.subject:
            raise NatsTimeout
        return reply

    monkeypatch.setattr(operator, "request", lossy_request)
    secret = token_format.new_secret()
    rotation = RotateToken(id=token.id, grace=0, digest=secret.digest, hint="", actor=OPERATOR)
    created = await propagation.create(operator, ROTATE_TOKEN.by_operator, rotation)
    assert isinstance(created, propagation.Creation)
    assert created.reply is not None
    assert created.reply.token.created_by == "test"

"""A committed create or rotate always gives its secret, whatever is lost after the commit (B2)."""

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
    """Has what the edge asks on a subject get lost: the request, before it is sent, or the reply."""
    client = admin._transport.app._app.state.client
    request = client.request

    def losing(*subjects: str, sent: bool) -> None:
        async def lost(subject: str, *arguments, **options):
            if subject not in subjects:
                return await request(subject, *arguments, **options)
            if not sent:
                raise NoRespondersError
            await request(subject, *arguments, **options)
            raise NatsTimeout

        monkeypatch.setattr(client, "request", lost)

    return losing


async def test_a_rotation_that_is_not_settled_gives_its_secret(admin, lose):
    made = await create_token(admin)
    lose(SETTLE.subject, sent=False)
    answer = await admin.post(f"/v1/tokens/{made['id']}/rotate", json={"grace": 0})
    assert (answer.status_code, answer.json()["settled"]) == (201, False)
    assert (await admin.get("/v1/self", headers=bearer(answer.json()["token"]))).status_code == 200


async def test_a_token_that_renews_itself_is_never_left_without_a_secret(admin, lose):
    made = await create_token(admin)
    lose(SETTLE.subject, ROTATE_TOKEN.subject, sent=True)
    answer = await admin.post("/v1/self/rotate", json={"grace": 0}, headers=bearer(made["token"]))
    assert answer.status_code == 201
    assert (await admin.get("/v1/self", headers=bearer(answer.json()["token"]))).status_code == 200


@pytest.mark.parametrize("sent", [True, False])
async def test_a_creation_whose_reply_is_lost_gives_its_secret_and_another_is_a_503(admin, lose, sent: bool):
    lose(CREATE_TOKEN.subject, sent=sent)
    answer = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    if sent:
        assert (answer.status_code, answer.json()["settled"]) == (201, True)
        assert (await admin.get("/v1/self", headers=bearer(answer.json()["token"]))).status_code == 200
    else:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert (await admin.get("/v1/tokens")).json()["total"] == 1 + sent


async def test_an_outcome_that_stays_unknown_gives_the_secret_and_says_so(admin, operator, lose, monkeypatch):
    value, _ = await issue(operator, "*")
    await sign_in(admin, value)
    monkeypatch.setattr(server, "CLOCKS_S", -2.0)
    lose(CREATE_TOKEN.subject, VERIFY.subject, sent=True)
    answer = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    assert (answer.status_code, answer.json()["committed"]) == (202, "unknown")
    assert answer.headers["cache-control"] == "no-store"
    page = (await send(admin, "/admin/tokens/new", scope="api", expires="never")).text
    assert "did not confirm that the token was created" in page
    lose(SIGN_IN.subject, sent=False)
    for _ in range(Attempts.MAX_ATTEMPTS + 1):  # which is no guess
        assert (await sign_in(admin, value)).status_code == 503
    for secret in (answer.json()["token"], *re.findall(r'id="secret" class="code" value="(tly_\w+)"', page)):
        assert (await admin.get("/v1/self", headers=bearer(secret))).status_code == 200


async def test_what_was_not_carried_out_is_a_503_once_it_cannot_be_any_more(admin, monkeypatch):
    monkeypatch.setattr(server, "CLOCKS_S", -2.0)
    client = admin._transport.app._app.state.client
    request = client.request

    async def lost(subject: str, *arguments, **options):
        if subject == CREATE_TOKEN.subject:
            raise NatsTimeout
        return await request(subject, *arguments, **options)

    monkeypatch.setattr(client, "request", lost)
    answer = await admin.post("/v1/tokens", json={"scopes": ["api"]})
    assert answer.status_code == 503
    assert "token" not in answer.json()


@pytest.mark.parametrize("subjects", [(SETTLE.subject,), (SETTLE.subject, ROTATE_TOKEN.subject)])
async def test_the_dashboard_shows_the_secret_and_warns(admin, operator, lose, subjects: tuple[str, ...]):
    made = await create_token(admin)
    value, _ = await issue(operator, "*")
    await sign_in(admin, value)
    lose(*subjects, sent=True)
    page = await send(admin, f"/admin/tokens/{made['id']}/rotate", grace="0")
    assert page.status_code == 200
    assert "Not all edges have acknowledged" in page.text
    secret = re.findall(r'id="secret" class="code" value="(tly_\w+)"', page.text)[0]
    assert (await admin.get("/v1/self", headers=bearer(secret))).status_code == 200


async def test_a_revocation_that_is_not_settled_is_a_503_and_may_be_repeated(admin, lose, monkeypatch):
    made = await create_token(admin)
    lose(SETTLE.subject, sent=False)
    answer = await admin.delete(f"/v1/tokens/{made['id']}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    monkeypatch.undo()
    assert (await admin.delete(f"/v1/tokens/{made['id']}")).json()["covered"] == [made["id"]]


async def test_an_operator_gets_the_secret_too(tokens_service, operator, monkeypatch):
    _, token = await issue(operator, "api")
    request = operator.request

    async def lost(subject: str, *arguments, **options):
        reply = await request(subject, *arguments, **options)
        if subject == ROTATE_TOKEN.by_operator.subject:
            raise NatsTimeout
        return reply

    monkeypatch.setattr(operator, "request", lost)
    secret = token_format.new_secret()
    rotation = RotateToken(id=token.id, grace=0, digest=secret.digest, hint="", actor=OPERATOR)
    created = await propagation.create(operator, ROTATE_TOKEN.by_operator, rotation)
    assert isinstance(created, propagation.Creation)
    assert created.reply is not None
    assert created.reply.token.created_by == "test"

"""The edge does not start with a route that has no guard, or whose rules contradict each other."""

from typing import Any

import pytest
from litestar import get, post

from tallystick_server.edge.app import authenticated, routes
from tallystick_server.edge.authorization.requirements import PUBLIC, SELF, AccountIn, Scope, Session
from tallystick_server.edge.authorization.routes import public_paths, rules_of
from tallystick_server.edge.settings import Settings

SETTINGS = Settings(nats_url="nats://nowhere")


async def serve() -> None:
    """Respond without content."""


def test_a_route_without_a_requirement_is_rejected():
    for requires in ({}, {"requires": None}, {"requires": "api"}, {"requires": Scope}):
        with pytest.raises(RuntimeError, match="/other declares no requirement"):
            routes(SETTINGS, get("/other", **requires)(serve))


def test_a_route_that_bypasses_the_guard_is_rejected():
    async def skip(request: Any) -> None:
        pass

    with pytest.raises(RuntimeError, match="/other would be served without the guard"):
        routes(SETTINGS, get("/other", requires=Scope("api"), before_request=skip)(serve))


def test_a_route_that_does_not_declare_its_account_is_rejected():
    with pytest.raises(RuntimeError, match="/other takes its account from a query parameter"):
        routes(SETTINGS, get("/other", requires=Scope("api", account=AccountIn.QUERY))(serve))


def test_a_path_is_public_for_every_method_or_for_none():
    get_route, post_route = get("/other", requires=PUBLIC)(serve), post("/other", requires=SELF)(serve)
    with pytest.raises(RuntimeError, match="are public for some methods only"):
        authenticated(SETTINGS, routes(SETTINGS, get_route, post_route))


def test_only_the_listed_paths_are_public():
    """A new public path is added to the list here."""
    paths = public_paths(routes(SETTINGS))
    assert {path for path in paths if not path.startswith("/admin")} == {
        "/docs",
        "/docs/openapi.json",
        "/docs/page.css",
        "/docs/page.js",
        "/health/live",
        "/health/ready",
    }
    app = routes(SETTINGS)
    declared = [
        (route.path, rules_of(handler).requires)
        for route in app.routes
        if route.path.startswith("/admin")
        for handler in getattr(route, "route_handlers", ())
        if handler.http_methods != {"OPTIONS"}
    ]
    for path, requires in declared:
        is_public = path == "/admin/sign-in" or path.startswith("/admin/assets/")
        assert requires == (PUBLIC if is_public else Session("admin")), path

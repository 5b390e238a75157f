"""A running `up`, and a browser signed in to its dashboard."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.pages import DESK, sign_in
from tests.support.up import Up

QUIET = [
    # As root there is no sandbox; and nothing is asked of anyone but the dashboard.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="write the pictures that the docs show")


@pytest.fixture(scope="module")
def browser(up: Up) -> Iterator[Browser]:
    # It comes after `up`, which waits in an event loop of its own: playwright's takes the thread.
    program = os.environ.get("BROWSER") or shutil.which("chromium")
    assert program, "chromium is needed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, up: Up) -> Iterator[Callable[..., Page]]:
    """Opens the dashboard in a new browser profile. What its console complains of fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(**how) -> Page:
        context = browser.new_context(
            base_url=up.http, timezone_id="Asia/Tokyo", locale="en-GB", **{"viewport": DESK, **how}
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


@pytest.fixture
def admin(visit: Callable[..., Page], up: Up) -> Page:
    page = visit()
    sign_in(page, up.admin_token)
    return page


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Writes a picture for the docs, where that is asked for."""
    wanted = request.config.getoption("--screenshots")

    def take(page: Page, name: str) -> None:
        if wanted:
            page.screenshot(path=Path("docs/images") / f"{name}.png", animations="disabled")

    return take

"""A running `up`, and a browser signed in to its dashboard."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.pages import DESK, sign_in
from tests.support.up import Up

BROWSER_OPTIONS = [
    # Chromium has no sandbox as root, and it must send no requests but those to the dashboard.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="write the screenshots for the docs")


@pytest.fixture(scope="module")
def browser(up: Up) -> Iterator[Browser]:
    # `up` must start first: it runs its own event loop, and playwright's then occupies the thread.
    program = os.environ.get("BROWSER") or shutil.which("chromium")
    assert program, "chromium is needed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, up: Up) -> Iterator[Callable[..., Page]]:
    """Open the dashboard in a new browser profile. An error in its console fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(**options) -> Page:
        context = browser.new_context(
            base_url=up.http, timezone_id="Asia/Tokyo", locale="en-GB", **{"viewport": DESK, **options}
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" else None,
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in errors if "Failed to load resource" not in text] == []


@pytest.fixture
def admin(visit: Callable[..., Page], up: Up) -> Page:
    page = visit()
    sign_in(page, up.admin_token)
    return page


@pytest.fixture
def screenshot(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Write a screenshot for the docs if ``--screenshots`` is set."""
    is_enabled = request.config.getoption("--screenshots")

    def write_screenshot(page: Page, name: str) -> None:
        if is_enabled:
            page.screenshot(path=Path("docs/images") / f"{name}.png", animations="disabled")

    return write_screenshot

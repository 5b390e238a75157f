"""Actions on a page of the dashboard."""

import time
from collections.abc import Callable

from playwright.sync_api import Page

DESK = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}


def until(page: Page, condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Poll a condition while the browser's event loop continues to run."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def sign_in(page: Page, token: str) -> None:
    page.goto("/admin/sign-in")
    page.get_by_label("Access token").fill(token)
    page.get_by_role("button", name="Sign in").click()

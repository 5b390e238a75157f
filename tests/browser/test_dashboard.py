"""The dashboard in a real browser: a complete walk-through, accessibility, and use without mouse or JavaScript."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.pages import PHONE, sign_in, until
from tests.support.up import Up


def in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def create_token(page: Page, description: str, **fields: str) -> str:
    """Create a token in the dashboard, and return its secret."""
    page.goto("/admin/tokens")
    page.get_by_role("link", name="New token").click()
    page.get_by_label("Description").fill(description)
    page.get_by_label("Custom scopes").fill(fields.get("scopes", "orders:read"))
    page.get_by_label("Expires").select_option(fields.get("expires", "30"))
    page.get_by_text("More options").click()
    page.get_by_label("Allowed IP addresses").fill(fields.get("addresses", ""))
    if "requests" in fields:
        page.get_by_label("Requests").fill(fields["requests"])
        page.get_by_label(re.compile(r"^\s*per\b")).select_option("minute")
    page.get_by_role("button", name="Create token").click()
    expect(page.get_by_text("Copy the secret now")).to_be_visible()
    return str(page.locator("#secret").input_value())


def status(up: Up, token: str, scope: str = "orders:read") -> int:
    with up.client(token) as client:
        return client.get(f"/auth?scope={scope}").status_code


def test_a_complete_walk_through(admin: Page, up: Up):
    expect(admin.get_by_role("heading", name="Overview")).to_be_visible()
    secret = create_token(admin, "the walk's", addresses="127.0.0.0/8", requests="1000")
    assert status(up, secret) == 200
    assert status(up, secret, "orders:write") == 403
    admin.get_by_role("button", name="Copy").first.click()
    expect(admin.get_by_role("button", name="Copied")).to_be_visible()

    # Neither a reload nor the browser's history shows the secret again or creates another token.
    admin.reload()
    expect(admin.get_by_role("heading", name="the walk's")).to_be_visible()
    assert secret not in admin.content()
    admin.go_back()
    expect(admin.get_by_role("button", name="Create token")).to_be_visible()
    admin.go_forward()
    expect(admin.get_by_role("heading", name="the walk's")).to_be_visible()
    assert secret not in admin.content()
    admin.goto("/admin/tokens?query=the+walk")
    expect(admin.get_by_text("1 token", exact=True)).to_be_visible()

    admin.get_by_role("link", name="the walk's").click()
    expect(admin.get_by_text("1,000 / minute")).to_be_visible()
    admin.get_by_role("link", name="Edit").click()
    admin.get_by_label("Description").fill("the walk's, edited")
    admin.get_by_role("button", name="Save").click()
    expect(admin.get_by_role("status")).to_contain_text("Saved. Applied on 1 edge")
    admin.get_by_role("button", name="Disable").click()
    expect(admin.get_by_role("status")).to_contain_text("Token disabled")
    assert status(up, secret) == 401
    admin.get_by_role("button", name="Enable").click()
    expect(admin.get_by_role("status")).to_contain_text("Token enabled")
    assert status(up, secret) == 200

    admin.get_by_role("link", name="Rotate").click()
    admin.get_by_label("Keep for 1 hour").check()
    admin.get_by_role("button", name="Rotate").click()
    new_secret = admin.locator("#secret").input_value()
    assert new_secret != secret
    assert status(up, new_secret) == status(up, secret) == 200
    admin.get_by_role("link", name="Done").click()

    def still_in_use() -> bool:
        admin.reload()
        return bool(admin.get_by_text("still in use").is_visible())

    until(admin, still_in_use)
    expect(admin.get_by_text(re.compile("from 127.0.0.1")).first).to_be_visible()

    admin.get_by_role("link", name="Revoke").click()
    admin.get_by_role("button", name="Revoke").click()
    expect(admin.get_by_role("status")).to_contain_text(
        "is revoked. 2 secrets of its rotation chain are rejected on 1 edge"
    )
    assert status(up, new_secret) == 401

    admin.get_by_role("button", name="Sign out").click()
    expect(admin.get_by_role("heading", name="Sign in to Tallystick")).to_be_visible()
    admin.goto("/admin/tokens")
    expect(admin.get_by_role("heading", name="Sign in to Tallystick")).to_be_visible()


def test_the_login_link_of_the_first_start_works_once(visit, up: Up):
    (link,) = re.findall(r"(http\S+/admin/sign-in\?link=\S+)", up.printed)
    page = visit()
    page.goto(link)
    page.reload()  # opening the page does not consume the link
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    other = visit()
    other.goto(link)
    other.get_by_role("button", name="Sign in").click()
    expect(other.get_by_role("alert")).to_contain_text("This link has expired or was already used")


def test_an_invalid_token_gets_an_error_message(visit):
    page = visit()
    sign_in(page, "tly_wrong")
    expect(page.get_by_role("alert")).to_contain_text("Invalid token")


def test_a_session_ends_with_its_token(visit, admin: Page, up: Up):
    secret = create_token(admin, "a colleague's", scopes="admin")
    colleague = visit()
    sign_in(colleague, secret)
    expect(colleague.get_by_role("heading", name="Overview")).to_be_visible()
    admin.goto("/admin/tokens?query=a+colleague")
    admin.get_by_role("link", name="a colleague's").click()
    admin.get_by_role("link", name="Revoke").click()
    admin.get_by_role("button", name="Revoke").click()
    expect(admin.get_by_role("status")).to_be_visible()
    # The automatic refresh of the overview redirects too.
    expect(colleague.get_by_role("heading", name="Sign in to Tallystick")).to_be_visible(timeout=15_000)


def test_form_problems_are_displayed_at_their_fields(admin: Page):
    admin.goto("/admin/tokens/new")
    admin.get_by_label("Description").fill("kept")
    admin.get_by_label("Custom scopes").fill("Orders!")
    admin.get_by_text("More options").click()
    admin.get_by_label("Allowed IP addresses").fill("10.0.0.1/8")
    admin.get_by_role("button", name="Create token").click()
    expect(admin.get_by_role("alert")).to_contain_text("Could not create the token")
    expect(admin.locator("#scopes-problem")).to_contain_text("lower-case segments")
    expect(admin.locator("#addresses-problem")).to_be_visible()
    expect(admin.get_by_label("Description")).to_have_value("kept")
    expect(admin.get_by_label("Custom scopes")).to_have_value("Orders!")


def test_a_script_in_a_description_is_displayed_as_text(admin: Page):
    evil = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    create_token(admin, evil)
    admin.goto("/admin/tokens")
    expect(admin.get_by_role("link", name=evil)).to_be_visible()
    admin.get_by_role("link", name=evil).click()
    expect(admin.get_by_role("heading", name=evil)).to_be_visible()
    assert "owned" not in admin.title().replace(evil, "")


SHOP: tuple[dict[str, Any], ...] = (
    {"description": "shop: Prometheus", "scopes": ["metrics"]},
    {
        "description": "shop: nightly report",
        "scopes": ["api:tokens:read", "reports:write"],
        "expires": in_days(3),
    },
    {
        "description": "shop: search page",
        "scopes": ["catalogue:read"],
        "restrictions": {
            "referrers": ["https://shop.example/*"],
            "rateLimit": {"maxRequests": 100, "timeWindow": 60},
        },
    },
    {
        "description": "shop: checkout",
        "scopes": ["orders", "payments:write"],
        "expires": in_days(300),
        "restrictions": {"addresses": ["127.0.0.0/8"]},
    },
)


def test_the_list_is_searched_while_typing(admin: Page, up: Up, screenshot):
    with up.client(up.admin_token) as client:
        tokens = [client.post("/v1/tokens", json=fields).json() for fields in SHOP]
    for token, uses in zip(tokens, (7, 2, 0, 12), strict=True):
        for _ in range(uses):
            assert status(up, token["token"], token["scopes"][0]) == 200
    create_token(admin, "hay")
    admin.goto("/admin/tokens")
    admin.get_by_label("Search").press_sequentially("shop")
    expect(admin.get_by_role("link", name="hay")).to_have_count(0)
    expect(admin.get_by_role("link", name="shop: checkout")).to_be_visible()
    expect(admin).to_have_url(re.compile("query=shop"))

    def has_one_unused() -> bool:
        admin.reload()
        return bool(admin.get_by_text("unused").count() == 1)

    until(admin, has_one_unused)
    screenshot(admin, "tokens")
    admin.get_by_label("Sort by").select_option("expires")
    expect(admin.locator("tbody th[scope=row] > a").first).to_have_text("shop: nightly report")
    admin.get_by_label("Search").fill("")
    expect(admin.get_by_role("link", name="hay")).to_be_visible()
    admin.get_by_label("State").select_option("revoked")
    expect(admin.get_by_role("link", name="hay")).to_have_count(0)
    admin.go_back()
    expect(admin.get_by_role("link", name="hay")).to_be_visible()


def test_a_secret_in_the_search_box_is_not_sent(admin: Page, up: Up):
    secret = create_token(admin, "leaked")
    admin.goto("/admin/tokens")
    requested_urls: list[str] = []
    admin.on("request", lambda request: requested_urls.append(request.url))
    admin.get_by_label("Search").fill(secret)
    admin.get_by_role("button", name="Search").click()
    admin.get_by_label("Search").fill("leaked")
    expect(admin.get_by_role("status").filter(has_text="1 token")).to_be_visible()
    assert not any(secret in url for url in [*requested_urls, admin.url])


def test_extreme_tokens_do_not_distort_the_table(admin: Page):
    create_token(admin, "an odd one " * 80, scopes=" ".join(f"orders:kind{number}" for number in range(40)))
    create_token(admin, "\u202eturned")
    admin.goto("/admin/tokens")
    heights = admin.locator(".tokens tbody tr").evaluate_all("rows => rows.map(row => row.offsetHeight)")
    assert max(heights) < 260, heights
    expect(admin.get_by_role("link", name="[U+202E]turned")).to_be_visible()


def test_the_overview_displays_its_age_when_updates_fail(admin: Page):
    expect(admin.get_by_text("Token checks per second")).to_be_visible()
    admin.route("**/admin", lambda route: route.fulfill(status=204))
    expect(admin.get_by_text("Last updated")).to_be_visible(timeout=30_000)
    admin.unroute("**/admin")
    expect(admin.get_by_text("Last updated")).to_be_hidden(timeout=30_000)


def test_times_are_in_the_viewer_s_time_zone(admin: Page, up: Up):
    admin.goto("/admin/tokens/new")
    admin.get_by_label("Description").fill("until new year")
    admin.get_by_label("Custom scopes").fill("orders")
    admin.get_by_label("Expires").select_option("at")
    admin.locator("[name=expires_at]").fill("2030-01-01T00:00:00")
    admin.get_by_role("button", name="Create token").click()
    admin.get_by_role("link", name="Done").click()
    expect(admin.get_by_text("1 Jan 2030, 00:00").first).to_be_visible()
    token_id = admin.url.rpartition("/")[2]
    with up.client(up.admin_token) as client:
        assert client.get(f"/v1/tokens/{token_id}").json()["expires"] == "2029-12-31T15:00:00Z"  # Tokyo
    admin.get_by_role("link", name="Edit").click()
    expect(admin.locator("[name=expires_at]")).to_have_value("2030-01-01T00:00")


def test_deleting_an_account_revokes_its_tokens(admin: Page, up: Up):
    admin.goto("/admin/accounts")
    admin.get_by_label("Account", exact=True).fill("acme")
    admin.get_by_role("button", name="Add account").click()
    admin.get_by_role("link", name="New token for acme").click()
    admin.get_by_label("Description").fill("of acme")
    admin.get_by_label("Custom scopes").fill("orders")
    admin.get_by_role("button", name="Create token").click()
    secret = admin.locator("#secret").input_value()
    admin.goto("/admin/accounts")
    admin.get_by_role("link", name="Delete acme").click()
    admin.get_by_role("button", name="Delete account and revoke 1 token").click()
    expect(admin.get_by_role("status")).to_contain_text("1 token revoked")
    with up.client(secret) as client:
        assert client.get("/auth?scope=orders&account=acme").status_code == 401


def test_the_overview_displays_metrics(admin: Page, up: Up, screenshot):
    secret = create_token(admin, "busy")
    for scope in ("orders:read", "orders:read", "other"):
        status(up, secret, scope)
    with up.client() as stranger:
        request_id = stranger.get("/v1/stats", headers={"authorization": f"Bearer {secret}"}).headers[
            "x-request-id"
        ]
    admin.goto("/admin")
    # The overview refreshes by itself.
    expect(admin.get_by_text("insufficient scope")).to_be_visible(timeout=30_000)
    expect(admin.get_by_text("all have a lease")).to_be_visible()
    expect(admin.locator(".fact.warn")).to_have_count(0)
    screenshot(admin, "overview")

    def is_rejection_found() -> bool:
        admin.goto(f"/admin/refusals?request_id={request_id}")
        return bool(admin.get_by_text("Insufficient scope").is_visible())

    until(admin, is_rejection_found)


PAGES = [
    "/admin",
    "/admin/tokens",
    "/admin/tokens/new",
    "/admin/accounts",
    "/admin/refusals?request_id=req_x",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_have_no_serious_accessibility_violations(visit, up: Up, scheme: str):
    page = visit(color_scheme=scheme)
    page.goto("/admin/sign-in")
    assert serious_violations(page) == []
    sign_in(page, up.admin_token)
    create_token(page, f"to look at in {scheme}", addresses="192.0.2.0/24", requests="5")
    assert serious_violations(page) == []
    page.get_by_role("link", name="Done").click()
    token_url = page.url
    for path in [
        *PAGES,
        token_url,
        *(f"{token_url}/{action}" for action in ("edit", "rotate", "revoke", "disable")),
    ]:
        page.goto(path)
        assert serious_violations(page) == [], path
    page.goto("/docs")
    page.get_by_text("GET /v1/self", exact=True).click()
    assert "`" not in page.locator("main").inner_text()
    assert serious_violations(page) == []


def serious_violations(page: Page) -> list[str]:
    """The serious violations that axe-core finds: the rule and the elements."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {[node['html'] for node in violation['nodes']]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]


def test_the_api_reference_links_an_operation_to_its_schemas(visit):
    page = visit()
    page.goto("/docs")
    page.get_by_text("POST /v1/tokens", exact=True).click()
    operation = page.locator("details[open]")
    expect(operation.get_by_role("row", name="201").get_by_role("link")).to_have_text("TokenWithSecret")
    operation.get_by_role("link", name="NewToken").click()
    schema = page.locator("section", has=page.get_by_role("heading", name="NewToken", exact=True))
    expect(schema).to_be_in_viewport()
    expect(schema.get_by_role("row").nth(1)).to_have_text(re.compile(r"^scopes\s*required\s*list of string"))
    schema_page = visit()
    schema_page.goto("/docs#RejectedAttempt")
    expect(schema_page.get_by_role("heading", name="RejectedAttempt")).to_be_in_viewport()


def test_a_narrow_screen_needs_no_horizontal_scrolling(visit, up: Up):
    page = visit(viewport=PHONE)
    sign_in(page, up.admin_token)
    create_token(
        page, "a-description-without-a-single-space-in-it-that-is-longer-than-any-phone-is-wide", requests="5"
    )
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_a_token_can_be_created_by_keyboard_alone(admin: Page):
    admin.goto("/admin/tokens/new")
    expect(admin.get_by_label("Description")).to_be_focused()
    admin.keyboard.type("by keyboard")
    admin.keyboard.press("Tab")
    admin.keyboard.press("Space")  # the first scope
    admin.keyboard.press("Enter")
    expect(admin.locator("#secret")).to_be_focused()
    admin.goto("/admin")
    admin.keyboard.press("Tab")
    expect(admin.get_by_role("link", name="Skip to content")).to_be_focused()


def test_the_dashboard_works_without_javascript(visit, up: Up):
    page = visit(java_script_enabled=False)
    sign_in(page, up.admin_token)
    secret = create_token(page, "no script")
    assert status(up, secret) == 200
    page.reload()  # sends the form again
    expect(page.get_by_role("heading", name="This token was already created")).to_be_visible()
    page.goto("/admin/tokens")
    page.get_by_label("Search").fill("no scr")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="no script").click()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_contain_text("1 secret of its rotation chain is rejected on 1 edge")
    assert status(up, secret) == 401

"""What the page shows when the API refuses: no key, a wrong scope, too fast, overloaded, broken, away; and what gets it out again."""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit, Watch

FAILED = "Failed to load resource"
SEARCH = re.compile(r"/v1/search$")


def refuse(page: Page, address: re.Pattern[str], status: int, times: int, detail: str = "told in the test", **headers: str) -> list[Route]:
    """Answer the first `times` requests with a problem; the list fills with what came."""
    came: list[Route] = []

    def answer(route: Route) -> None:
        came.append(route)
        if len(came) > times:
            route.continue_()
            return
        body = json.dumps({"type": "/problems/x", "title": "Refused", "status": status, "detail": detail, "instance": "r", "errors": []})
        route.fulfill(status=status, body=body, headers={"Content-Type": "application/problem+json", **headers})

    page.route(address, answer)
    return came


@pytest.mark.parametrize(("status", "headline"), [(429, "A little slower, please"), (503, "Everpin is busy")])
def test_too_fast_or_overloaded_waits_as_told_and_goes_on_by_itself(visit: Visit, watch: Watch, status: int, headline: str) -> None:
    watch.forgiven = FAILED
    page = visit()
    came = refuse(page, SEARCH, status, 1, **{"Retry-After": "1"})
    page.locator("#query").fill("bread")
    expect(page.get_by_role("heading", name=headline)).to_be_visible()
    expect(page.get_by_text("Tries again in 1 second")).to_be_visible()
    assert Axe().run(page).violations_count == 0
    expect(page.locator("#view-search .badge").first).to_be_visible()
    assert len(came) == 2


def test_without_a_key_one_is_asked_for_kept_in_the_tab_and_sent(visit: Visit, watch: Watch) -> None:
    watch.forgiven = FAILED
    page = visit()
    came = refuse(page, SEARCH, 401, 1)
    page.locator("#query").fill("bread")
    expect(page.get_by_role("heading", name="This Everpin asks for an API key")).to_be_visible()
    assert Axe().run(page).violations_count == 0
    page.get_by_label("API key").fill("key-of-the-test")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#view-search .badge").first).to_be_visible()
    assert came[1].request.headers["authorization"] == "Bearer key-of-the-test"
    assert page.evaluate("[sessionStorage.length > 0, localStorage.length, document.cookie]") == [True, 0, ""]


def test_a_key_without_the_scope_can_be_changed_where_the_edit_is(visit: Visit, watch: Watch) -> None:
    watch.forgiven = FAILED
    page = visit("#/search?q=bread&pin=food-001")
    page.route("**/v1/pins/food-001", lambda route: route.continue_())
    expect(page.get_by_role("button", name="Edit title")).to_be_visible()
    came: list[Route] = []

    def answer(route: Route) -> None:
        if route.request.method != "PATCH":
            route.continue_()
            return
        came.append(route)
        body = json.dumps({"title": "Forbidden", "status": 403, "detail": "the key has no write scope"})
        route.fulfill(status=403, body=body) if len(came) == 1 else route.continue_()

    page.route("**/v1/pins/food-001", answer)
    page.get_by_role("button", name="Edit title").click()
    page.get_by_label("Title", exact=True).fill("Sourdough without fear")
    page.get_by_role("button", name="Save title").click()
    expect(page.locator("#panel .outcome")).to_contain_text("the key has no write scope")
    page.get_by_label("API key").fill("another-key")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3)
    assert came[1].request.headers["authorization"] == "Bearer another-key"


@pytest.mark.parametrize("body", ["not json at all", '{"title": "Defect", "detail": ["odd"]}'])
def test_a_defect_of_the_server_is_said_and_can_be_tried_again(visit: Visit, watch: Watch, body: str) -> None:
    watch.forgiven = FAILED
    page = visit()
    page.route(SEARCH, lambda route: route.fulfill(status=500, body=body))
    page.locator("#query").fill("bread")
    expect(page.locator("#view-search .is-problem h2")).to_be_visible()
    page.unroute(SEARCH)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#view-search .badge").first).to_be_visible()


def test_a_server_that_is_away_is_said_to_be_away(visit: Visit, watch: Watch) -> None:
    watch.forgiven = FAILED
    page = visit()
    expect(page.locator("#view-search .card").first).to_be_visible()
    for view, address in (("search", SEARCH), ("feed", re.compile("/v1/users/")), ("map", re.compile("/v1/map"))):
        page.route(address, lambda route: route.abort("connectionrefused"))
        page.locator(f'[data-view="{view}"]').click()
        if view == "search":
            page.locator("#query").fill("bread")
        expect(page.locator(f"#view-{view} .is-problem h2")).to_have_text("Everpin does not answer")
        page.unroute(address)
        page.locator(f"#view-{view}").get_by_role("button", name="Try again").click()
        expect(page.locator(f"#view-{view} .is-problem")).to_have_count(0)


def test_pages_of_a_model_that_is_gone_begin_again(visit: Visit, watch: Watch) -> None:
    watch.forgiven = FAILED
    page = visit("#/search?q=bread")
    expect(page.locator("#view-search .card")).to_have_count(24)
    came = refuse(page, SEARCH, 410, 1)
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("button", name="Show more")).to_be_enabled()
    expect(page.locator("#view-search .card")).to_have_count(24)
    assert len(came) == 2


def test_hostile_texts_are_only_text(visit: Visit, watch: Watch) -> None:
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    page = visit("#/search?q=bread&pin=food-001")
    page.on("dialog", lambda dialog: watch.errors.append("a script ran"))
    page.get_by_role("button", name="Edit title").click()
    page.get_by_label("Title", exact=True).fill(evil)
    page.get_by_role("button", name="Save title").click()
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3)
    expect(page.locator("#panel h2")).to_have_text(evil)
    page.locator("#query").fill(evil)
    expect(page.locator(".quoted")).to_have_text(evil.lower())
    assert page.locator("main script, main img[onerror]").count() == 0


def test_the_answer_to_a_slow_save_does_not_lose_the_button(visit: Visit, watch: Watch) -> None:
    watch.forgiven = FAILED
    page = visit("#/feed?user=user-01")
    refuse(page, re.compile("/actions$"), 503, 1, "the broker does not answer")
    card = page.locator("#view-feed .card").first
    card.hover()
    card.get_by_role("button", name="Save").click()
    expect(page.locator(".toast.is-bad")).to_contain_text("Not saved: the broker does not answer")
    expect(card.get_by_role("button", name="Save")).to_be_enabled()

"""A pin's panel: its story, its related pins, and an edit that can be watched from the key press to the moved card."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit, Watch
from tests.browser.fake import FakeEverpin

HERBS = "#/search?q=balcony+herb+garden"


def test_a_click_opens_the_story_and_related_pins_with_reasons(visit: Visit) -> None:
    page = visit(HERBS)
    page.locator("#view-search .card-open").first.click()
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text(page.locator("#view-search .card-title").first.inner_text())
    expect(panel.locator(".age-words")).to_have_text(re.compile(r"Embedded \d+ s ago because the pin was not in the index"))
    expect(panel.locator(".row")).to_have_count(8)
    assert all(panel.locator(".row-why").all_inner_texts())
    panel.get_by_role("button", name="More like this").click()
    expect(panel.locator(".row")).to_have_count(16)
    panel.get_by_text("What the model read").click()
    expect(panel.locator(".read dd").filter(has_text="triples-v1").first).to_be_visible()
    expect(panel.locator(".match")).to_contain_text("Found by meaning at 1")


def test_a_related_pin_takes_the_panel_over_and_back_returns(visit: Visit) -> None:
    page = visit(f"{HERBS}&pin=garden-012")
    first = page.locator("#panel h2")
    expect(page.locator("#panel .row")).to_have_count(8)
    before = first.inner_text()
    page.locator("#panel .row").first.click()
    expect(first).not_to_have_text(before)
    page.go_back()
    expect(first).to_have_text(before)


def test_an_unknown_pin_is_said_to_be_gone(visit: Visit, watch: Watch) -> None:
    watch.forgiven = "404"
    page = visit("#/search?pin=nobody")
    expect(page.locator("#panel").get_by_role("heading", name="No such pin")).to_be_visible()


def test_an_edit_is_watched_to_the_result_and_the_list_shows_what_moved(visit: Visit, fake: FakeEverpin) -> None:
    page = visit(HERBS)
    expect(page.locator("#view-search .card")).to_have_count(24)
    edited = page.locator("#view-search .card").nth(7)
    pin_id = edited.get_attribute("data-pin")
    edited.locator(".card-open").click()
    page.get_by_role("button", name="Edit title").click()
    page.get_by_label("Title", exact=True).fill("Balcony herb garden")
    page.get_by_role("button", name="Save title").click()
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3)
    expect(page.locator("#panel .outcome")).to_have_text("It went from place 8 to 1.")
    assert all(re.fullmatch(r"[\d.]+ m?s", words) for words in page.locator("#panel .step-time").all_inner_texts())
    expect(page.locator("#panel .age-words")).to_contain_text("because its text changed in meaning")
    expect(page.locator("#panel .match .badge")).to_contain_text("Highly relevant")
    first = page.locator("#view-search .card").first
    assert first.get_attribute("data-pin") == pin_id
    expect(first).to_contain_text("Balcony herb garden")
    expect(first.locator(".card-move")).to_have_text("Edited, up 7")
    assert first.evaluate("(card) => card.style.transform") == "translate(0px, 0px)"


def test_an_edit_away_from_the_query_leaves_the_list(visit: Visit) -> None:
    page = visit(HERBS)
    page.locator("#view-search .card-open").first.click()
    page.get_by_role("button", name="Edit title").click()
    page.get_by_label("Title", exact=True).fill("Zzz qqq xxx")
    page.get_by_label("Title", exact=True).press("Enter")
    expect(page.locator("#panel .outcome")).to_contain_text("It left the first 24")
    expect(page.locator("#view-search .card-move").filter(has_text="New here")).to_have_count(1)


def test_an_edit_that_is_refused_keeps_the_old_title_and_can_be_tried_again(visit: Visit, watch: Watch) -> None:
    watch.forgiven = "503"
    page = visit(f"{HERBS}&pin=garden-012")
    problem = '{"title": "Overloaded", "status": 503, "detail": "the broker does not answer"}'
    page.route("**/v1/pins/garden-012", lambda route: route.fulfill(status=503, body=problem) if route.request.method == "PATCH" else route.continue_())
    page.get_by_role("button", name="Edit title").click()
    page.get_by_label("Title", exact=True).fill("Greenhouse of windows")
    page.get_by_role("button", name="Save title").click()
    expect(page.locator("#panel .outcome")).to_contain_text("The edit did not arrive: the broker does not answer")
    expect(page.locator("#panel h2")).to_have_text("lean-to greenhouse from old sash windows")
    page.unroute("**/v1/pins/garden-012")
    page.locator("#panel .trail").get_by_role("button", name="Try again").click()
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3)


def test_saving_in_the_panel_is_an_action_of_the_user(visit: Visit, fake: FakeEverpin) -> None:
    page = visit("#/feed?user=user-02")
    page.goto(page.url.split("#")[0] + "#/search?q=bread&pin=food-001")
    page.locator("#panel").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#panel").get_by_role("button", name="Saved")).to_be_visible()
    assert ("user-02", "food-001", "save") in fake.actions or ("user-01", "food-001", "save") in fake.actions
    assert "food-001" in fake.showed[fake.named[-1] or ""], "the action names the search that showed the pin"

"""Search in the page: live results, relevance, further pages, and answers that come too late."""

from __future__ import annotations

import re

from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit, Watch, until
from tests.browser.fake import FakeEverpin

HERBS = "#/search?q=balcony+herb+garden"
PINS = """() => [...document.querySelectorAll("#view-search .card")].map((card) => card.dataset.pin)"""


def test_without_a_query_the_newest_pins_and_searches_to_try(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#view-search .card")).to_have_count(24)
    expect(page.locator("#search-title")).to_have_text("Newest pins")
    page.get_by_role("button", name="balcony herb garden").click()
    expect(page.locator(".quoted")).to_have_text("balcony herb garden")
    expect(page.locator("#query")).to_have_value("balcony herb garden")


def test_results_follow_the_typing_and_the_address_follows_the_results(visit: Visit) -> None:
    page = visit()
    page.locator("#query").press_sequentially("sourdough bread", delay=20)
    expect(page.locator(".quoted")).to_have_text("sourdough bread")
    expect(page.locator("#view-search .card-title").first).to_contain_text(re.compile("bread|loaf|sourdough", re.IGNORECASE))
    assert "q=sourdough+bread" in page.url
    page.reload()
    expect(page.locator(".quoted")).to_have_text("sourdough bread")
    page.go_back()
    expect(page.locator("#search-title")).to_have_text("Newest pins")


def test_relevance_is_told_in_words_and_bars(visit: Visit) -> None:
    page = visit(HERBS)
    first = page.locator(".badge").first
    expect(first).to_contain_text("Highly relevant, level 5 of 5")
    expect(first.locator("i.on")).to_have_count(5)
    for badge in page.locator(".badge").all():
        level = re.search(r"level (\d) of 5", badge.inner_text())
        assert level
        assert badge.locator("i.on").count() == int(level[1])


def test_more_adds_a_page_without_repeating_a_pin(visit: Visit) -> None:
    page = visit(HERBS)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#view-search .card")).to_have_count(48)
    ids = [card.get_attribute("data-pin") for card in page.locator("#view-search .card").all()]
    assert len(set(ids)) == 48
    assert page.evaluate("document.activeElement.closest('.card').dataset.pin") == ids[24], "focus goes to the first new pin"


def test_an_answer_that_comes_late_is_dropped(visit: Visit) -> None:
    held: list[Route] = []
    page = visit()
    page.route("**/v1/search", lambda route: held.append(route) if "slow" in (route.request.post_data or "") else route.continue_())
    page.locator("#query").fill("slow food")
    until(page, "location.hash", lambda address: "slow" in address)
    page.locator("#query").fill("knitting")
    expect(page.locator(".quoted")).to_have_text("knitting")
    assert held, "the first search was asked"
    held[0].continue_()
    expect(page.locator("#view-search .card").first).to_be_visible()
    expect(page.locator(".quoted")).to_have_text("knitting")


def test_cards_are_drawn_where_there_is_no_image_and_where_one_does_not_load(visit: Visit, fake: FakeEverpin, watch: Watch) -> None:
    watch.forgiven = "Failed to load resource"
    fake.images["garden-012"] = "/web/favicon.svg"
    fake.images["garden-014"] = "/web/not-there.png"
    page = visit("#/search?q=lean-to+greenhouse")
    expect(page.locator('[data-pin="garden-012"] img.photo.is-loaded')).to_be_visible()
    page.goto(page.url.split("#")[0] + "#/search?q=garden-014")
    title = fake.pins["garden-014"].card.title
    page.locator("#query").fill(title)
    broken = page.locator('.card[data-pin="garden-014"]')
    expect(broken.locator("svg.drawing")).to_be_visible()
    expect(broken.locator("img.photo")).to_have_count(0)


def test_a_drawing_is_the_pins_own_and_always_the_same(visit: Visit) -> None:
    page = visit()
    script = """async () => {
      const { art } = await import("/web/art.js");
      const draw = (pin_id, category) => art({ pin_id, category }).outerHTML;
      const ids = Array.from({ length: 40 }, (_, i) => `pin-${i}`);
      const categories = ["home", "food", "garden", "fashion", "travel", "craft", "", "boats"];
      const all = categories.map((category) => ids.map((id) => draw(id, category)));
      const bad = all.flat().filter((html) => /NaN|undefined|Infinity/.test(html)).length;
      const same = categories.every((category, i) => ids.every((id, j) => draw(id, category) === all[i][j]));
      return { distinct: new Set(all[2]).size, bad, same };
    }"""
    assert page.evaluate(script) == {"distinct": 40, "bad": 0, "same": True}


def test_cards_never_overlap_and_stay_inside_the_page(visit: Visit) -> None:
    page = visit(HERBS)
    expect(page.locator("#view-search .card")).to_have_count(24)
    script = """() => {
      const boxes = [...document.querySelectorAll("#view-search .card")].map((card) => card.getBoundingClientRect());
      const cross = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
      const overlaps = boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => cross(a, b)));
      return [overlaps.length, document.documentElement.scrollWidth <= innerWidth, boxes.every((box) => box.height > 60)];
    }"""
    for width in (360, 700, 1280, 1900):
        page.set_viewport_size({"width": width, "height": 800})
        until(page, script, lambda found: found == [0, True, True])

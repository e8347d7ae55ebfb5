"""The filters of a search, the choice of related pins and the feed's diversity: what is asked of the API, what the address keeps, what the keyboard does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit, until
from tests.browser.fake import FakeEverpin

HERBS = "#/search?q=balcony+herb+garden"
PINS = """() => [...document.querySelectorAll("#view-search .card")].map((card) => card.dataset.pin)"""
USED = "#filters-used .used-chip"
SLIDER = "#filter-fields .slider"


def body(page: Page, act: Callable[[], Any]) -> dict[str, Any]:
    """The body of the search that an act leads to."""
    with page.expect_request("**/v1/search") as asked:
        act()
    sent: dict[str, Any] = asked.value.post_data_json
    return sent


def query_of(page: Page, address: str, act: Callable[[], Any]) -> dict[str, list[str]]:
    """The parameters of the GET that an act leads to."""
    with page.expect_request(address) as asked:
        act()
    return parse_qs(urlsplit(asked.value.url).query)


def hash_of(page: Page) -> dict[str, list[str]]:
    """The fields of the address."""
    return parse_qs(urlsplit(page.url).fragment.partition("?")[2])


def cards(page: Page, fake: FakeEverpin) -> list[Any]:
    return [fake.pins[pin_id].card for pin_id in page.evaluate(PINS)]


def opened(visit: Visit, address: str = HERBS, **how: object) -> Page:
    """The page with its filters unfolded, and results below them."""
    page = visit(address, **how)
    expect(page.locator("#view-search .card").first).to_be_visible()
    page.locator("#filters-toggle").click()
    expect(page.locator("#filter-fields")).to_be_visible()
    return page


def test_filters_narrow_and_can_be_taken_back(visit: Visit, fake: FakeEverpin) -> None:
    page = opened(visit)
    page.get_by_role("button", name="Food", exact=True).click()
    expect(page.get_by_role("button", name="Food", exact=True)).to_have_attribute("aria-pressed", "true")
    until(page, PINS, lambda ids: ids and all(pin_id.startswith("food") for pin_id in ids))
    page.get_by_label("Language").select_option(label="German")
    until(page, PINS, lambda ids: 0 < len(ids) < 24)
    assert {(card.category, card.lang) for card in cards(page, fake)} == {("food", "de")}
    page.get_by_role("button", name="Everything").click()
    page.get_by_label("Language").select_option("")
    expect(page.locator("#view-search .card")).to_have_count(24)


def test_each_filter_is_in_the_request_and_in_the_address(visit: Visit, fake: FakeEverpin) -> None:
    page = opened(visit)
    board = page.get_by_label("Board")
    board.fill("greenhouse")
    assert body(page, lambda: board.press("Enter"))["filters"] == {"board": "Greenhouse"}, "a known board is spelled as its pins spell it"
    until(page, PINS, lambda ids: 0 < len(ids) < 24)
    assert all("Greenhouse" in card.boards for card in cards(page, fake))
    since = body(page, lambda: page.get_by_label("Created since").fill("2024-02-01"))["filters"]
    assert since == {"board": "Greenhouse", "created_since": "2024-02-01T00:00:00Z"}
    cut = body(page, lambda: page.get_by_label("Relevance at least").select_option("3"))
    assert (cut["min_level"], "below" in cut) == (3, False)
    marked = body(page, lambda: page.get_by_label("Weaker results").select_option("Mark"))
    assert (marked["min_level"], marked["below"], "diversity" in marked) == (3, "mark", False)
    page.locator(SLIDER).focus()
    varied = body(page, lambda: page.keyboard.press("ArrowRight"))
    assert varied["diversity"] == pytest.approx(0.05)
    matched = body(page, lambda: page.get_by_label("Match by").select_option("By words"))
    assert matched["retrieval"] == "sparse"
    kept = {"q": ["balcony herb garden"], "match": ["sparse"], "board": ["Greenhouse"], "since": ["2024-02-01"]}
    assert hash_of(page) == kept | {"level": ["3"], "below": ["mark"], "diversity": ["0.05"]}
    expect(page.locator("#filters-toggle")).to_have_accessible_name("Filters 5 in use")


def test_the_address_alone_restores_filters_and_further_pages_keep_them(visit: Visit) -> None:
    page = visit("")
    wanted = f"{HERBS}&lang=en&board=Container+gardening&since=2024-03-05&level=2&diversity=0.4&match=dense"
    asked = body(page, lambda: page.evaluate("(address) => { location.hash = address; }", wanted))
    assert asked["filters"] == {"lang": "en", "board": "Container gardening", "created_since": "2024-03-05T00:00:00Z"}
    assert (asked["min_level"], asked["diversity"], asked["retrieval"]) == (2, 0.4, "dense")
    words = ["English", "By meaning", "On “Container gardening”", "Since 5 Mar 2024", "Level 2 up", "Diversity 40 %"]
    expect(page.locator(USED)).to_have_text([f"Remove filter: {one}" for one in words])
    page.locator("#filters-toggle").click()
    values = {label: page.get_by_label(label).input_value() for label in ("Language", "Match by", "Board", "Created since", "Relevance at least")}
    assert values == {
        "Language": "en",
        "Match by": "dense",
        "Board": "Container gardening",
        "Created since": "2024-03-05",
        "Relevance at least": "2",
    }
    expect(page.locator(SLIDER)).to_have_value("0.4")
    page.goto(f"{page.url.split('#')[0]}{HERBS}&since=2024-03-05&diversity=0.4")
    expect(page.locator("#view-search .card")).to_have_count(24)
    further = body(page, lambda: page.get_by_role("button", name="Show more").click())
    assert (further["filters"], further["diversity"]) == ({"created_since": "2024-03-05T00:00:00Z"}, 0.4)
    assert further["cursor"]


def test_values_in_the_address_that_the_api_would_refuse_are_left_out(visit: Visit) -> None:
    page = visit("")
    bad = f"{HERBS}&since=2024-13-40&level=9&below=mark&diversity=7&match=magic&board={'x' * 201}"
    asked = body(page, lambda: page.evaluate("(address) => { location.hash = address; }", bad))
    assert asked == {"query": "balcony herb garden", "limit": 24, "explain": True, "filters": {}}
    expect(page.locator("#view-search .card")).to_have_count(24)
    expect(page.locator("#filters-used")).to_be_hidden()


def test_weaker_results_are_left_out_or_marked(visit: Visit) -> None:
    page = opened(visit, "#/search?q=lean-to+greenhouse")
    expect(page.get_by_label("Weaker results")).to_be_disabled()
    page.get_by_label("Relevance at least").select_option("5")
    until(page, PINS, lambda ids: 0 < len(ids) < 24)
    assert page.locator("#view-search .badge.level-5").count() == page.locator("#view-search .card").count()
    page.get_by_label("Weaker results").select_option("Mark")
    expect(page.locator("#view-search .card")).to_have_count(24)
    for one in page.locator("#view-search .card").all():
        assert (one.locator(".is-below").count() == 1) == (one.locator(".badge.level-5").count() == 0)
    expect(page.locator("#view-search .is-below").first).to_have_text("Below the level you chose")


def test_a_chip_takes_its_filter_back_and_hands_the_focus_on(visit: Visit) -> None:
    page = visit(f"{HERBS}&lang=en&level=2&below=mark&diversity=0.4")
    expect(page.locator(USED)).to_have_count(3)
    page.get_by_role("button", name="Remove filter: English").press("Enter")
    expect(page.locator(USED)).to_have_count(2)
    focused = "document.activeElement.dataset.filter ?? document.activeElement.id"
    assert page.evaluate(focused) == "level"
    assert "lang" not in hash_of(page)
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "diversity"
    assert hash_of(page) == {"q": ["balcony herb garden"], "diversity": ["0.4"]}, "what happens to weaker results goes with the level"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "filters-toggle"
    expect(page.locator("#filters-used")).to_be_hidden()
    page.go_back()
    expect(page.locator(USED)).to_have_text(["Remove filter: Diversity 40 %"])


def test_clear_all_takes_everything_back(visit: Visit) -> None:
    page = opened(visit, f"{HERBS}&category=garden&lang=en&board=Greenhouse&since=2024-02-01&level=2&below=mark&diversity=0.4&match=sparse")
    asked = body(page, lambda: page.get_by_role("button", name="Clear all").click())
    assert asked == {"query": "balcony herb garden", "limit": 24, "explain": True, "filters": {}}
    assert hash_of(page) == {"q": ["balcony herb garden"]}
    fields = ("Language", "Match by", "Board", "Created since", "Relevance at least", "Weaker results")
    assert [page.get_by_label(label).input_value() for label in fields] == [""] * len(fields)
    expect(page.locator("#filter-fields output")).to_have_text("off")
    expect(page.get_by_role("button", name="Everything")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("document.activeElement.id") == "filters-toggle"


def test_nothing_found_says_so_and_offers_to_remove_filters(visit: Visit) -> None:
    page = visit("#/search?q=nothing+at+all&lang=de&board=Nowhere")
    expect(page.get_by_role("heading", name="Nothing fits that here")).to_be_visible()
    page.get_by_role("button", name="Remove filters").click()
    expect(page.get_by_role("heading", name="Nothing fits that", exact=True)).to_be_visible()


def test_the_keyboard_alone_opens_sets_and_folds_the_filters(visit: Visit) -> None:
    page = visit(HERBS, width=360, height=740)
    expect(page.locator("#view-search .card").first).to_be_visible()
    page.locator("#filters-toggle").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#filters-toggle")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    order = []
    for _ in range(40):
        order.append(page.evaluate("document.activeElement.id"))
        if order[-1].startswith("diversity"):
            break
        page.keyboard.press("Tab")
    assert list(dict.fromkeys(order))[:5] == ["lang", "match", "board", "since", "level"], "weaker results wait for a level"
    assert body(page, lambda: page.keyboard.press("End"))["diversity"] == 1
    page.keyboard.press("Escape")
    expect(page.locator("#filter-fields")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "filters-toggle"


def test_what_is_being_typed_survives_an_answer(visit: Visit) -> None:
    page = opened(visit)
    page.get_by_label("Board").press_sequentially("Green")
    page.evaluate("""() => { history.pushState(null, "", "#/search?q=bread"); dispatchEvent(new PopStateEvent("popstate")); }""")
    expect(page.locator(".quoted")).to_have_text("bread")
    expect(page.get_by_label("Board")).to_have_value("Green")


def test_related_pins_keep_to_language_and_category_or_spread(visit: Visit, fake: FakeEverpin) -> None:
    page = visit(f"{HERBS}&pin=garden-012")
    panel = page.locator("#panel")
    expect(panel.locator(".row")).to_have_count(8)
    address = "**/v1/pins/garden-012/related?**"
    lang = query_of(page, address, lambda: panel.get_by_role("button", name="Same language").click())
    assert lang == {"limit": ["8"], "lang": ["en"]}
    both = query_of(page, address, lambda: panel.get_by_role("button", name="Same category").click())
    assert both == {"limit": ["8"], "lang": ["en"], "category": ["garden"]}
    rows = "[...document.querySelectorAll('#panel .row')].map((row) => row.dataset.pin)"
    found = until(page, rows, lambda ids: len(ids) == 8 and all(fake.pins[pin_id].card.category == "garden" for pin_id in ids))
    assert {fake.pins[pin_id].card.lang for pin_id in found} == {"en"}
    varied = query_of(page, address, lambda: panel.get_by_role("button", name="More varied").click())
    assert varied["diversity"] == ["0.5"]
    assert hash_of(page)["related"] == ["lang,category,varied"]
    more = query_of(page, address, lambda: panel.get_by_role("button", name="More like this").click())
    assert more == varied | {"cursor": ["8"]}
    again = query_of(page, address, page.reload)
    assert again == varied, "the address alone restores the choice"
    expect(panel.get_by_role("button", name="More varied")).to_have_attribute("aria-pressed", "true")
    panel.get_by_role("button", name="Close the pin").click()
    assert "related" not in hash_of(page)


def test_the_feeds_diversity_is_asked_for_and_kept_in_the_address(visit: Visit) -> None:
    page = visit("#/feed?user=user-01")
    expect(page.locator("#view-feed .card")).to_have_count(24)
    slider = page.locator("#view-feed").get_by_label("Diversity")
    address = "**/v1/users/user-01/feed?**"
    slider.focus()
    assert query_of(page, address, lambda: page.keyboard.press("End")) == {"limit": ["24"], "diversity": ["1"]}
    expect(slider).to_have_attribute("aria-valuetext", "100 %")
    assert hash_of(page)["diversity"] == ["1"]
    more = query_of(page, address, lambda: page.locator("#view-feed").get_by_role("button", name="Show more").click())
    assert (more["diversity"], more["cursor"]) == (["1"], ["24"])
    again = query_of(page, address, page.reload)
    assert again["diversity"] == ["1"]
    slider.focus()
    assert "diversity" not in query_of(page, address, lambda: page.keyboard.press("Home"))
    assert "diversity" not in hash_of(page)

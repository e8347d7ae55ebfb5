"""The page for everybody: axe-core finds nothing, the keyboard does everything, 360 px are enough, contrast holds in light and dark."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit, until

HERBS = "#/search?q=balcony+herb+garden"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}
SCREENS = {
    "newest": ("", "#view-search .card"),
    "results": (HERBS, "#view-search .badge"),
    "filtered": (f"{HERBS}&lang=en&since=2024-05-01&level=5&below=mark&diversity=0.3", "#view-search .is-below"),
    "panel": (f"{HERBS}&pin=garden-012&related=lang,varied", "#panel .row"),
    "feed": ("#/feed?user=user-01", "#view-feed .interest"),
    "map": ("#/map", ".legend .chip"),
}


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['html'][:160]} {node['failureSummary']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing(visit: Visit, screen: str, width: int, scheme: str) -> None:
    address, ready = SCREENS[screen]
    page = visit(address, width=width, height=800, scheme=scheme)
    expect(page.locator(ready).first).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_in_the_open_filters(visit: Visit, width: int, scheme: str) -> None:
    page = visit(f"{HERBS}&lang=en&board=Greenhouse&level=3", width=width, height=800, scheme=scheme)
    expect(page.locator("#filters-used")).to_be_visible()
    page.locator("#filters-toggle").click()
    expect(page.locator("#filter-fields .slider")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_while_a_title_is_edited_and_when_it_arrived(visit: Visit, scheme: str) -> None:
    page = visit(f"{HERBS}&pin=garden-012", scheme=scheme)
    page.get_by_role("button", name="Edit title").click()
    assert violations(page) == []
    page.get_by_label("Title", exact=True).fill("Balcony herb garden")
    page.get_by_role("button", name="Save title").click()
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3)
    page.locator(".facts summary").first.click()
    assert violations(page) == []


def test_the_keyboard_alone_searches_opens_edits_and_closes(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#view-search .card")).to_have_count(24)
    press, typed = page.keyboard.press, page.keyboard.type
    press("/")
    typed("balcony herb garden")
    press("Enter")
    expect(page.locator(".quoted")).to_have_text("balcony herb garden")
    press("ArrowDown")
    first, second = [card.get_attribute("data-pin") for card in page.locator("#view-search .card").all()[:2]]
    focused = "document.activeElement.closest('.card')?.dataset.pin"
    assert page.evaluate(focused) == first
    press("ArrowRight")
    assert page.evaluate(focused) == second
    press("ArrowLeft")
    press("ArrowDown")
    assert page.evaluate(focused) not in {first, second}
    press("ArrowUp")
    press("Enter")
    expect(page.locator("#panel h2")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "panel-close"
    for _ in range(2):
        press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Edit title"
    press("Enter")
    typed("Herbs for a balcony")
    press("Enter")
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3)
    assert page.evaluate("document.activeElement.textContent") == "Edit title"
    press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.evaluate(focused) == first, "focus is back on the card that was opened"


def test_escape_while_editing_leaves_the_edit_and_not_the_panel(visit: Visit) -> None:
    for width in (1280, 360):
        page = visit(f"{HERBS}&pin=garden-012", width=width)
        page.get_by_role("button", name="Edit title").click()
        page.keyboard.press("Escape")
        expect(page.locator("#title")).to_have_count(0)
        expect(page.locator("#panel")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#panel")).to_be_hidden()


def test_on_a_phone_the_panel_keeps_the_focus(visit: Visit) -> None:
    page = visit(f"{HERBS}&pin=garden-012", width=360, height=740)
    expect(page.locator("#panel .row")).to_have_count(8)
    for _ in range(40):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || Boolean(document.activeElement.closest('#panel'))")


def test_map_points_stand_out_by_shape_and_contrast(visit: Visit) -> None:
    page = visit()
    script = """async () => {
      const { look } = await import("/web/categories.js");
      const { SHAPES } = await import("/web/shapes.js");
      const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
      const part = (hex, i) => linear(parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16) / 255);
      const light = (hex) => 0.2126 * part(hex, 0) + 0.7152 * part(hex, 1) + 0.0722 * part(hex, 2);
      const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
      const looks = ["home", "food", "garden", "fashion", "travel", "craft", ...Array.from({ length: 60 }, (_, i) => `other ${i}`)].map(look);
      const least = Math.min(...looks.map((one) => Math.min(contrast(one.light, "#ffffff"), contrast(one.dark, "#1b1e1a"))));
      return [least, new Set(looks.slice(0, 6).map((one) => one.shape)).size, looks.every((one) => SHAPES[one.shape])];
    }"""
    least, shapes, known = page.evaluate(script)
    assert least >= 3, "WCAG 1.4.11"
    assert (shapes, known) == (6, True)


def test_less_motion_moves_nothing(visit: Visit) -> None:
    page = visit(HERBS, motion="reduce")
    expect(page.locator("#view-search .card")).to_have_count(24)
    long = "document.getAnimations().filter((one) => one.effect.getComputedTiming().duration > 50).length"
    until(page, long, lambda count: count == 0)
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).transitionDuration.split(', ').every((one) => parseFloat(one) < 0.05)")


def test_pages_differ_in_light_and_dark(visit: Visit) -> None:
    grounds = [visit(scheme=scheme).evaluate("getComputedStyle(document.documentElement).backgroundColor") for scheme in ("light", "dark")]
    assert grounds == ["rgb(251, 249, 245)", "rgb(19, 21, 18)"]

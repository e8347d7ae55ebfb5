"""The embedding map: drawn, pointed at, walked by keyboard, filtered, and thousands of points fast enough."""

from __future__ import annotations

import json
import random

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit, until

PIXELS = """() => {
  const canvas = document.querySelector("#view-map canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  let drawn = 0;
  for (let i = 3; i < data.length; i += 4) drawn += data[i] > 40;
  return drawn;
}"""


def drawn(page: Page) -> int:
    return int(until(page, PIXELS, lambda pixels: pixels > 1000))


def test_every_category_is_in_the_legend_and_can_be_switched_off(visit: Visit) -> None:
    page = visit("#/map")
    expect(page.locator(".legend .chip")).to_have_count(6)
    before = drawn(page)
    for chip in page.locator(".legend .chip").all()[1:]:
        chip.click()
    until(page, PIXELS, lambda pixels: pixels < before // 2)
    expect(page.get_by_role("button", name="Craft 65")).to_have_attribute("aria-pressed", "true")


def test_hover_names_a_pin_and_a_click_opens_it(visit: Visit) -> None:
    page = visit("#/map")
    drawn(page)
    box = page.locator(".map-frame").bounding_box()
    assert box
    tip = page.locator(".map-tip")
    for step in range(120):
        page.mouse.move(box["x"] + box["width"] * (0.15 + 0.7 * step / 120), box["y"] + box["height"] * 0.5)
        if tip.is_visible():
            break
    expect(tip).to_be_visible()
    title = tip.locator("strong").inner_text()
    page.mouse.down()
    page.mouse.up()
    expect(page.locator("#panel h2")).to_have_text(title)


def test_the_keyboard_walks_from_pin_to_pin_and_opens_one(visit: Visit) -> None:
    page = visit("#/map")
    drawn(page)
    page.locator(".map-frame").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator(".map-tip strong").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.keyboard.press("ArrowDown")
    second = page.locator(".map-tip strong").inner_text()
    assert second != first
    assert second in page.locator("#said").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text(second)
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.evaluate("document.activeElement.className").startswith("map-frame")


def test_a_search_rings_what_it_finds(visit: Visit) -> None:
    page = visit("#/map")
    before = drawn(page)
    page.locator("#query").fill("bread")
    expect(page.locator("#said")).to_have_text("40 pins ringed for bread")
    until(page, PIXELS, lambda pixels: pixels != before)
    assert "#/map?q=bread" in page.url


def test_five_thousand_points_are_drawn_within_a_few_frames(visit: Visit) -> None:
    chance = random.Random(7)
    categories = ["home", "food", "garden", "fashion", "travel", "craft", "boats"]
    points = [
        {"pin_id": f"p{i}", "title": f"Pin {i}", "lang": "en", "category": chance.choice(categories), "x": chance.uniform(-1, 1), "y": chance.uniform(-1, 1)}
        for i in range(5000)
    ]
    head = {"request_id": "r", "model_id": "m", "collection": "c", "timings_ms": {"total": 1.0}, "projection": "p", "made_at": "2026-10-01T12:00:00Z"}

    def answer(route: Route) -> None:
        route.fulfill(body=json.dumps(head | {"points": points}), content_type="application/json")

    page = visit()
    page.route("**/v1/map", answer)
    page.get_by_role("link", name="Map").click()
    expect(page.locator("#view-map .meta")).to_contain_text("5,000 pins")
    drawn(page)
    script = """async () => {
      const frame = document.querySelector(".map-frame");
      const times = [];
      for (let i = 0; i < 12; i += 1) {
        const started = performance.now();
        frame.dispatchEvent(new WheelEvent("wheel", { deltaY: -20, clientX: 500, clientY: 400, cancelable: true }));
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        times.push(performance.now() - started);
      }
      return times.sort((a, b) => a - b)[6];
    }"""
    assert page.evaluate(script) < 400, "median milliseconds of a zoom step, two frames, software rendering"

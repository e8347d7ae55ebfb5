"""The page on the whole system: a title edited in the page goes through Kafka, Feast, the student and Qdrant, and the list changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from everpin.settings import Settings
from everpin.system import running_system, serving
from tests.browser.conftest import Visit, Watch, until
from tests.e2e.conftest import eventually
from tests.faults.processes import command

EMBEDDED_S = 30_000
TITLE = "Balcony herb garden in small pots"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Everything on embedded parts, with the sample pins embedded; the page's URL."""
    config = Settings(home=tmp_path_factory.mktemp("home"), port=0)
    log = config.home / "log"
    with running_system(config, log), serving(config, log) as page:
        environment = {"EVERPIN_HOME": str(config.home), "PATH": "/usr/bin:/bin", "HOME": str(config.home)}
        done = command(["import", "jsonl", "everpin/sample/pins.jsonl", "--json"], environment)
        assert done.returncode == 0, done.stderr
        eventually(lambda: len(httpx.get(f"{page.url}/v1/map").json()["points"]) > 390, "the sample is searchable", timeout_s=60)
        yield page.url


def test_an_edited_title_changes_the_results_within_seconds(real: str, blank: Visit, watch: Watch) -> None:
    page = blank()
    page.goto(f"{real}/#/search?q=balcony+herb+garden")
    expect(page.locator("#view-search .badge").first).to_be_visible()
    edited = page.locator("#view-search .card").nth(9)
    pin_id = edited.get_attribute("data-pin")
    edited.locator(".card-open").click()
    expect(page.locator("#panel .row").first).to_be_visible()
    page.get_by_role("button", name="Edit title").click()
    page.get_by_label("Title", exact=True).fill(TITLE)
    page.get_by_role("button", name="Save title").click()
    expect(page.locator("#panel .trail li.is-done")).to_have_count(3, timeout=EMBEDDED_S)
    expect(page.locator("#panel .outcome")).to_have_text(re.compile(r"It went from place 10 to [1-5]\."))
    expect(page.locator("#panel .age-words")).to_contain_text("because its text changed in meaning")
    expect(page.locator(f'.card[data-pin="{pin_id}"] .card-title')).to_have_text(TITLE)
    watch.check(urlsplit(real).netloc)


def test_a_save_reaches_the_home_feed_within_seconds(real: str, blank: Visit, watch: Watch) -> None:
    page = blank()
    page.goto(f"{real}/#/feed?user=somebody-new")
    expect(page.locator("#view-feed .meta")).to_contain_text("No history yet")
    card = page.locator("#view-feed .card").first
    card.hover()
    card.get_by_role("button", name="Save").click()
    expect(page.locator(".toast.is-good")).to_contain_text("Feed followed after", timeout=EMBEDDED_S)
    expect(page.locator(".interest")).to_have_count(1)
    watch.check(urlsplit(real).netloc)


def test_the_map_and_a_pins_story_are_of_the_live_model(real: str, blank: Visit, watch: Watch) -> None:
    page = blank()
    page.goto(f"{real}/#/map")
    expect(page.locator(".legend .chip")).to_have_count(6)
    expect(page.locator("#view-map .facts summary")).to_contain_text("everpin-l6")
    page.goto(f"{real}/#/search?pin=food-001")
    expect(page.locator("#panel .age-words")).to_contain_text("because the pin was not in the index")
    until(page, "document.querySelectorAll('#panel .row').length", lambda rows: rows > 0)
    watch.check(urlsplit(real).netloc)


def test_filters_and_diversity_of_the_page_are_those_of_the_api(real: str, blank: Visit, watch: Watch) -> None:
    page = blank()
    page.goto(f"{real}/#/search?q=raised+bed+for+vegetables&lang=en&board=Vegetable+garden&since=2024-02-19&level=2&diversity=0.5")
    expect(page.locator("#view-search .badge").first).to_be_visible()
    ids = [str(card.get_attribute("data-pin")) for card in page.locator("#view-search .card").all()]
    found = [httpx.get(f"{real}/v1/pins/{pin_id}").json()["pin"] for pin_id in ids]
    assert all("Vegetable garden" in pin["boards"] and pin["lang"] == "en" and pin["created_at"] >= "2024-02-19" for pin in found)
    assert "garden-001" not in ids, "it is on the board, and a day older"
    page.get_by_role("button", name="Remove filter: Since 19 Feb 2024").click()
    expect(page.locator('#view-search .card[data-pin="garden-001"]')).to_be_visible()
    page.goto(f"{real}/#/search?pin=garden-012&related=lang,category,varied")
    expect(page.locator("#panel .row").first).to_be_visible()
    page.goto(f"{real}/#/feed?user=user-01&diversity=0.5")
    expect(page.locator("#view-feed .card").first).to_be_visible()
    watch.check(urlsplit(real).netloc)

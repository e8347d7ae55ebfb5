"""The home feed in the page: switch users, see interests, and see the feed follow a save."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.fake import FakeEverpin


def test_switching_the_user_switches_the_interests(visit: Visit) -> None:
    page = visit("#/feed")
    expect(page.locator("#user")).to_have_value("user-01")
    expect(page.locator(".interest")).to_have_count(3)
    expect(page.locator("#view-feed .card")).to_have_count(24)
    assert page.locator("#users option").count() == 40
    page.locator("#user").fill("user-02")
    page.locator("#user").press("Enter")
    expect(page.locator(".interest")).to_have_count(2)
    expect(page.locator(".interest-facts").first).to_have_text("67 % · 2 pins")
    assert "user=user-02" in page.url
    page.locator("#user").fill("a new person")
    page.get_by_role("button", name="Switch").click()
    expect(page.locator("#view-feed .meta")).to_contain_text("No history yet")
    expect(page.locator("#view-feed .interests")).to_be_hidden()


def test_each_pin_says_why_and_an_interest_can_be_looked_at_alone(visit: Visit) -> None:
    page = visit("#/feed?user=user-01")
    expect(page.locator("#view-feed .why").first).to_contain_text("Like ")
    page.locator(".interest").first.click()
    expect(page.locator(".interest").first).to_have_attribute("aria-pressed", "true")
    dim, bright = page.locator("#view-feed .card.is-dim").count(), page.locator("#view-feed .card:not(.is-dim)").count()
    assert dim > 0
    assert bright > 0
    page.locator(".interest").first.click()
    expect(page.locator("#view-feed .card.is-dim")).to_have_count(0)


def test_a_save_changes_the_feed_before_the_eyes(visit: Visit, fake: FakeEverpin) -> None:
    page = visit("#/feed?user=user-02")
    card = page.locator("#view-feed .card").first
    saved = card.get_attribute("data-pin")
    card.hover()
    card.get_by_role("button", name="Save").click()
    expect(page.locator(".toast.is-good")).to_contain_text("Feed followed after")
    expect(page.locator(f'#view-feed .card[data-pin="{saved}"]')).to_have_count(0)
    expect(page.locator("#view-feed .card-move").first).to_be_visible()
    assert fake.actions == [("user-02", saved, "save")]
    assert saved in fake.showed[fake.named[0] or ""]


def test_opening_a_pin_of_the_feed_is_a_click(visit: Visit, fake: FakeEverpin) -> None:
    page = visit("#/feed?user=user-02")
    opened = page.locator("#view-feed .card").nth(2).get_attribute("data-pin")
    page.locator("#view-feed .card-open").nth(2).click()
    expect(page.locator("#panel h2")).to_be_visible()
    expect(page.locator(".toast.is-good")).to_be_visible()
    assert fake.actions == [("user-02", opened, "click")]
    assert opened in fake.showed[fake.named[0] or ""]

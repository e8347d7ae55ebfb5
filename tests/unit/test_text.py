from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.features import PinFeatures
from pins.text import BUDGETS, MAX_BOARDS, MAX_FIELD_CHARS, MAX_QUERIES, PinText, choose_boards, choose_queries, clean, cut, render

MARKS = st.sampled_from(list('<>/!-&#;" aB,日本\u200d\ufe0f'))
ANY_TEXT = st.text(st.characters(codec="utf-8") | st.characters(categories=["Cs", "Cc", "Cf"]) | MARKS, max_size=60)
PLAIN = st.text(st.characters(categories=["L", "N", "Zs", "Po"], exclude_characters="&＆﹠"), max_size=60)

FULL = PinFeatures(
    "p1",
    title="Red <b>chair</b>",
    description="A chair for the sea side.",
    caption="a red wooden chair on a beach",
    board_titles=("Beach house", "beach house", "Chairs"),
    engaged_queries=(("red chair", 3.0), ("beach chair", 7.0)),
    link_title="The chair shop",
    link_description="Chairs, made to last",
)
PLAIN_FULL = replace(FULL, title="Red chair", description="A chair for the sea side")
"""The same pin without what rendering takes away."""


def test_a_pin_is_rendered_one_sentence_per_field_in_a_fixed_order() -> None:
    assert render(FULL).text == (
        "Red chair. a red wooden chair on a beach. Beach house, Chairs. beach chair, red chair. The chair shop. A chair for the sea side. Chairs, made to last"
    )
    assert render(FULL).boards == ("Beach house", "Chairs")


def test_a_field_that_ends_in_a_stop_gets_no_second_one() -> None:
    assert render(PinFeatures("p1", title="Red chair...", caption="for two ,", description="Buy now!")).text == "Red chair. for two. Buy now!"


@pytest.mark.parametrize("nothing", ["", " \n ", "<p></p>", "...", " . , .", "\x00\u200b", "&nbsp;"])
def test_a_field_without_words_leaves_no_sentence(nothing: str) -> None:
    assert render(PinFeatures("p1", title=nothing, caption=nothing, description="soup", link_title=nothing)).text == "soup"


def test_an_empty_pin_gives_a_falsy_text() -> None:
    empty = render(PinFeatures("p1", category="food", save_count=7))
    assert not empty
    assert empty == PinText("", ())
    assert render(PinFeatures("p1", title="x"))


CLEANED = [
    pytest.param("<p>Red <b>chair</b></p>", "Red chair", id="tags"),
    pytest.param("red<br/>chair<BR>oak", "red chair oak", id="tags between words part them"),
    pytest.param('see <a href="http://x.com/?a=1&b=2">this</a>', "see this", id="a tag with attributes"),
    pytest.param("Tom &amp; Jerry&nbsp;&#8212; caf&eacute;", "Tom & Jerry — café", id="entities"),
    pytest.param("&lt;b&gt;bold&lt;/b&gt;", "bold", id="tags written as entities"),
    pytest.param("&amp;lt;", "&lt;", id="an entity is read once"),
    pytest.param("&#" + "1" * 5_000 + ";x", "\ufffdx", id="a character reference of 5,000 digits"),
    pytest.param("&#0000000065;", "A", id="a character reference with leading zeros"),
    pytest.param("&#x110000;&#xD800;", "\ufffd\ufffd", id="references to no character"),
    pytest.param("before<script>if (a < b) alert(1)</script>after", "before after", id="a script and what it holds"),
    pytest.param("before<STYLE type='css'>p > b {color: red}</Style >after", "before after", id="a style sheet in capitals"),
    pytest.param("a<!-- hidden > words\nover lines -->b", "a b", id="a comment"),
    pytest.param("a < b and c > d", "a < b and c > d", id="comparisons"),
    pytest.param("I <3 you", "I <3 you", id="a heart of characters"),
    pytest.param("<- back, 5 <6", "<- back, 5 <6", id="arrows and numbers"),
    pytest.param("unfinished <b", "unfinished <b", id="a tag without end"),
    pytest.param("red\x00chair\x07\x1b[31m", "red chair [31m", id="control characters part words"),
    pytest.param(" red\r\n\t  chair\u3000oak\u2028ash ", "red chair oak ash", id="white space"),
    pytest.param("re\u200bd cha\u00adir \u202eoak\ufeff", "red chair oak", id="invisible characters"),
    pytest.param("👩\u200d🍳 and ❤\ufe0f", "👩\u200d🍳 and ❤\ufe0f", id="joined emoji"),
    pytest.param("ﬁne Ｒｅｄ ① Ⅳ", "fine Red 1 IV", id="compatibility characters"),
    pytest.param("cafe\u0301", "café", id="composed accents"),
    pytest.param("＜b＞bold", "<b>bold", id="full-width brackets are text, not tags"),
    pytest.param("a\ud800b\udfffc", "abc", id="lone surrogates"),
    pytest.param("a\ue000b\U0010ffffc", "abc", id="private and unassigned characters"),
    pytest.param("日本語 العربية ไทย", "日本語 العربية ไทย", id="other scripts"),
    pytest.param("", "", id="nothing"),
]


@pytest.mark.parametrize(("raw", "expected"), CLEANED)
def test_text_is_cleaned(raw: str, expected: str) -> None:
    assert clean(raw) == expected


def test_only_the_start_of_a_giant_field_is_looked_at() -> None:
    assert clean("x" * (MAX_FIELD_CHARS + 5)) == "x" * MAX_FIELD_CHARS


@given(ANY_TEXT)
def test_any_text_cleans_to_one_line_that_has_a_utf_8_form(raw: str) -> None:
    text = clean(raw)
    assert text.encode().decode() == text
    assert " ".join(text.split()) == text


@given(PLAIN)
def test_cleaning_text_without_markup_twice_changes_nothing(raw: str) -> None:
    assert clean(clean(raw)) == clean(raw)


CUTS = [
    pytest.param("red chair by the sea", 3, "red chair by", id="whole words"),
    pytest.param("red chair by the sea", 5, "red chair by the sea", id="all of it"),
    pytest.param("red chair", 0, "", id="no budget"),
    pytest.param("", 3, "", id="nothing to cut"),
    pytest.param("wooden benches", 2, "wooden", id="a word of six letters costs one, of seven two"),
    pytest.param("wooden benches", 3, "wooden benches", id="three tokens for both"),
    pytest.param("internationalization now", 3, "", id="a first word beyond the budget"),
    pytest.param("soups, stews, pies", 2, "soups", id="no comma is left at the end"),
    pytest.param("a_b", 2, "a_", id="an underline is a mark"),
    pytest.param("東京タワーの夜景", 5, "東京タワー", id="CJK is cut per character"),
    pytest.param("abc東京", 4, "abc東", id="a word with CJK in it is cut per character"),
    pytest.param("ひらがな", 2, "ひら", id="hiragana"),
    pytest.param("𠮷野家", 1, "𠮷", id="characters beyond the basic plane"),
]


@pytest.mark.parametrize(("text", "budget", "expected"), CUTS)
def test_text_is_cut_to_its_budget(text: str, budget: int, expected: str) -> None:
    assert cut(text, budget) == expected


@given(ANY_TEXT.map(clean), st.integers(0, 12))
def test_a_cut_is_a_start_of_the_text_that_fits_and_a_larger_budget_keeps_more(text: str, budget: int) -> None:
    short = cut(text, budget)
    assert text.startswith(short)
    assert cut(short, budget) == short
    assert cut(text, budget + 1).startswith(short)
    assert cut(text, len(text)) == text


HUGE = "endless words " * 80_000


@pytest.mark.parametrize("name", ["title", "description", "caption", "link_title", "link_description"])
def test_a_megabyte_in_one_field_pushes_no_other_field_out(name: str) -> None:
    giant, whole = render(replace(FULL, **{name: HUGE})).text, render(FULL).text
    short = cut(HUGE, BUDGETS[name])
    assert giant == whole.replace(getattr(PLAIN_FULL, name), short)
    assert short in giant
    assert 0 < len(short) < len(HUGE) / 1000


def test_giant_boards_and_queries_keep_to_their_budgets_too() -> None:
    giant = render(PinFeatures("p1", title="chair", board_titles=(HUGE, "Beach house"), engaged_queries=((HUGE, 9.0), ("beach chair", 1.0)), link_title="shop"))
    title, boards, queries, link_title = giant.text.split(". ")
    assert (title, link_title) == ("chair", "shop")
    assert boards == cut(HUGE, BUDGETS["boards"])
    assert queries == cut(HUGE, BUDGETS["queries"])


LISTS = st.lists(st.sampled_from(["Soup", "soup", "SOUP ", "Winter soups", "winter Soups", "My stuff", "日本", "", "é", "e\u0301", "<b>soup</b>"]), max_size=8)
QUERIES = st.lists(st.tuples(st.sampled_from(["soup", "Soup", " soup", "stew", "pie", "", "日本"]), st.floats(-1e6, 1e6)), max_size=8)


@given(st.data(), LISTS, QUERIES)
def test_the_order_of_lists_never_matters(data: st.DataObject, boards: list[str], queries: list[tuple[str, float]]) -> None:
    shuffled = data.draw(st.permutations(boards)), data.draw(st.permutations(queries))
    first = render(PinFeatures("p1", board_titles=tuple(boards), engaged_queries=tuple(queries)))
    assert render(PinFeatures("p1", board_titles=tuple(shuffled[0]), engaged_queries=tuple(shuffled[1]))) == first


@given(st.builds(PinFeatures, st.just("p1"), ANY_TEXT, ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=3).map(tuple),
                 st.lists(st.tuples(ANY_TEXT, st.floats(0, 1e9)), max_size=3).map(tuple), ANY_TEXT, ANY_TEXT))  # fmt: skip
def test_any_pin_renders_to_text_that_has_a_utf_8_form(pin: PinFeatures) -> None:
    rendered = render(pin)
    assert rendered.text.encode().decode() == rendered.text
    assert all(board.encode().decode() == board for board in rendered.boards)
    assert "\n" not in rendered.text
    assert rendered.text == rendered.text.rstrip(" .,").lstrip()


BOARDS = [
    pytest.param(["Soup", "soup", "Winter soups", "My stuff"], ("Soup", "Winter soups", "My stuff"), id="the title most boards share comes first"),
    pytest.param(["My stuff", "Winter soups"], ("Winter soups", "My stuff"), id="then the longer title of as many words"),
    pytest.param(["Soups", "My own soup"], ("My own soup", "Soups"), id="then the title of more words"),
    pytest.param(["bb", "aa"], ("aa", "bb"), id="then the alphabet"),
    pytest.param(["Fall soups", "Soups", "Soups pies", "zz"], ("Soups", "Fall soups", "Soups pies", "zz"), id="words of other boards count too"),
    pytest.param(["soup", "Soup", "SOUP"], ("SOUP",), id="one title in any case, shown in its first writing"),
    pytest.param(["", " ", "<br>", "Soup"], ("Soup",), id="empty titles are left out"),
    pytest.param(["soup soup", "pie cake", "pie"], ("pie", "pie cake", "soup soup"), id="a repeated word does not count twice for its board"),
    pytest.param([], (), id="no boards"),
]


@pytest.mark.parametrize(("titles", "expected"), BOARDS)
def test_board_titles_are_chosen_by_agreement(titles: Sequence[str], expected: tuple[str, ...]) -> None:
    assert choose_boards(titles) == expected


def test_at_most_ten_boards_are_chosen_and_noise_falls_off() -> None:
    agreed = [f"soup {word}" for word in "abcdefghij"]
    assert set(choose_boards([*agreed, "misc one", "private joke"])) == set(agreed)
    assert len(agreed) == MAX_BOARDS


def test_queries_are_ranked_by_engagement_with_equal_ones_added() -> None:
    queries = [("Soup", 2.0), ("stew", 3.0), (" soup", 2.0), ("pie", 3.0), ("", 99.0), ("<br>", 99.0)]
    assert choose_queries(queries) == ("soup", "pie", "stew")


def test_counts_are_added_in_one_order_whatever_order_they_come_in() -> None:
    queries = [("soup", 0.1), ("soup", 0.2), ("soup", 0.3), ("pie", 0.6), ("stew", 0.6000000000000001)]
    assert {choose_queries(order) for order in permutations(queries)} == {choose_queries(queries)}


def test_at_most_twenty_queries_are_chosen() -> None:
    chosen = choose_queries([(f"query {n:02d}", float(n)) for n in range(30)])
    assert chosen == tuple(f"query {n:02d}" for n in range(29, 9, -1))
    assert len(chosen) == MAX_QUERIES


def test_the_fields_whose_length_their_authors_choose_come_last() -> None:
    assert list(BUDGETS)[-2:] == ["description", "link_description"], "a full window cuts them off, not boards and queries"
    assert sum(BUDGETS.values()) < 256
    kept = sum(BUDGETS.values()) - BUDGETS["description"] - BUDGETS["link_description"]
    assert kept * 1.7 < 256, "what comes before them fits the window in any language"

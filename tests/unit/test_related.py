from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest

from pins.errors import PinNotFound
from pins.ports import Where
from pins.retrieval.related import CATEGORY_BONUS, COSAVE_HALF, RELATED_COSINE, Related, RelatedOptions, related_pins
from pins.retrieval.results import SAME_PIN_COSINE
from tests.fakes import FakeIndex
from tests.unit.space import at, bury, ids, index_of, put


def test_related_pins_are_the_nearest_without_the_pin_itself() -> None:
    index = index_of({"p": at(0), "far": at(1), "near": at(0, 0.9), "nearer": at(0, 0.95, beside=6)})
    answer = related_pins("p", index)
    assert answer.pin.pin_id == "p"
    assert ids(answer.results) == ["nearer", "near", "far"]
    assert [found.cosine for found in answer.results] == pytest.approx([0.95, 0.9, 0.0])
    assert [found.score for found in answer.results] == [found.cosine for found in answer.results]
    assert answer.results[0].hit.fields["title"] == "title of nearer"
    assert ids(related_pins("p", index, RelatedOptions(where=Where(without=frozenset({"nearer"})))).results) == ["near", "far"]


def test_an_answer_is_as_deep_as_asked_for_and_never_less_than_a_page() -> None:
    index = index_of({"p": at(0)} | {f"n{n}": at(0, 0.9 - n / 10, beside=n + 1) for n in range(4)})
    assert ids(related_pins("p", index, RelatedOptions(limit=1, depth=2)).results) == ["n0", "n1"]
    assert ids(related_pins("p", index, RelatedOptions(limit=3, depth=2)).results) == ["n0", "n1", "n2"]


def test_near_duplicates_of_the_pin_and_of_one_another_are_folded_and_named() -> None:
    index = index_of({"p": at(0), "copy of p": at(0, 0.999), "a": at(0, 0.8), "copy of a": at(0, 0.79), "b": at(0, 0.7, beside=5)})
    assert float(at(0, 0.8) @ at(0, 0.79)) >= SAME_PIN_COSINE
    answer = related_pins("p", index)
    assert [(found.pin_id, found.duplicates) for found in answer.results] == [("a", ("copy of a",)), ("b", ())]
    assert answer.duplicates == ("copy of p",)


def test_a_pin_embedded_a_moment_ago_is_a_source_and_a_result() -> None:
    index = index_of({"p": at(0), "a": at(0, 0.9)})
    assert ids(related_pins("p", index).results) == ["a"]
    put(index, "new", at(0, 0.95, beside=5))
    assert ids(related_pins("p", index).results) == ["new", "a"]
    assert ids(related_pins("new", index).results) == ["p", "a"]
    put(index, "new", at(1))
    assert ids(related_pins("p", index).results) == ["a", "new"]
    bury(index, "new")
    assert ids(related_pins("p", index).results) == ["a"]


@pytest.mark.parametrize(
    ("pin_id", "reason", "says"),
    [("unknown", "unknown", "never had an event"), ("deleted", "deleted", "was deleted"), ("textless", "no_text", "has no text to embed")],
)
def test_a_pin_that_cannot_be_a_source_says_why(pin_id: str, reason: str, says: str) -> None:
    index = index_of({"p": at(0), "deleted": at(1), "textless": None})
    bury(index, "deleted")
    with pytest.raises(PinNotFound, match=f"'{pin_id}'.*{says}") as raised:
        related_pins(pin_id, index)
    assert raised.value.reason == reason


def test_a_pin_alone_has_no_related_pins() -> None:
    answer = related_pins("p", index_of({"p": at(0)}))
    assert (answer.results, answer.duplicates) == ([], ())


@pytest.fixture
def two_languages() -> FakeIndex:
    index = index_of({"p": at(0)})
    put(index, "near de", at(0, 0.95, beside=1), lang="de")
    put(index, "en", at(0, 0.7, beside=2))
    put(index, "far en", at(0, RELATED_COSINE - 0.1, beside=3))
    put(index, "far de", at(0, RELATED_COSINE - 0.05, beside=4), lang="de")
    put(index, "no language", at(0, 0.6, beside=5), lang="")
    return index


def test_another_language_follows_where_the_pins_own_has_no_more_that_is_related(two_languages: FakeIndex) -> None:
    found = related_pins("p", two_languages).results
    assert ids(found) == ["en", "no language", "near de", "far de", "far en"]
    assert found[2].why == "very close in meaning, in another language (de)"


def test_a_filter_on_the_language_overrides_the_rule(two_languages: FakeIndex) -> None:
    assert ids(related_pins("p", two_languages, RelatedOptions(where=Where(lang="de"))).results) == ["near de", "far de"]


def test_pins_of_another_language_do_not_crowd_out_those_of_the_own(two_languages: FakeIndex) -> None:
    assert ids(related_pins("p", two_languages, RelatedOptions(limit=1, depth=1)).results) == ["en"]


def test_of_a_pin_without_a_language_every_language_is_its_own() -> None:
    index = index_of({"p": at(0)}, lang="")
    put(index, "de", at(0, 0.9, beside=1), lang="de")
    put(index, "en", at(0, 0.8, beside=2))
    assert ids(related_pins("p", index).results) == ["de", "en"]


def test_a_category_in_common_decides_between_pins_about_as_near() -> None:
    index = index_of({"p": at(0)}, category="garden")
    put(index, "a little nearer", at(0, 0.8 + CATEGORY_BONUS / 2, beside=1), category="food")
    put(index, "same category", at(0, 0.8, beside=2), category="garden")
    put(index, "much nearer", at(0, 0.8 + 2 * CATEGORY_BONUS, beside=3))
    found = related_pins("p", index).results
    assert ids(found) == ["much nearer", "same category", "a little nearer"]
    assert found[1].why == "very close in meaning, both in garden"
    assert ids(related_pins("p", index, RelatedOptions(where=Where(category="food"))).results) == ["a little nearer"]


def test_what_people_saved_together_moves_up_and_says_so() -> None:
    index = index_of({"p": at(0), "near": at(0, 0.8, beside=1), "saved": at(0, 0.7, beside=2)})
    options = RelatedOptions(cosave_weight=0.3)
    found = related_pins("p", index, options, {"saved": COSAVE_HALF, "stranger": 90.0}).results
    assert ids(found) == ["saved", "near"]
    assert found[0].score == pytest.approx(0.7 + 0.3 / 2)
    assert (found[0].cosaves, found[0].why, found[1].cosaves) == (COSAVE_HALF, "close in meaning, saved together by 3", 0.0)
    assert ids(related_pins("p", index, RelatedOptions(cosave_weight=0.0), {"saved": 90.0}).results) == ["near", "saved"]


def test_the_reason_names_a_board_in_common() -> None:
    index = index_of({"p": at(0)}, boards=["Home", "Small balconies"])
    put(index, "shared", at(0, 0.6, beside=1), boards=["Food", "Small balconies"])
    put(index, "far", at(1), boards="Home")
    assert [found.why for found in related_pins("p", index).results] == ["close in meaning, both on a board 'Small balconies'", "the nearest there is"]


def test_diversity_shows_unlike_pins_first_but_keeps_related_ones_ahead() -> None:
    alike = {f"alike {n}": at(0, 0.95 - n / 8, beside=1) for n in range(3)}
    index = index_of({"p": at(0), **alike, "other": at(0, 0.6, beside=2), "unrelated": at(3)})
    assert ids(related_pins("p", index).results) == ["alike 0", "alike 1", "alike 2", "other", "unrelated"]
    assert ids(related_pins("p", index, RelatedOptions(diversity=0.7)).results) == ["alike 0", "other", "alike 1", "alike 2", "unrelated"]


def test_stages_are_timed_in_order() -> None:
    entered: list[str] = []

    def stage(name: str) -> AbstractContextManager[None]:
        entered.append(name)
        return nullcontext()

    related_pins("p", index_of({"p": at(0), "a": at(0, 0.9)}), stage=stage)
    assert entered == ["retrieve", "rerank", "fold"]


def test_ties_are_in_the_order_of_the_ids() -> None:
    found: list[Related] = list(related_pins("p", index_of({"p": at(0), "b": at(0, 0.8, beside=1), "a": at(0, 0.8, beside=2)})).results)
    assert ids(found) == ["a", "b"]

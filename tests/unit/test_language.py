from __future__ import annotations

import pytest

from pins.retrieval.language import guess_language


@pytest.mark.parametrize(
    ("query", "lang"),
    [
        ("A man is holding an umbrella", "en"),
        ("how to build a raised bed", "en"),
        ("Ein Hotdog mit Zwiebeln", "de"),
        ("Gemüsegarten für Anfänger", "de"),
        ("un plato de comida y un tenedor", "es"),
        ("niño jugando", "es"),
        ("sebuah meja dengan dua kursi", "id"),
        ("ahşap bir masa", "tr"),
        ("IŞIKLI MASA", "tr"),
        ("İSTANBUL'DA BİR KÖPRÜ", "tr"),
        ("手前にミシンがある", "ja"),
        ("ｶﾜｲｲ ネコ", "ja"),
        ("一个人在使用电脑", "zh"),
        ("兩份三明治", "zh"),
        ("дорожный знак", "ru"),
        ("IKEA стол", "ru"),
    ],
)
def test_a_language_is_told_by_its_script_its_commonest_words_and_its_accents(query: str, lang: str) -> None:
    assert guess_language(query) == lang


UNTOLD = ["", "sofa", "red chair", "2024", "🌵", "a", "un chat sur la chaise avec un coussin", "una casa con il giardino e gli alberi"]
OTHER_SCRIPTS = ["гарний стіл", "빨간 의자", "كرسي أحمر", "κόκκινη καρέκλα"]


@pytest.mark.parametrize("query", UNTOLD + OTHER_SCRIPTS)
def test_what_does_not_tell_its_language_is_none(query: str) -> None:
    assert guess_language(query) is None

"""Golden texts: what every runtime must embed as the torch reference does. No vectors here; the export computes them.

The first eight are checked at every start, so they are the most different ones: typical, empty, one word, emoji, long,
German, Japanese, markup.
"""

from __future__ import annotations

_LONG = "\n".join(
    [
        "A complete guide to a small balcony garden in a rented flat",
        "wooden balcony with terracotta pots, climbing beans and a folding chair in evening light",
        "We started with three pots of herbs and ended with tomatoes, strawberries and a lemon tree. "
        "Sun, wind and weight decide what grows: measure the hours of direct light first, then buy. " * 6,
        "balcony ideas, urban jungle, small space gardening, herbs, rental friendly, slow living",
        "balcony garden, small balcony ideas, growing tomatoes in pots, herb garden indoor, apartment gardening",
    ]
)

_PLAIN = """mid century modern living room
how to crochet a granny square for beginners
Chocolate chip cookies without butter
red velvet cake
blue velvet dress
not suitable for children
suitable for children
Wedding guest dress, summer 2024, size 42
Low light house plants that are hard to kill
low light houseplants
A dead end street sign sitting next to abandoned furniture
two dogs run on a beach at sunset
One dog runs on a beach at sunrise.
nike air max 270 men's running shoe, black/white, US 10.5
IKEA KALLAX hack: bookshelf to bench
3 bedroom house plan 1200 sq ft
easy 30-minute dinner for four
Vintage travel poster of Lisbon, Portugal
nail art ideas for short nails
Pinterest-worthy bathroom tiles
budget meal prep chicken and rice
tattoo of a swallow, fine line, wrist
cable knit sweater pattern pdf
kids craft: paper plate jellyfish
boho bedroom with rattan lamp
home office setup with two monitors
minimalist logo design for a coffee shop
DIY concrete planter, no drill
Halloween costume for couples
gluten free sourdough starter recipe
antique brass door handle
Pixie cut for thick hair over 50
How much does a kitchen remodel cost?
watercolor mountains step by step
the
a of the and
42
?!
ALL CAPS HOME DECOR SALE
antidisestablishmentarianism floccinaucinihilipilification
email me at hello@example.org or visit example.org/pins
price: $19.99 (was $29.99), -33 %
naïve café façade, crème brûlée, jalapeño
a" b' c` d\\e /f <g> &h; {i} [j]"""

_OTHER = (
    "Gemütliches Wohnzimmer mit Kamin und grünem Sofa",
    "Schnelle Rezepte für den Feierabend: Kürbissuppe mit Ingwer",
    "京都の紅葉と古いお寺",
    "簡単に作れるお弁当のアイデア",
    "Ideas para decorar una terraza pequeña",
    "recette facile de tarte aux pommes",
    "Маленькая кухня в скандинавском стиле",
    "küçük balkon dekorasyon fikirleri",
    "ide dekorasi kamar tidur minimalis",
    "小户型客厅装修灵感",
    "مطبخ صغير أبيض",
    "छोटे बगीचे के विचार",
    "👗✨ outfit of the day ✨👠",
    "👩‍🍳🏽 family recipe ❤️‍🔥",
    "Tom &amp; Jerry <b>birthday</b> cake",
    "tab\tand\nnew line",
    " ",
    ".",
    "é e\u0301 ﬁ Ｆｕｌｌ　ｗｉｄｔｈ",
    "lorem ipsum " * 300,
    "🎄" * 40,
)

TEXTS: tuple[str, ...] = (
    "A red chair in a white room\nred armchair beside a window\nliving room ideas, scandinavian home\nred accent chair, cozy corner",
    "",
    "sofa",
    "🍰🎂 birthday cake ideas 🎉",
    _LONG,
    "Kleines Badezimmer renovieren: Ideen für die Mietwohnung",
    "北欧風リビングのインテリア",
    "<p>Best &quot;no-knead&quot; bread</p> -- 12 h, 250 °C",
    *_PLAIN.split("\n"),
    *_OTHER,
)

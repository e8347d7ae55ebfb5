"""Word lists that the edit generator draws from, and those whose change the drift predictor must never call cosmetic."""

from __future__ import annotations

import re


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


STOP = _words("a an the of in on at with and to is are there it its by for from some that this")
COLOURS = _words("red blue green yellow orange purple pink brown black white gray grey beige gold silver navy teal turquoise maroon cream ivory")
NEGATIONS = _words(
    "no not never none nor without neither cannot nothing nobody nowhere isn aren wasn weren don doesn didn won wouldn can "
    "couldn shouldn t n't free non un anti"
)
MODIFIERS = _words("new best nice lovely beautiful simple easy perfect amazing great cute pretty modern cozy quick good real")
EMOJI = _words("✨ ❤️ 😍 🔥 🌿 🏡 🍰 🎄 👗 📌 💕 😂 👉 ⭐ 🐶")
HASHTAGS = _words("#home #decor #diy #inspo #love #photooftheday #ideas #style #food #travel #pets #kitchen #outdoors")
BOILERPLATE = (
    "Click the link for more.",
    "Pin now, read later!",
    "Follow for more ideas.",
    "Save this pin for later.",
    "Photo credit: unknown.",
    "See more on our website",
    "Free shipping on orders over $50.",
    "All rights reserved.",
)
_PAIRS = """sofa couch|picture photo|bike bicycle|small little|big large|tv television|man guy|woman lady|kid child|plane airplane|sits rests
sitting seated|standing posing|road street|near by|close-up closeup|fridge refrigerator|motorcycle motorbike|cellphone smartphone|people persons
couple pair|several many|group bunch|holding carrying|eating consuming|walking strolling|beach shore|boat ship|cat kitty|dog puppy|tall high
old aged|wooden timber|restroom bathroom|photograph picture|baby infant|meal dish|sidewalk pavement|store shop|parked stopped|field meadow"""
SYNONYMS = {old: new for pair in _PAIRS.replace("\n", "|").split("|") for old, new in (pair.split(), pair.split()[::-1])}

_WORD = re.compile(r"[^\W\d_]{3,}")


def content_words(text: str) -> list[str]:
    """Lower-case words of three letters or more that are not stop words."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOP]

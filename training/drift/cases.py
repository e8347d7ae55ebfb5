"""Edits with their true drift: generated, tokenised and embedded by the exported student. No fitting, no judging."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.onnx import OnnxEncoder
from pins.features import PinFeatures
from pins.text import render
from training.drift.edits import EDITS, MEANINGFUL, Corpus, Edit, edits_of
from training.students.published import embed, token_ids


@dataclass(frozen=True, slots=True)
class Cases:
    """One row per edit: its kind, the number of its pin, the tokens before and after, the true cosine distance."""

    kind: NDArray[np.str_]
    pin: NDArray[np.int64]
    tokens: list[tuple[tuple[int, ...], tuple[int, ...]]]
    drift: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.kind)

    def where(self, keep: NDArray[np.bool_]) -> Cases:
        """The rows where `keep` holds."""
        return Cases(self.kind[keep], self.pin[keep], [self.tokens[row] for row in np.flatnonzero(keep)], self.drift[keep])

    def harmful(self, bound: float) -> NDArray[np.bool_]:
        """Edits that must not be skipped: the vector moves further than `bound`, or the kind is meaningful by itself."""
        return (self.drift > bound) | np.isin(self.kind, sorted(MEANINGFUL))


def make_cases(student: OnnxEncoder, pins: Sequence[PinFeatures], corpus: Corpus, per_pin: int, seed: int = 0) -> Cases:
    """`per_pin` edits of random kinds for each pin. Edits that the student cannot see (same tokens) are left out."""
    numbered: list[tuple[int, Edit]] = []
    for number, pin in enumerate(pins):
        rng = Random(f"{seed} {number}")  # a change to one kind of edit leaves the other pins' edits as they were
        numbered += [(number, edit) for edit in edits_of(rng, pin, corpus, rng.sample(list(EDITS), per_pin))]
    texts = [(render(edit.before).text, render(edit.after).text) for _, edit in numbered]
    seen = [row for row, pair in enumerate(texts) if not student.same_tokens(*pair)]
    return _measured(student, [numbered[row] for row in seen], [texts[row] for row in seen])


def _measured(student: OnnxEncoder, numbered: list[tuple[int, Edit]], texts: list[tuple[str, str]]) -> Cases:
    unique = sorted({text for pair in texts for text in pair})
    place = {text: row for row, text in enumerate(unique)}
    vectors = embed(student, unique, "edited pins").astype(np.float64)
    tokens = {text: token_ids(student, text) for text in unique}
    before, after = (vectors[[place[pair[side]] for pair in texts]] for side in (0, 1))
    return Cases(
        np.array([edit.kind for _, edit in numbered]),
        np.array([number for number, _ in numbered]),
        [(tokens[old], tokens[new]) for old, new in texts],
        1.0 - np.einsum("nd,nd->n", before, after),
    )


def load_sample(path: Path, lang: str = "en") -> list[PinFeatures]:
    """Pins of one language from a sample file: one JSON object per line, as in everpin/sample/README.md."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        PinFeatures(
            row["pin_id"],
            **_texts(row),
            board_titles=tuple(row.get("board_titles") or ()),
            engaged_queries=tuple((row.get("engaged_queries") or {}).items()),
        )
        for row in rows
        if row.get("lang") == lang and row.get("title")
    ]


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) or "" for name in ("title", "description", "caption", "link_title", "link_description")}

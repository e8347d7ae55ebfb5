"""A vocabulary of many languages for an English student: kept English tokens, new tokens, and where new tokens start.

WordPiece throughout (Schuster and Nakajima 2012). English tokens keep their embeddings, so English is read as before; new
tokens are learnt from text of the other languages. Each new token starts as a mean of the input embeddings of the English
tokens whose aligned static vectors are nearest to its own, the WECHSEL initialisation (Minixhofer et al. 2022, section 3).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"
NEIGHBOURS = 10
TEMPERATURE = 0.1
"""WECHSEL's k and tau."""
ALPHABET = 5000
"""Characters of the new tokens' alphabet: rarer ones become [UNK]."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id: `tokens[i]`; `base[i]` is the token's id in the base tokeniser, -1 for a new one."""

    tokens: tuple[str, ...]
    base: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)


def base_tokens(tokenizer: Tokenizer) -> list[str]:
    """Tokens of a WordPiece tokeniser in the order of their ids."""
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]


def multilingual_normalizer() -> BertNormalizer:
    """Lower case; accents stay, since they carry meaning in most of the languages."""
    return BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True)


def choose(base: Tokenizer, english: Iterable[str], others: Sequence[str], size: int, least: int = 6) -> Vocabulary:
    """At most `size` tokens: those that English texts use `least` times (and every ASCII character), then the best of the others.

    `others` should hold about as much text of each language as it should have tokens.
    """
    old = base_tokens(base)
    used: Counter[int] = Counter()
    for encoding in base.encode_batch_fast(list(english), add_special_tokens=False):
        used.update(encoding.ids)
    kept = [number for number, token in enumerate(old) if token in SPECIAL or used[number] >= least or _is_character(token)]
    first = sorted(kept, key=lambda number: (old[number] not in SPECIAL, SPECIAL.index(old[number]) if old[number] in SPECIAL else number))
    known = {old[number] for number in first}
    new = [token for token in _learnt(others, size) if token not in known][: max(0, size - len(first))]
    place = {token: number for number, token in enumerate(old)}
    return Vocabulary((*(old[number] for number in first), *new), np.array([*first, *(place.get(token, -1) for token in new)], np.int64))


def _is_character(token: str) -> bool:
    return token.isascii() and len(token.removeprefix(PREFIX)) == 1


def _learnt(texts: Sequence[str], size: int) -> list[str]:
    """WordPiece tokens of these texts, the alphabet first, then in the order of learning (frequent pairs first).

    The trainer breaks ties by the numbers of tokens and gives out numbers in the order of a hash map that starts anew in every
    run. So every character gets its number here, and the same texts give the same tokens.
    """
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = multilingual_normalizer(), BertPreTokenizer()
    seen: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text)):
            seen.update(word)
            inside.update(word[1:])
    alphabet = sorted(seen, key=lambda character: (-seen[character], character))[:ALPHABET]
    numbered = [*SPECIAL, *(PREFIX + character for character in sorted(inside.intersection(alphabet)))]
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=numbered, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False)
    learner.train_from_iterator(texts, trainer)
    return [token for token in base_tokens(learner) if token not in SPECIAL]


def tokenizer_of(vocabulary: Vocabulary, base: Tokenizer) -> Tokenizer:
    """The base tokeniser with this vocabulary and the multilingual normaliser; no truncation, no padding."""
    body: dict[str, Any] = json.loads(base.to_str())
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    body["model"]["vocab"] = ids
    body["normalizer"] = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": False, "lowercase": True}
    body["padding"] = body["truncation"] = None
    body["added_tokens"] = [entry | {"id": ids[entry["content"]]} for entry in body["added_tokens"] if entry["content"] in ids]
    for entry in (body.get("post_processor") or {}).get("special_tokens", {}).values():
        entry["ids"] = [ids[token] for token in entry["tokens"]]
    return Tokenizer.from_str(json.dumps(body))


def initial_embeddings(vocabulary: Vocabulary, base: NDArray[np.float32], static: NDArray[np.float32]) -> NDArray[np.float32]:
    """Input embeddings, float32 of shape (len(vocabulary), hidden): old ones copied, new ones by WECHSEL from `static`.

    `base`: (base vocabulary, hidden). `static`: (len(vocabulary), d), vectors in one space for all languages.
    """
    known, new = np.flatnonzero(vocabulary.base >= 0), np.flatnonzero(vocabulary.base < 0)
    found = np.empty((len(vocabulary), base.shape[1]), np.float32)
    found[known] = base[vocabulary.base[known]]
    anchors = known[np.isin(known, [number for number, token in enumerate(vocabulary.tokens) if token.isascii() and token not in SPECIAL])]
    unit = static / np.maximum(np.linalg.norm(static, axis=1, keepdims=True), 1e-9)
    for start in range(0, len(new), 2048):
        some = new[start : start + 2048]
        cosines = unit[some] @ unit[anchors].T
        top = np.argpartition(-cosines, min(NEIGHBOURS, len(anchors) - 1), axis=1)[:, :NEIGHBOURS]
        weights = np.exp(np.take_along_axis(cosines, top, axis=1) / TEMPERATURE)
        weights /= weights.sum(axis=1, keepdims=True)
        found[some] = np.einsum("nk,nkh->nh", weights, found[anchors[top]])
    return found

"""How well a tokenizer fits some texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encodery.data.tokenizers import Tokenizer, text_blocks


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a tokenizer fits some texts: what `encodery inspect` shows."""

    texts: int
    tokens: int
    words: int
    unknown_share: float
    tokens_per_word: float
    tokens_per_character: float
    bytes_per_token: float
    most_unknown: tuple[tuple[str, int], ...]
    """The pieces of text that most often became the unknown token, with their counts."""


def coverage(tokenizer: Tokenizer, texts: Sequence[str], most: int = 10) -> Coverage:
    """Measure unknown tokens, tokens a word and a character, bytes a token; zeros without tokens."""
    tokens = words = unknown = characters = size = 0
    pieces: Counter[str] = Counter()
    for block in text_blocks(texts):
        for text, encoded in zip(block, tokenizer.encode_batch(block)):
            tokens += len(encoded.ids)
            words += int(encoded.starts_word.sum())
            characters += len(text)
            size += len(text.encode("utf-8"))
            if tokenizer.unk_id is not None:
                rows = np.flatnonzero(encoded.ids == tokenizer.unk_id)
                unknown += len(rows)
                pieces.update(text[start:stop] for start, stop in encoded.offsets[rows].tolist())
    return Coverage(
        len(texts),
        tokens,
        words,
        unknown / max(1, tokens),
        tokens / max(1, words),
        tokens / max(1, characters),
        size / max(1, tokens),
        tuple(sorted(pieces.items(), key=lambda item: (-item[1], item[0]))[:most]),
    )

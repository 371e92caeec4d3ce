"""Masked language modelling: hide some tokens, guess them from the rest (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.config import Config
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels
from encodery.data.tokenizers import Tokenizer
from encodery.heads.options import WordReadoutConfig
from encodery.objectives.cross_entropy import IGNORED, cross_entropy


class MaskedConfig(Config):
    """Which tokens are hidden and how."""

    kind: Literal["masked"] = "masked"
    share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the tokens that are hidden, at the start."""
    final_share: float | None = Field(default=None, gt=0, lt=1)
    """Share at the end of training; in between it changes linearly. None: it stays."""
    unit: Literal["token", "word", "span"] = "token"
    """token: each alone; word: all tokens of a word together; span: runs of neighbouring words."""
    span_words: float = Field(default=3.0, ge=1, le=20)
    """For unit span: mean length of a run in words, drawn from a geometric distribution (SpanBERT)."""
    corrupt: Literal["80/10/10", "mask"] = "80/10/10"
    """80/10/10: of the hidden tokens 80 % become [MASK], 10 % a random token, 10 % stay; mask: all [MASK]."""
    compose: ClassVar[str] = "joined"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "none"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their text."""
        del data
        return ()


@dataclass(frozen=True)
class Loss:
    """A sum over `count` terms (kept apart so that batches can be added before dividing). `parts` are means by name, of
    what it is made of: for the journal."""

    total: Tensor
    count: Tensor
    correct: Tensor | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)


class Masked:
    """The objective: hides tokens of a batch, needs a word readout, scores its logits by cross-entropy."""

    def __init__(self, config: MaskedConfig, *, vocab_size: int, mask_id: int, special_ids: frozenset[int]) -> None:
        self.config = config
        self.vocab_size = vocab_size
        self.mask_id = mask_id
        self.special = np.zeros(vocab_size, dtype=bool)
        self.special[sorted(special_ids)] = True
        self.ordinary = np.flatnonzero(~self.special)

    @classmethod
    def of(cls, config: MaskedConfig, tokenizer: Tokenizer) -> Masked:
        """The objective for the vocabulary of `tokenizer`."""
        special = frozenset(tokenizer.special_ids)
        return cls(config, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, special_ids=special)

    def readout(self) -> WordReadoutConfig:
        return WordReadoutConfig()

    def share_at(self, progress: float) -> float:
        """Share of hidden tokens when `progress` (0 to 1) of the training is done."""
        final = self.config.share if self.config.final_share is None else self.config.final_share
        return self.config.share + (final - self.config.share) * min(1.0, max(0.0, progress))

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """Hide tokens: `values['ids']` changes, `truth` gets `at` and `target` (M,).

        M is constant for a token budget, so that the vocabulary product keeps one shape: slots that are not
        needed point at position 0 with the target IGNORED.
        """
        ids = batch.values["ids"].numpy()
        candidates = self._texts(batch) & ~self.special[ids]
        wanted = round(self.share_at(progress) * int(candidates.sum()))
        if candidates.any():
            wanted = max(1, wanted)
        capacity = self._capacity(self._text_positions(batch))
        chosen = self._choose(batch, candidates, min(wanted, capacity), capacity, rng)
        at = np.zeros(capacity, dtype=np.int64)
        target = np.full(capacity, IGNORED, dtype=np.int64)
        at[: chosen.size], target[: chosen.size] = chosen, ids[chosen]
        hidden = ids.copy()
        hidden[chosen] = self._corrupted(ids[chosen], rng)
        return replace(
            batch,
            values={**batch.values, "ids": torch.from_numpy(hidden)},
            truth={**batch.truth, "at": torch.from_numpy(at), "target": torch.from_numpy(target)},
        )

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Cross-entropy summed over the hidden tokens, in nats; `correct` counts those guessed right."""
        assert output.logits is not None
        target_M = batch.truth["target"]
        total, correct = cross_entropy(output.logits, target_M)
        return Loss(total, (target_M != IGNORED).sum(), correct)

    def _texts(self, batch: Batch) -> np.ndarray:
        """Positions of the texts themselves, (P,) bool: no padding, and no triples that are written behind them."""
        return batch.layout.without_branches().document.numpy() >= 0

    def _text_positions(self, batch: Batch) -> int:
        """How many positions of a batch are for texts."""
        return batch.layout.positions

    def _capacity(self, positions: int) -> int:
        most = max(self.share_at(0.0), self.share_at(1.0))
        return min(positions, max(8, -(-round(most * positions) // 32) * 32))

    def _choose(
        self, batch: Batch, candidates: np.ndarray, wanted: int, capacity: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Flat positions to hide, sorted: about `wanted` of the candidates, never more than `capacity`."""
        if self.config.unit == "token":
            places = np.flatnonzero(candidates)
            return np.sort(rng.choice(places, size=min(wanted, places.size), replace=False))
        # A word goes on until the next word start; a change of document starts one as well.
        starts = batch.values["starts_word"].numpy().astype(bool) | ~candidates
        starts[1:] |= ~candidates[:-1]
        starts[batch.layout.starts.numpy()] = True
        word = np.cumsum(starts) - 1
        words = np.unique(word[candidates])
        hidden_words = self._pick_words(words, word, candidates, wanted, rng)
        chosen = np.flatnonzero(candidates & np.isin(word, hidden_words))
        if capacity < chosen.size:
            # The last word picked went past the room: it stays visible rather than half hidden, unless it is alone
            # (text without word borders), when its first tokens are hidden.
            fewer = np.flatnonzero(candidates & np.isin(word, hidden_words[:-1]))
            chosen = fewer if fewer.size else chosen[:capacity]
        return chosen

    def _pick_words(
        self,
        words: np.ndarray,
        word: np.ndarray,
        candidates: np.ndarray,
        wanted: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        sizes = np.bincount(word[candidates], minlength=int(word.max(initial=0)) + 1)
        order = rng.permutation(words.size)
        if self.config.unit == "span":
            lengths = np.minimum(rng.geometric(1.0 / self.config.span_words, size=words.size), 10)
            runs = [np.arange(start, min(start + run, words.size)) for start, run in zip(order, lengths)]
            order = np.concatenate(runs) if runs else order
            _, first = np.unique(order, return_index=True)
            order = order[np.sort(first)]
        picked = words[order]
        enough = np.searchsorted(np.cumsum(sizes[picked]), wanted)
        return picked[: enough + 1]

    def _corrupted(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.config.corrupt == "mask" or not self.ordinary.size:
            return np.full_like(ids, self.mask_id)
        draw = rng.random(ids.size)
        result = np.where(draw < 0.8, self.mask_id, ids)
        random = self.ordinary[rng.integers(0, self.ordinary.size, size=ids.size)]
        return np.where((draw >= 0.8) & (draw < 0.9), random, result)

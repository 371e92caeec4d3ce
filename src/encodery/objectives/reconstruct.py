"""Autoencoding: a text is written again from one vector, so the vector must hold what the text says.

tsdae      Wang et al. 2021: words deleted, a decoder writes the text from the vector, word by word (section 3)
retromae   Xiao et al. 2022: few words hidden from the encoder, most from a decoder of one layer, which writes all
           of them from the vector and what little it sees; L = L_encoder + L_decoder (section 3)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from encodery.batch import Batch, Layout, Output
from encodery.bricks.choices import PoolingName
from encodery.data.tokenizers import Tokenizer
from encodery.heads.autoencode import AutoencodeOutput
from encodery.heads.options import AutoencodeReadoutConfig
from encodery.objectives.cross_entropy import IGNORED, cross_entropy
from encodery.objectives.masked import Loss, Masked, MaskedConfig
from encodery.objectives.texts_alone import TextsAlone

SLOTS = 32
"""The number of positions that a decoder is asked for is a multiple of this."""


class AutoencodeConfig(TextsAlone):
    """What is taken away from a text before its vector is made, and how it is written again."""

    kind: Literal["autoencode"] = "autoencode"
    method: Literal["tsdae", "retromae"] = "tsdae"
    """tsdae: words deleted, a causal decoder; retromae: words hidden, a decoder that sees a draw of them."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the words that are deleted (tsdae: 0.6 by default, as in the paper), or of the tokens that
    are hidden from the encoder (retromae: 0.3)."""
    decoder_share: float = Field(default=0.5, ge=0, lt=1)
    """For retromae: share of the other words that each word does not see in the decoder (0.5 to 0.7)."""
    asked: float = Field(default=1.0, gt=0, le=1)
    """Share of the words that the decoder must write, drawn anew each time; the papers ask for all. Less costs less:
    the product with the vocabulary is most of the work."""
    pooling: PoolingName | None = None
    """How the vectors of a text become one: mean by default (tsdae), first (retromae)."""
    decoder_depth: int = Field(default=1, ge=1, le=64)
    """For tsdae: blocks of the decoder. The smaller it is, the more the vector must say."""

    @model_validator(mode="after")
    def _one_layer(self) -> AutoencodeConfig:
        if self.method == "retromae" and self.decoder_depth != 1:
            raise ValueError("the decoder of retromae has one layer; leave decoder_depth out")
        return self

    @property
    def taken(self) -> float:
        """The share that is deleted or hidden."""
        return self.share if self.share is not None else 0.6 if self.method == "tsdae" else 0.3


class Autoencode:
    """The objective: takes words away, has a readout whose decoder writes them again, scores what it writes."""

    def __init__(self, config: AutoencodeConfig, *, vocab_size: int, mask_id: int, special_ids: frozenset[int]) -> None:
        self.config = config
        self.special = np.zeros(vocab_size, dtype=bool)
        self.special[sorted(special_ids)] = True
        self.hide = Masked(
            MaskedConfig(share=config.taken), vocab_size=vocab_size, mask_id=mask_id, special_ids=special_ids
        )

    @classmethod
    def of(cls, config: AutoencodeConfig, tokenizer: Tokenizer) -> Autoencode:
        """The objective for the vocabulary of `tokenizer`."""
        special = frozenset(tokenizer.special_ids)
        return cls(config, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, special_ids=special)

    def readout(self) -> AutoencodeReadoutConfig:
        config = self.config
        default: PoolingName = "mean" if config.method == "tsdae" else "first"
        return AutoencodeReadoutConfig(
            method=config.method, pooling=config.pooling or default, depth=config.decoder_depth
        )

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """Take words away. `truth` gets what AutoencodeReadout reads, and `write` (M,), the ids to be written."""
        ids, layout = batch.values["ids"].numpy(), batch.layout
        document = layout.document.numpy()
        words = (document >= 0) & ~self.special[ids]
        told = {
            "original": batch.values["ids"],
            "owner": layout.document,
            "place": layout.position,
            "sizes": layout.lengths,
        }
        if self.config.method == "tsdae":
            # What comes next: the decoder reads position t and writes t + 1, up to the special token at the end.
            follows = np.zeros(ids.size, dtype=bool)
            follows[:-1] = (document[:-1] >= 0) & (document[1:] == document[:-1])
            ask, write = self._asked(follows, np.append(ids[1:], IGNORED), rng)
            batch = without(batch, words & ~self._kept(batch, words, rng))
        else:
            ask, write = self._asked(words, ids, rng)
            told["visible"] = torch.from_numpy(self._visible(document, words, layout, rng))
            batch = self.hide.prepare(batch, rng, progress)
        told |= {"ask": torch.from_numpy(ask), "write": torch.from_numpy(write)}
        return replace(batch, truth={**batch.truth, **told})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Cross-entropy of the written words, in nats; for retromae for each of them the mean loss of the words hidden
        from the encoder beside it. `correct` counts those written right."""
        assert isinstance(output, AutoencodeOutput) and output.logits is not None
        write_M = batch.truth["write"]
        total, correct = cross_entropy(output.logits, write_M)
        count = (write_M != IGNORED).sum()
        if output.hidden is None:
            return Loss(total, count, correct)
        target = batch.truth["target"]
        words, right = cross_entropy(output.hidden, target)
        hidden = (target != IGNORED).sum().clamp_min(1)
        parts = {
            "written_loss": total.detach() / count.clamp_min(1),
            "hidden_loss": words.detach() / hidden,
            "hidden_accuracy": right / hidden,
        }
        return Loss(total + words * count / hidden, count, correct, parts)

    def _kept(self, batch: Batch, words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The tokens that are left, (P,) bool: each word goes with the probability of the share, one of a document
        always stays."""
        starts = batch.values["starts_word"].numpy().astype(bool) | ~words
        starts[batch.layout.starts.numpy()] = True
        word = np.cumsum(starts) - 1
        draw = rng.random(int(word[-1]) + 1 if word.size else 0)
        left = self.config.taken <= draw
        # The word with the largest draw of its document stays whatever its number.
        document = batch.layout.document.numpy()
        best = np.full(batch.layout.documents + 1, -1.0)
        drawn = np.where(words, draw[word], -1.0)
        np.maximum.at(best, document + 1, drawn)
        return left[word] | (words & (drawn == best[document + 1]))

    def _asked(
        self, possible: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions for the decoder and the ids to be written, (M,); M is constant for a budget, and slots that are not
        needed point at position 0 with the target IGNORED."""
        capacity = min(possible.size, -(-round(self.config.asked * possible.size) // SLOTS) * SLOTS)
        places = np.flatnonzero(possible)
        number = min(capacity, round(self.config.asked * places.size))
        if self.config.asked < 1:
            places = np.sort(rng.choice(places, max(number, min(1, places.size)), replace=False))
        ask, write = np.zeros(capacity, dtype=np.int64), np.full(capacity, IGNORED, dtype=np.int64)
        ask[: places.size], write[: places.size] = places, wanted[places]
        return ask, write

    def _visible(self, document: np.ndarray, words: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
        """Whom each position sees in RetroMAE's decoder, (P, T) bool: words of its own document, each with the
        probability 1 - `decoder_share`, never itself (section 3.3)."""
        T = layout.length
        document_BT, words_BT = document.reshape(-1, T), words.reshape(-1, T)
        same = (document_BT[:, :, None] == document_BT[:, None, :]) & words_BT[:, None, :]
        same[:, np.arange(T), np.arange(T)] = False
        # A byte each: 1/256 is near enough, and four times as fast as floats.
        draw = rng.integers(0, 256, size=same.shape, dtype=np.uint8)
        return (same & (draw >= round(256 * self.config.decoder_share))).reshape(document.size, T)


def without(batch: Batch, gone: np.ndarray) -> Batch:
    """The batch without the tokens that are `gone` (P,) bool: each document begins where it began and ends earlier, so
    that its shape stays. All values (P,) move with their tokens."""
    layout = batch.layout
    document = layout.document.numpy()
    stays = (document >= 0) & ~gone
    starts = layout.starts.numpy()
    lengths = np.bincount(document[stays], minlength=layout.documents)[: layout.documents]
    number = np.cumsum(stays) - 1  # of each token among those that stay
    first = np.cumsum(lengths) - lengths
    old = np.flatnonzero(stays)
    position = number[old] - first[document[old]]
    new = starts[document[old]] + position
    values = {}
    for name, value in batch.values.items():
        given = value.numpy()
        moved = np.zeros_like(given)
        # Padding keeps its own id, which a document that is now shorter has behind it.
        moved[:] = _padding(given, document)
        moved[new] = given[old]
        values[name] = torch.from_numpy(moved)
    owner, place = np.full_like(document, -1), np.zeros_like(document)
    owner[new], place[new] = document[old], position
    shorter = replace(
        layout,
        document=torch.from_numpy(owner),
        position=torch.from_numpy(place),
        lengths=torch.from_numpy(lengths.astype(np.int64)),
        masks={},
    )
    return replace(batch, values=values, layout=shorter)


def _padding(given: np.ndarray, document: np.ndarray) -> object:
    """What stands at padding; 0 where there is none."""
    places = np.flatnonzero(document < 0)
    return given[places[0]] if places.size else 0

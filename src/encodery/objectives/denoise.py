"""Denoising from sequence to sequence: a decoder writes the text again from what noise has left of it.

    bart     runs of words infilled, sentences permuted, words deleted; the target is the text (Lewis et al. 2020,
             section 2.2)
    spans    runs of tokens named by sentinels; the target says what each stands for (Raffel et al. 2020, section 3.3)

One sentinel does for all runs, the token for hidden words: runs are told apart by their order, and no vocabulary has to
keep tokens for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from encodery.batch import Batch, Layout, Output
from encodery.data.fields import Field as DataField
from encodery.data.sentences import SENTENCE, SentenceField
from encodery.data.sources import DataConfig
from encodery.data.tokenizers import Tokenizer
from encodery.heads.decoding.options import DecoderConfig
from encodery.objectives.cross_entropy import IGNORED, cross_entropy
from encodery.objectives.masked import Loss
from encodery.objectives.noise import (
    corrupted_spans,
    infilled,
    kept_tokens,
    permuted_sentences,
    rotated,
    with_sentinels,
)
from encodery.objectives.texts_alone import TextsAlone

Piece = tuple[np.ndarray, np.ndarray]
"""Ids of a document, and the flat position in the batch that each of them comes from."""


class DenoiseConfig(TextsAlone):
    """What is done to a text before a decoder writes it again."""

    kind: Literal["denoise"] = "denoise"
    noise: Literal["bart", "spans"] = "bart"
    """bart: the options below, in their order; spans: T5's corrupted spans."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the tokens in runs that are taken away: 0.3 (bart), 0.15 (spans)."""
    span: float = Field(default=3.0, ge=1, le=20)
    """Mean length of a run: in words, by Poisson's law, where a run of length 0 puts a token in (bart); in tokens
    (spans)."""
    delete: float = Field(default=0.0, ge=0, lt=1)
    """For bart: share of the words that are deleted without a trace."""
    permute: bool = True
    """For bart: whether sentences are put in random order."""
    rotate: bool = False
    """For bart: whether the text begins at a random token."""
    decoder: DecoderConfig = DecoderConfig()
    """What writes; by default as deep and wide as the encoder."""

    @model_validator(mode="after")
    def _options_of_bart(self) -> DenoiseConfig:
        if self.noise == "spans" and (self.delete or self.rotate):
            raise ValueError("delete and rotate belong to noise: bart")
        if self.decoder.vocabulary != "shared":
            raise ValueError("the text is written again in its own words: decoder.vocabulary must be shared")
        return self

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """Where sentences begin, if they are to be permuted."""
        del data
        return (SentenceField(),) if self.noise == "bart" and self.permute else ()

    @property
    def taken(self) -> float:
        """The share in runs that are taken away."""
        return self.share if self.share is not None else 0.3 if self.noise == "bart" else 0.15


class Denoise:
    """The objective: gives the encoder a noised text and the decoder the text to write, scores what it writes."""

    def __init__(self, config: DenoiseConfig, *, vocab_size: int, mask_id: int, special_ids: frozenset[int]) -> None:
        self.config = config
        self.mask_id = mask_id
        self.special = np.zeros(vocab_size, dtype=bool)
        self.special[sorted(special_ids)] = True

    @classmethod
    def of(cls, config: DenoiseConfig, tokenizer: Tokenizer) -> Denoise:
        """The objective for the vocabulary of `tokenizer`."""
        special = frozenset(tokenizer.special_ids)
        return cls(config, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, special_ids=special)

    def readout(self) -> DecoderConfig:
        return self.config.decoder

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """The noised texts, each where the text began, and as `target` what is to be written, there too: both keep the
        shape of the batch. A text so short that nothing of it can be taken away is not asked for."""
        del progress
        ids, layout = batch.values["ids"].numpy(), batch.layout
        words = (layout.document.numpy() >= 0) & ~self.special[ids]
        sources: list[Piece] = []
        targets: list[np.ndarray] = []
        asked = np.zeros(layout.documents, dtype=bool)
        for number, (start, size) in enumerate(zip(layout.starts.tolist(), layout.lengths.tolist())):
            places = np.arange(start, start + size)
            inside = np.flatnonzero(words[places])
            if not inside.size:
                sources.append((ids[places], places))
                targets.append(ids[places])
                continue
            # Special tokens stand around the text; what is between them is noised as one piece.
            before, text, after = np.split(places, [inside[0], inside[-1] + 1])
            source, wanted = self._noised(batch, text, rng)
            whole = np.concatenate([ids[before], source[0], ids[after]]), np.concatenate([before, source[1], after])
            target = np.concatenate([ids[before], wanted, ids[after]])
            if source[0].size <= text.size and wanted.size <= text.size:
                asked[number] = True
                sources.append(whole)
                targets.append(target)
            else:
                sources.append((ids[places], places))
                targets.append(ids[places])
        truth = {**batch.truth, "sizes": layout.lengths}
        return replace(laid(batch, sources), truth=truth, target=self._target(batch, targets, asked))

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Cross-entropy of the tokens to be written, in nats; `correct` counts those written right."""
        assert output.logits is not None and batch.target is not None
        wanted = batch.target.truth["target"]
        total, correct = cross_entropy(output.logits, wanted)
        return Loss(total, (wanted != IGNORED).sum(), correct)

    def _noised(self, batch: Batch, text: np.ndarray, rng: np.random.Generator) -> tuple[Piece, np.ndarray]:
        """The source of one document, and what is to be written. `text` are its flat positions."""
        config = self.config
        ids = batch.values["ids"].numpy()[text]
        if config.noise == "spans":
            gone = corrupted_spans(ids.size, share=config.taken, mean=config.span, rng=rng)
            source, target = with_sentinels(ids, gone, np.array([self.mask_id]))
            first = gone & ~np.append(False, gone[:-1])
            return (source, text[~gone | first]), target
        places = text
        if config.permute and SENTENCE in batch.values:
            places = places[permuted_sentences(batch.values[SENTENCE].numpy()[places] > 0, rng)]
        if config.rotate:
            places = places[rotated(places.size, rng)]
        starts = batch.values["starts_word"].numpy().astype(bool)
        if config.delete:
            places = places[kept_tokens(starts[places], config.delete, rng)]
        found = infilled(
            batch.values["ids"].numpy()[places],
            starts[places],
            self.mask_id,
            share=config.taken,
            mean=config.span,
            rng=rng,
        )
        # A hole at the very end stands where the last token stood.
        return (found.ids, places[np.minimum(found.index, places.size - 1)]), ids

    def _target(self, batch: Batch, texts: list[np.ndarray], asked: np.ndarray) -> Batch:
        """What the decoder reads, and at each position what follows there."""
        places = [np.arange(start, start + len(text)) for text, start in zip(texts, batch.layout.starts.tolist())]
        plain = {"ids": batch.values["ids"], "segment": torch.zeros_like(batch.values["ids"])}
        made = laid(Batch(plain, batch.layout), list(zip(texts, places)))
        ids, document = made.values["ids"].numpy(), made.layout.document.numpy()
        follows = np.full(ids.size, IGNORED, dtype=np.int64)
        same = (document[:-1] == document[1:]) & (document[:-1] >= 0)
        same &= asked[np.maximum(document[:-1], 0)] if asked.size else False
        follows[:-1][same] = ids[1:][same]
        return replace(made, truth={"target": torch.from_numpy(follows)})


def laid(batch: Batch, documents: list[Piece]) -> Batch:
    """The batch with other documents in the places of its own, none longer than what stood there: shapes stay. Values
    (P,) beside the ids come from the positions that each piece names."""
    layout = batch.layout
    P = layout.positions
    owner, place = np.full(P, -1, dtype=np.int64), np.zeros(P, dtype=np.int64)
    origin, ids = np.full(P, -1, dtype=np.int64), batch.values["ids"].numpy().copy()
    room = layout.lengths.tolist()
    lengths = np.zeros(len(documents), dtype=np.int64)
    padding = np.flatnonzero(layout.document.numpy() < 0)
    ids[:] = ids[padding[0]] if padding.size else 0
    for number, ((text, places), start) in enumerate(zip(documents, layout.starts.tolist())):
        assert text.size <= room[number], "a document has outgrown its place"
        span = slice(start, start + text.size)
        ids[span], origin[span], owner[span] = text, places, number
        place[span], lengths[number] = np.arange(text.size), text.size
    values = {"ids": torch.from_numpy(ids)}
    there = origin >= 0
    for name, value in batch.values.items():
        if name != "ids":
            given = value.numpy()
            moved = np.zeros_like(given)
            moved[there] = given[origin[there]]
            values[name] = torch.from_numpy(moved)
    made = Layout(
        layout.rows,
        layout.length,
        torch.from_numpy(owner),
        torch.from_numpy(place),
        layout.starts,
        torch.from_numpy(lengths),
    )
    return replace(batch, values=values, layout=made)

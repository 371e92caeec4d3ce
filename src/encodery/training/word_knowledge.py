"""What a run knows of its tokens before it learns: how they are written, their vectors in a file, their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encodery.data.store import TokenStore
from encodery.data.targets import TARGET
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError
from encodery.frontends.cooccurrence import cooccurrence_embeddings
from encodery.frontends.fitting import carried_over
from encodery.frontends.options import TextConfig
from encodery.frontends.static_vectors import StaticVectors, read_vectors, shape_of
from encodery.heads.decoding.decoder import Decoder
from encodery.heads.readouts import WordReadout
from encodery.heads.replaced import Generator
from encodery.model import Model
from encodery.training.stage import log_unigram
from encodery.training.target_words import documents_and_targets, start_decoder, target_counts

# The co-occurrence start looks at no more of the corpus than this: more changes the vectors hardly at all.
COUNTED_TOKENS = 4_000_000
FACT = "word vectors"  # their name in the report


@dataclass
class WordKnowledge:
    """Shared by all stages and models of a run: a file of vectors is read once. `facts` are for the report."""

    tokenizer: Tokenizer | None = None
    vectors: StaticVectors | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def frontend(
        self, config: TextConfig, tokenizer: Tokenizer, base: Path, heed_stop: Callable[[str], None]
    ) -> TextConfig:
        """The frontend of the recipe with what the tokenizer and the file of vectors decide: sizes, matched tokens."""
        self.tokenizer = tokenizer
        config = with_file_width(config, base).model_copy(update={"vocab_size": tokenizer.vocab_size})
        if config.vectors is None:
            return config
        if self.vectors is None or self.vectors.way.size != tokenizer.vocab_size:
            during = f"reading {config.vectors.path}"
            self.vectors = read_vectors(
                config.vectors, base, tokenizer.words(), tokenizer.normaliser(), lambda lines: heed_stop(during)
            )
        matched = config.vectors.model_copy(update={"rows": self.vectors.rows})
        return config.model_copy(update={"vectors": matched})

    def give(self, model: Model) -> None:
        """Hand a new model what its frontend makes vectors from."""
        assert self.tokenizer is not None, "the frontend's config comes first"
        if model.frontend.asks_for_spelling:
            model.frontend.spell(self.tokenizer.written())
            model.frontend.spread()
        if self.vectors is not None:
            model.frontend.fill(self.vectors.matrix, self.vectors.found)

    @torch.no_grad()
    def start(self, model: Model, store: TokenStore, seed: int, say: Callable[[str], None]) -> None:
        """Vectors from co-occurrence counts, output bias from token counts: seconds that save minutes.

        Embeddings that are made from shared rows or from characters are fitted to these vectors. Beside vectors of a
        file, those of the tokens that it does not have are carried over into its space.
        """
        config, frontend, readout = model.config.frontend, model.frontend, model.readout
        counts = store.counts(frontend.vocab_size)
        shared = not isinstance(readout, Decoder) or readout.words is None
        writers = [part for part in readout.modules() if isinstance(part, WordReadout)]
        for part in writers:
            part.bias.copy_(log_unigram(counts))
        if isinstance(readout, Decoder):
            start_decoder(readout, store, seed, cooccurrence=config.start == "cooccurrence")
            if TARGET not in store.texts_beside:  # the text itself is written
                readout.bias.copy_(log_unigram(counts))
            counts = counts + (target_counts(store, frontend.vocab_size) if shared else 0)
        if self.vectors is not None:
            self._report(self.vectors, counts, say)
        if config.start != "cooccurrence":
            return
        say("embeddings from co-occurrence counts")
        documents = documents_and_targets(store, COUNTED_TOKENS) if shared else store.documents(COUNTED_TOKENS)
        wanted = cooccurrence_embeddings(
            documents, frontend.vocab_size, frontend.width, std=config.embedding_std, seed=seed
        )
        if self.vectors is not None:
            wanted = carried_over(frontend.matrix().cpu().numpy(), self.vectors.found, wanted, counts + 1e-3)
        frontend.words.start(wanted, np.sqrt(counts + 1.0))
        for part in readout.modules():
            if isinstance(part, Generator) and part.own is not None:
                part.own.words.start(wanted, np.sqrt(counts + 1.0))
        for part in writers:
            if part.words is not None:
                part.words.copy_(torch.from_numpy(wanted))

    def remember(self, facts: dict[str, Any]) -> None:
        """Take over what an earlier, finished stage found out."""
        self.facts |= {name: value for name, value in facts.items() if name == FACT}

    def _report(self, vectors: StaticVectors, counts: np.ndarray, say: Callable[[str], None]) -> None:
        assert self.tokenizer is not None
        lines = vectors.report(counts, self.tokenizer.special_ids, self.tokenizer.token)
        if FACT not in self.facts:
            for line in lines:
                say(line)
        self.facts[FACT] = "; ".join(line.strip() for line in lines)


def with_file_width(config: TextConfig, base: Path) -> TextConfig:
    """The config with the width of its file of vectors, where it has one.

    Raises DataError when the file is missing or is none; ConfigError when the config says another width.
    """
    if config.vectors is None:
        return config
    numbers = shape_of(config.vectors.path, base).numbers
    if config.width not in (None, numbers):
        raise ConfigError(
            f"frontend.width is {config.width}, the vectors in {config.vectors.path} have {numbers} numbers",
            fix=f"leave frontend.width out: a linear layer brings {numbers} numbers to the encoder's width",
        )
    return config.model_copy(update={"width": numbers})

"""Token ids become vectors: one a token, made in the way the config names, plus one for each text of a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from encodery.batch import Batch, States
from encodery.frontends.characters import ConvolvedCharacters, Ngrams, Spelled
from encodery.frontends.embeddings import HashedTable, LearnedTable, StillTable
from encodery.frontends.options import OWN_OPTIONS, TextConfig
from encodery.frontends.sentence_ends import SentenceEnds

WordVectors = LearnedTable | HashedTable | StillTable | Ngrams | ConvolvedCharacters


class TextFrontend(nn.Module):
    """Batch -> States: `words[id] + segments[segment]`, (P,) -> (P, E). `width` is that of the encoder; `marks_ends`:
    it says as well which tokens end sentences."""

    def __init__(self, config: TextConfig, width: int, *, marks_ends: bool = False) -> None:
        super().__init__()
        assert config.vocab_size is not None, "vocab_size must be known before the model is built"
        self.config = config
        self.vocab_size = config.vocab_size
        self.width = config.width or width
        self.words = make_words(config, config.vocab_size, self.width)
        self.segments = nn.Embedding(config.segments, self.width) if config.segments else None
        self.sentence_ends = SentenceEnds(config.vocab_size) if marks_ends else None

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.words.initialise(self.config.embedding_std, generator)
            # Single texts never train the second row: starting at zero keeps a first pair task undisturbed.
            if self.segments is not None:
                self.segments.weight.zero_()

    @property
    def asks_for_spelling(self) -> bool:
        """Whether it must be told the text of each token: for vectors from characters, or for ends of sentences."""
        return isinstance(self.words, Spelled) or self.sentence_ends is not None

    def spell(self, tokens: Sequence[str | None]) -> None:
        """Hand in the text of each token (`Tokenizer.written()`), where it asks for them."""
        if isinstance(self.words, Spelled):
            self.words.spell(tokens)
        if self.sentence_ends is not None:
            self.sentence_ends.tell(tokens)

    def spread(self) -> None:
        """Once spelled: let fresh vectors that a network makes from characters begin as far apart as those of a table.
        Elsewhere they are from the first."""
        if isinstance(self.words, ConvolvedCharacters):
            self.words.spread(self.config.embedding_std, np.ones(self.vocab_size))

    @torch.no_grad()
    def fill(self, vectors: np.ndarray, found: np.ndarray) -> None:
        """Hand in vectors of a file (V, E) for the tokens that are `found` (V,): scaled together to the spread of the
        others, and held still unless they are to be tuned."""
        scaled = vectors[found] * (self.config.embedding_std / max(float(vectors[found].std()), 1e-12))
        tokens = np.flatnonzero(found)
        if isinstance(self.words, StillTable):
            self.words.hold(tokens, scaled)
        else:
            assert isinstance(self.words, LearnedTable), "only tables hold vectors of a file"
            self.words.weight[torch.from_numpy(tokens)] = torch.from_numpy(scaled)

    def describe(self) -> str:
        """In a few words, how vectors are made."""
        config = self.config
        if config.embedding == "characters":
            return f"characters, {config.character_model}"
        return {"learned": "embeddings", "hashed": "hashed embeddings"}.get(config.embedding, "static vectors")

    def flops(self) -> float:
        """Forward FLOPs per token; tables need none. A batch that has a token twice makes it once, so at most these."""
        return self.words.flops() if isinstance(self.words, ConvolvedCharacters) else 0.0

    def matrix(self) -> Tensor:
        """The vectors of all words, (V, E): what a word readout multiplies with."""
        return self.words.matrix()

    def forward(self, batch: Batch, words_PE: Tensor | None = None) -> States:
        """`words` are vectors to be used instead of those that the ids have."""
        x_PE = self.words(batch.values["ids"]) if words_PE is None else words_PE
        if self.segments is not None:
            segment_P = batch.values["segment"]
            x_PE = x_PE + self.segments(segment_P.clamp_max(self.segments.num_embeddings - 1))
        ends_P = None if self.sentence_ends is None else self.sentence_ends(batch.values["ids"])
        return States(x_PE, batch.layout, entity=batch.values.get("entity"), ends=ends_P)

    @torch.no_grad()
    def as_table(self) -> TextFrontend:
        """The same vectors as a learned table of all tokens: for other frameworks, which know no other kind."""
        of_one_kind = {"embedding", *(name for names in OWN_OPTIONS.values() for name in names)}
        config = TextConfig(**self.config.model_dump(exclude=of_one_kind))
        twin = TextFrontend(config, self.width, marks_ends=self.sentence_ends is not None).to(self.matrix().device)
        assert isinstance(twin.words, LearnedTable)
        twin.words.weight.copy_(self.matrix())
        if twin.segments is not None and self.segments is not None:
            twin.segments.weight.copy_(self.segments.weight)
        if twin.sentence_ends is not None and self.sentence_ends is not None:
            twin.sentence_ends.load_state_dict(self.sentence_ends.state_dict())
        return twin


def make_words(config: TextConfig, vocab_size: int, width: int) -> WordVectors:
    """The embedding that the config names, for V tokens and vectors of `width` numbers (E)."""
    if config.embedding == "hashed":
        sizes = {"rows": config.hash_rows, "hashes": config.hashes, "weights": config.hash_weights}
        return HashedTable(vocab_size, width, **sizes)
    if config.embedding == "characters" and config.character_model == "ngrams":
        return Ngrams(vocab_size, width, rows=config.ngram_rows, lengths=config.ngram_lengths)
    if config.embedding == "characters":
        return ConvolvedCharacters(
            vocab_size,
            width,
            rows=config.character_rows,
            character_width=config.character_width,
            kernels=config.character_kernels,
            filters=config.character_filters,
            highway_layers=config.highway_layers,
        )
    if config.vectors is not None and not config.vectors.tune:
        return StillTable(vocab_size, width, rows=config.vectors.rows)
    return LearnedTable(vocab_size, width)

"""The options of the frontends: how data becomes vectors. Read without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from encodery.config import Config
from encodery.typed_paths import a_path

EmbeddingName = Literal["learned", "hashed", "characters", "static"]


class VectorsConfig(Config):
    """Word vectors of a text file, one word a line and its numbers behind it, as word2vec, GloVe and fastText write."""

    shorthand: ClassVar[str] = "path"

    path: Annotated[str, a_path] = Field(min_length=1)
    """The file: .txt or .vec, or packed as .gz or .zst; with or without a first line `words numbers`."""
    tune: bool = True
    """Whether vectors of the file go on learning. When not, those of tokens that the file does not have still do."""
    first: int | None = Field(default=None, ge=1)
    """Read only so many words; files begin with the most frequent ones. By default all."""
    bad_rows_share: float = Field(default=0.01, ge=0, le=1)
    """Refuse the file when more than this share of its lines is damaged."""
    rows: int = Field(default=0, ge=0)
    """Tokens that have a vector in the file: counted when a run begins, and kept with the model."""


class TextConfig(Config):
    """Options of the text frontend."""

    kind: Literal["text"] = "text"
    vocab_size: int | None = Field(default=None, ge=1)
    """Tokens (V). Taken from the tokenizer when left out."""
    embedding: EmbeddingName = "learned"
    """How a token gets its vector: a row of its own in a learned table; a weighted sum of rows that it shares with
    others (hashed); made from its characters; or read from a file of word vectors (static)."""
    width: int | None = Field(default=None, ge=1, le=16384)
    """Numbers in each vector (E), where that is not the encoder's width: vectors are then widened by a linear layer
    (factorised embeddings, ALBERT, Lan et al. 2020). Static vectors have the width of their file."""
    segments: int = Field(default=2, ge=0, le=16)
    """Vectors that tell the texts of a pair apart; 0: none, 1: the same for both."""
    start: Literal["cooccurrence", "random"] = "cooccurrence"
    """Embeddings of a run that starts from nothing: factorised neighbour counts (seconds of work), or random."""
    embedding_std: float = Field(default=0.1, gt=0, le=10)
    """Spread of the embeddings at the start, random or from co-occurrence statistics."""

    # -- hashed
    hash_rows: int = Field(default=4096, ge=2, le=1 << 26)
    """For hashed: rows of the table that all tokens share (Svenstrup et al. 2017)."""
    hashes: int = Field(default=2, ge=1, le=16)
    """For hashed: rows that make a token, each chosen by a hash function of its own."""
    hash_weights: int = Field(default=1 << 15, ge=1, le=1 << 26)
    """For hashed: tokens that have weights of their own for their rows; beyond as many two share theirs."""

    # -- characters
    character_model: Literal["ngrams", "convolution"] = "ngrams"
    """For characters: the sum of hashed n-grams and the whole token (fastText, Bojanowski et al. 2017), or a
    convolution with highway layers (Kim et al. 2016)."""
    ngram_lengths: tuple[int, int] = (3, 6)
    """For n-grams: the shortest and the longest, the space before a word counted."""
    ngram_rows: int = Field(default=1 << 13, ge=2, le=1 << 26)
    """For n-grams: rows of the table that they are hashed into."""
    character_width: int = Field(default=16, ge=1, le=1024)
    """For the convolution: numbers in the vector of a character."""
    character_rows: int = Field(default=4096, ge=16, le=1 << 21)
    """For the convolution: vectors of characters, into which they are hashed."""
    character_kernels: tuple[int, ...] = (1, 2, 3, 4, 5)
    """For the convolution: widths of its filters, in characters."""
    character_filters: int = Field(default=30, ge=1, le=1024)
    """For the convolution: filters of each width, times the width."""
    highway_layers: int = Field(default=1, ge=0, le=8)
    """For the convolution: highway layers behind it (Srivastava et al. 2015)."""

    # -- static
    vectors: VectorsConfig | None = None
    """For static: the file of the vectors."""

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Options of the other kinds of embedding are not written: they would be today's defaults, and a later version
        with other defaults could not tell them from a person's wish."""
        others = {name for _, name in self._of_others()}
        return {name: value for name, value in write(self).items() if name not in others}

    @model_validator(mode="after")
    def _possible(self) -> TextConfig:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> list[str]:
        """Combinations that cannot be, each with the nearest thing that works."""
        found: list[str] = []
        for owner, name in self._of_others():
            if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default:
                wanted, _, model = owner.partition(".")
                needs = f"embedding: {wanted}" + (f" and character_model: {model}" if model else "")
                found.append(f"{name} needs {needs}; leave it out with embedding: {self.embedding}")
        if self.embedding == "static" and self.vectors is None:
            found.append("embedding: static needs the file of the vectors, as in vectors: {path: glove.txt}")
        least, most = self.ngram_lengths
        if not 1 <= least <= most <= LONGEST_NGRAM:
            found.append(
                f"ngram_lengths must be two numbers from 1 to {LONGEST_NGRAM}, the smaller first, as in [3, 6]"
            )
        if list(self.character_kernels) != sorted({n for n in self.character_kernels if 1 <= n <= LONGEST_NGRAM}):
            found.append(f"character_kernels must be widths from 1 to {LONGEST_NGRAM}, each once, in order")
        if not self.character_kernels:
            found.append("character_kernels names no width; [1, 2, 3, 4, 5] is the default")
        return found

    def _of_others(self) -> Iterator[tuple[str, str]]:
        """The options of the kinds of embedding that this one is not, each after the kind that has it."""
        kind = f"{self.embedding}.{self.character_model}" if self.embedding == "characters" else self.embedding
        for owner, names in OWN_OPTIONS.items():
            if owner not in (kind, self.embedding):
                yield from ((owner, name) for name in names)

    @property
    def makes_anew(self) -> bool:
        """Whether the vectors of all tokens cost more than an encoder: a word readout then has a matrix of its own."""
        return self.embedding == "characters" and self.character_model == "convolution"


LONGEST_NGRAM = 16
OWN_OPTIONS = {
    "hashed": ("hash_rows", "hashes", "hash_weights"),
    "characters": ("character_model",),
    "characters.ngrams": ("ngram_lengths", "ngram_rows"),
    "characters.convolution": (
        "character_width",
        "character_rows",
        "character_kernels",
        "character_filters",
        "highway_layers",
    ),
    "static": ("vectors",),
}
"""Options that one kind of embedding alone has."""


class VisionConfig(Config):
    """Options of the vision frontend: pictures of one size, cut in square patches."""

    kind: Literal["vision"] = "vision"
    channels: int = Field(default=3, ge=1, le=64)
    """Numbers of a pixel: 3 for red, green and blue."""
    height: int = Field(default=224, ge=1, le=16384)
    """Pixels from top to bottom."""
    width: int = Field(default=224, ge=1, le=16384)
    """Pixels from left to right."""
    patch: int = Field(default=16, ge=1, le=1024)
    """Pixels of the side of a patch."""

    @model_validator(mode="after")
    def _whole_patches(self) -> VisionConfig:
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"height {self.height} and width {self.width} must be multiples of patch {self.patch}")
        return self

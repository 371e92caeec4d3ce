"""The four types that travel between rooms: Sample, Batch (with its Layout), States and Output.

Shape letters, one legend for the whole project:

    B rows of a batch        T positions of a row      P = B * T packed positions (constant through a run)
    N documents of a batch   D width                   H heads      K width of a head
    V vocabulary             L depth                   M masked positions      C classes

A batch is ragged: documents of different lengths are laid one after the other into B rows of T positions and
kept flat as (P, ...). Linear layers see one constant shape; only attention looks at the rows. Padding exists
only where no document fits any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One example before it is packed, numpy only.

    `ids` (n,) are token ids with the special tokens in place; `starts_word` (n,) marks the first token of each
    word; `segment` (n,) is 0 for the first text of a pair and 1 for the second. `uid` is stable: it names the
    row the sample was cut from, `part` counts its windows when a long row was split. `entity` (n,) numbers the entity
    that a token names, 0 for none; `tree` says where triples were written behind the text. `beside` holds more numbers
    (n,) by name, 0 at special tokens: what the fields of the data say of each token (data/fields.py).
    """

    ids: np.ndarray
    starts_word: np.ndarray
    segment: np.ndarray
    uid: int
    part: int = 0
    entity: np.ndarray | None = None
    tree: Tree | None = None
    beside: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tree:
    """A text (the trunk) with triples written behind it (branches), numpy (n,) each (K-BERT, Liu et al. 2020).

    `position` is soft: the trunk counts as if it stood alone, a branch goes on from the end of its mention. `branch`
    is 0 in the trunk, else the number of the branch. `mention` numbers the words that branches belong to, at these
    words and in their branches; 0 elsewhere.
    """

    position: np.ndarray
    branch: np.ndarray
    mention: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Where each document of a batch lies.

    `document` (P,) numbers the document of every position, -1 for padding. `position` (P,) counts from 0 inside
    each document. `starts` and `lengths` (N,) are the flat start and the length of each document. `grid` (P, 2), for
    pictures, is the row and the column of a position. `branch` and `mention` (P,) are there where triples are written
    behind a text: see Tree.

    A `traced` layout is one that a tracer reads (interop/onnx): each row holds one document from its beginning on, and
    what is done must follow from the shapes alone, never from the numbers.
    """

    rows: int
    length: int
    document: Tensor
    position: Tensor
    starts: Tensor
    lengths: Tensor
    grid: Tensor | None = None
    traced: bool = False
    branch: Tensor | None = None
    mention: Tensor | None = None
    # Attention masks and blocks of this layout, one per pattern: every layer of a step asks for the same few.
    masks: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def positions(self) -> int:
        """P, the token budget of the batch."""
        return self.rows * self.length

    @property
    def documents(self) -> int:
        """N, how many documents the batch holds."""
        return self.starts.numel()

    @property
    def real_tokens(self) -> int:
        """How many positions are not padding."""
        return int(self.lengths.sum())

    def to(self, device: torch.device) -> Layout:
        if self.document.device == device:
            return self
        names = ("document", "position", "starts", "lengths", "grid", "branch", "mention")
        given = {name: getattr(self, name) for name in names}
        moved = {name: None if value is None else value.to(device) for name, value in given.items()}
        return replace(self, **moved, masks={})

    def without_branches(self) -> Layout:
        """The documents alone: where triples are written behind them, these become padding."""
        if self.branch is None:
            return self
        document = self.document.masked_fill(self.branch > 0, -1)
        counts = document.new_zeros(self.documents + 1)
        lengths = counts.index_add(0, document + 1, document.new_ones(()).expand_as(document))[1:]
        return replace(self, document=document, lengths=lengths, branch=None, mention=None, masks={})


def layout_of(rows: list[list[int]], length: int) -> Layout:
    """Lay documents of the given lengths into rows of `length` positions, in order.

    `rows` holds, for each row, the lengths of its documents. The sum of a row must not exceed `length`.
    """
    import torch  # only here: a Sample is made and read without it

    document = np.full(len(rows) * length, -1, dtype=np.int64)
    position = np.zeros(len(rows) * length, dtype=np.int64)
    starts, lengths = [], []
    for row, sizes in enumerate(rows):
        assert sum(sizes) <= length, f"row {row} holds {sum(sizes)} tokens, more than its {length} positions"
        at = row * length
        for size in sizes:
            document[at : at + size] = len(starts)
            position[at : at + size] = np.arange(size)
            starts.append(at)
            lengths.append(size)
            at += size
    return Layout(
        rows=len(rows),
        length=length,
        document=torch.from_numpy(document),
        position=torch.from_numpy(position),
        starts=torch.tensor(starts, dtype=torch.int64),
        lengths=torch.tensor(lengths, dtype=torch.int64),
    )


@dataclass(frozen=True)
class Batch:
    """A ragged batch: `values` (P, ...) by name, their `layout`, and what the objective needs beside them.

    `values` holds at least `ids` (P,) for text; `truth` holds what the loss compares with: `label` (N, ...), or
    after masking `at` and `target` (M,). `uids` and `parts` (N,) say which row and which window of it each
    document is. `target`, where texts are to be written, is what a decoder reads: its document n belongs to document n
    of this batch, and its own `truth["target"]` is the token that follows at each position. `views` are the same
    rows as each of several objectives has prepared them (objectives/several.py).
    """

    values: dict[str, Tensor]
    layout: Layout
    truth: dict[str, Tensor] = field(default_factory=dict)
    uids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    target: Batch | None = None
    views: tuple[Batch, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens of the rows the batch stands for: also those that noise has taken away, which leaves the
        sizes that documents had in `truth["sizes"]` (N,)."""
        sizes = self.truth.get("sizes")
        return self.layout.real_tokens if sizes is None else int(sizes.sum())

    def to(self, device: torch.device) -> Batch:
        if self.layout.document.device == device:
            return self
        return replace(
            self,
            values={name: value.to(device, non_blocking=True) for name, value in self.values.items()},
            truth={name: value.to(device, non_blocking=True) for name, value in self.truth.items()},
            layout=self.layout.to(device),
            target=None if self.target is None else self.target.to(device),
            views=tuple(view.to(device) for view in self.views),
        )


@dataclass(frozen=True)
class States:
    """Vectors (P, D) with the layout they came with.

    `summary` holds the vectors of whole segments where the encoder makes some (hierarchical ones): what is asked of a
    document is then read from these. `balance` is how unevenly experts were used, 1 at best (bricks/experts.py).
    `entity` (P,) numbers the entity that each position names, 0 for none; None where the data marks no entities. `ends`
    (P,) bool marks tokens that end a sentence, for encoders that ask for it.
    """

    vectors: Tensor
    layout: Layout
    summary: States | None = None
    balance: Tensor | None = None
    entity: Tensor | None = None
    ends: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """What a readout gives: `logits` (N, C) or (M, V), and the pooled `vectors` (N, D) they came from.

    `parts` are the answers whose weighted sum is `logits`, the encoder's first; empty when there is only one.
    `balance` comes from the States. `links` (2 T, E) scores each of E entities as the missing part of T triples: their
    tails first, then their heads (heads/links.py). `tokens` (P, K) are vectors of the positions themselves, for late
    interaction (heads/late_interaction.py). `scale` is the learned number that similarities are multiplied with.
    `spans` (P, W) scores the spans of 1 to W positions that begin at each position (heads/spans.py). `copied` (2, P)
    are the share that the vocabulary has in what a decoder writes next, and how likely copying gives the token that
    follows (heads/decoding/decoder.py). `chain` scores what tags begin with (C,), end with (C,) and are followed by
    (C, C), and `classes` (N, K) are logits of the whole document beside `logits` of its units, the weighted sum of
    `class_parts` where there are some (heads/tagging/tags.py).
    """

    logits: Tensor | None = None
    vectors: Tensor | None = None
    parts: tuple[Tensor, ...] = ()
    balance: Tensor | None = None
    links: Tensor | None = None
    tokens: Tensor | None = None
    scale: Tensor | None = None
    spans: Tensor | None = None
    copied: Tensor | None = None
    chain: tuple[Tensor, Tensor, Tensor] | None = None
    classes: Tensor | None = None
    class_parts: tuple[Tensor, ...] = ()

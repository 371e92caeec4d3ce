"""Vectors learned by comparing texts: those that belong together close, others apart; or as close as people say.

    infonce   - log exp(s(a, p) / t) / sum over candidates c of exp(s(a, c) / t)   van den Oord et al. 2018, equation 4
    cosine    (s(a, b) - y)^2                                                      Reimers and Gurevych 2019, section 3
    cosent    log(1 + sum over y_i < y_j of exp((s_i - s_j) / t))                  Su 2022
    pearson   1 - the correlation of s and y over the batch

where s is the cosine of two vectors, or MaxSim of the vectors of their positions, a the first text of a row and p the
second, and the candidates are the second texts and the hard negatives of all rows. A candidate that reads like a or p,
or that is the second text of another row whose first reads like a, is no wrong answer and is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.heads.late_interaction import Ragged, maxsim, paired_maxsim
from encodery.heads.options import DenseConfig, VectorReadoutConfig
from encodery.heads.vector_options import TokenReadoutConfig
from encodery.objectives.contrastive_options import GRADED, ContrastConfig, EmbedConfig
from encodery.objectives.masked import Loss
from encodery.trained import Task

TOKEN_WIDTH = 128
"""Numbers of a token's vector in late interaction, as in ColBERT."""


@dataclass(frozen=True)
class Texts:
    """All texts of a step. `vectors` (N, D) have length 1; with late interaction `tokens` hold theirs instead. `row`
    (N,) tells which belong together, `part` (N,) is 0 for the first of a row, 1 for the second, more for its hard
    negatives; `same` (N,) is equal for texts that read the same, `source` (N,) for windows of one text, `label` (N,) is
    the number that the row carries."""

    row: Tensor
    part: Tensor
    same: Tensor
    source: Tensor
    vectors: Tensor | None = None
    tokens: Ragged | None = None
    label: Tensor | None = None
    scale: Tensor | None = None

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The numbers of the first texts and of the second texts, row by row: (R,) each."""
        first, second = ((self.part == side).nonzero()[:, 0] for side in (0, 1))
        first, second = (found[torch.argsort(self.row[found], stable=True)] for found in (first, second))
        assert torch.equal(self.row[first], self.row[second]), "the texts of a row came in different batches"
        return first, second


def gathered(outputs: Sequence[Output], batches: Sequence[Batch]) -> Texts:
    """The texts of several batches as one set."""
    rows, before = [], 0
    for batch in batches:
        # The same row may come twice in a step, at the end of an epoch and at the beginning of the next.
        _, local = torch.unique(batch.truth["row"], return_inverse=True)
        rows.append(local + before)
        before += int(local.max()) + 1 if local.numel() else 0
    named = {name: torch.cat([batch.truth[name] for batch in batches]) for name in ("part", "same", "source")}
    labels = [batch.truth["label"] for batch in batches if "label" in batch.truth]
    vectors = [output.vectors for output in outputs if output.vectors is not None]
    tokens = [Ragged.of(out.tokens, batch.layout) for out, batch in zip(outputs, batches) if out.tokens is not None]
    return Texts(
        torch.cat(rows),
        **named,
        vectors=F.normalize(torch.cat(vectors).float(), dim=-1) if vectors else None,
        tokens=Ragged.joined(tokens) if tokens else None,
        label=torch.cat(labels).float() if len(labels) == len(batches) else None,
        scale=outputs[0].scale,
    )


class Contrastive:
    """The objective: hides nothing, needs vectors, and looks at all batches of a step together (`joint_loss`).

    `low` and `high` are the ends of the labels' scale. With ContrastConfig each text comes twice (SimCSE, Gao et al.
    2021): only dropout tells the two apart.
    """

    def __init__(self, config: EmbedConfig | ContrastConfig, *, low: float = 0.0, high: float = 1.0) -> None:
        self.config = config
        self.low, self.high = low, high
        self.twice = isinstance(config, ContrastConfig)
        self.graded = isinstance(config, EmbedConfig) and config.loss in GRADED

    def readout(self) -> VectorReadoutConfig | TokenReadoutConfig:
        config = self.config
        scale = 1 / config.temperature if config.learn_temperature else None
        if isinstance(config, EmbedConfig) and config.late:
            return TokenReadoutConfig(outputs=config.width or TOKEN_WIDTH, scale=scale)
        dense = () if config.width is None else (DenseConfig(outputs=config.width, bias=False),)
        first = dense if isinstance(config, EmbedConfig) and config.heads == "two" else None
        return VectorReadoutConfig(pooling=config.pooling, dense=dense, first_dense=first, scale=scale)

    def task(self) -> Task:
        """What is needed to use the vectors."""
        if not isinstance(self.config, EmbedConfig):
            return Task("vectors", detail={"dimensions": list(self.config.dimensions)})
        detail = {"loss": self.config.loss, "graded": self.graded, "dimensions": list(self.config.dimensions)}
        return Task("embed", detail=detail | ({"low": self.low, "high": self.high} if self.graded else {}))

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """`truth` gets `row`, `part`, `same` and `source` (N,): see Texts."""
        del rng, progress
        parts = np.asarray(batch.parts)
        # Of a text that comes twice, each window does: 0 and 1 are its first, 2 and 3 its second.
        rows = (batch.uids << 20) + parts // 2 if self.twice else batch.uids
        found = {
            "row": rows,
            "part": parts % 2 if self.twice else parts,
            "same": _same(batch),
            "source": batch.uids,
        }
        numbers = {name: torch.from_numpy(np.asarray(value, dtype=np.int64)) for name, value in found.items()}
        return replace(batch, truth={**batch.truth, **numbers})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """The loss of one batch by itself."""
        return self.joint_loss([output], [batch])

    def joint_loss(self, outputs: Sequence[Output], batches: Sequence[Batch]) -> Loss:
        """The loss summed over the rows of all `batches`; `count` is their number. `correct` counts the rows whose
        second text is the closest candidate to their first."""
        texts = gathered(outputs, batches)
        device = texts.row.device
        with torch.autocast(device.type, enabled=False):
            widths = self.config.dimensions if texts.vectors is not None else ()
            found = self._loss(texts)
            total, correct = found
            for width in widths:
                total = total + self._loss(_prefix(texts, width))[0]
        return Loss(total / (1 + len(widths)), torch.tensor(float(texts.pairs()[0].numel())), correct)

    def _loss(self, texts: Texts) -> tuple[Tensor, Tensor | None]:
        if self.graded:
            return self._graded(texts), None
        return self._infonce(texts)

    def _graded(self, texts: Texts) -> Tensor:
        """Summed over the rows (each counts the same share of a loss that is one of the whole batch)."""
        assert isinstance(self.config, EmbedConfig) and texts.label is not None, "a graded loss needs numbers"
        first, second = texts.pairs()
        close_R = closeness(texts, first, second)
        wanted_R = (texts.label[first] - self.low) / max(self.high - self.low, 1e-9)
        if self.config.loss == "cosine":
            return (close_R - wanted_R).square().sum()
        rows = close_R.numel()
        if self.config.loss == "pearson":
            return rows * (1 - correlation(close_R, wanted_R))
        return rows * cosent(close_R * self._scale(texts), wanted_R)

    def _infonce(self, texts: Texts) -> tuple[Tensor, Tensor]:
        first, second = texts.pairs()
        candidates = torch.cat([second, (texts.part > 1).nonzero()[:, 0]])
        scores_RC = all_closeness(texts, first, candidates) * self._scale(texts)
        allowed_RC = allowed(texts, first, second, candidates)
        right_R = torch.arange(first.numel(), device=first.device)
        masked_RC = scores_RC.masked_fill(~allowed_RC, -torch.inf)
        total = F.cross_entropy(masked_RC, right_R, reduction="sum")
        correct = (masked_RC.detach().argmax(1) == right_R).sum()
        if not self.config.symmetric:
            return total, correct
        rows = first.numel()
        # The same products, read from the second texts: which of the first ones belongs to each?
        among = allowed(texts, second, first, first)
        back = F.cross_entropy(scores_RC[:, :rows].t().masked_fill(~among, -torch.inf), right_R, reduction="sum")
        return (total + back) / 2, correct

    def _scale(self, texts: Texts) -> Tensor | float:
        return 1 / self.config.temperature if texts.scale is None else texts.scale


def closeness(texts: Texts, first: Tensor, second: Tensor) -> Tensor:
    """Of the texts `first` and `second`, one by one: (R,)."""
    if texts.tokens is not None:
        return paired_maxsim(texts.tokens.taken(first), texts.tokens.taken(second))
    assert texts.vectors is not None
    return (texts.vectors[first] * texts.vectors[second]).sum(1)


def all_closeness(texts: Texts, first: Tensor, candidates: Tensor) -> Tensor:
    """Of each of `first` with each of `candidates`: (R, C)."""
    if texts.tokens is not None:
        return maxsim(texts.tokens.taken(first), texts.tokens.taken(candidates))
    assert texts.vectors is not None
    return texts.vectors[first] @ texts.vectors[candidates].t()


def allowed(texts: Texts, asked: Tensor, right: Tensor, candidates: Tensor) -> Tensor:
    """Which candidates count for each text that is asked about, (R, C): its right answer (the candidate of its own
    place), and all that may be taken for wrong ones: no copies of it or of its answer, no answers of its copies, no
    other window of its text."""
    same, source, row = texts.same, texts.source, texts.row
    copies = (same[candidates] == same[asked][:, None]) | (same[candidates] == same[right][:, None])
    # The first candidates are those that `asked` belong to, one by one; hard negatives belong to none.
    rows = asked.numel()
    copies[:, :rows] |= same[asked] == same[asked][:, None]
    windows = (source[candidates] == source[asked][:, None]) & (row[candidates] != row[asked][:, None])
    found = ~(copies | windows)
    places = torch.arange(asked.numel(), device=asked.device)
    found[places, places] = True
    return found


def cosent(scores_R: Tensor, wanted_R: Tensor) -> Tensor:
    """log(1 + sum of exp(s_i - s_j) over all pairs of rows with y_i < y_j) (Su 2022, CoSENT): a rank loss."""
    apart = scores_R[:, None] - scores_R[None, :]
    wrong_way = wanted_R[:, None] < wanted_R[None, :]
    return torch.logsumexp(F.pad(apart[wrong_way], (1, 0)), 0)


def correlation(x_R: Tensor, y_R: Tensor) -> Tensor:
    """Pearson's r; 0 where one of them does not vary."""
    x_R, y_R = x_R - x_R.mean(), y_R - y_R.mean()
    size = (x_R.square().sum() * y_R.square().sum()).clamp_min(1e-12).sqrt()
    return (x_R * y_R).sum() / size


def _prefix(texts: Texts, width: int) -> Texts:
    """The first numbers of each vector alone (Kusupati et al. 2022, Matryoshka, equation 1, all weights 1)."""
    assert texts.vectors is not None
    return replace(texts, vectors=F.normalize(texts.vectors[:, :width], dim=-1))


def _same(batch: Batch) -> np.ndarray:
    """A number for what each document reads, (N,): equal for equal tokens."""
    ids = batch.values["ids"].numpy()
    found = np.empty(batch.layout.documents, dtype=np.int64)
    for place, (start, size) in enumerate(zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist())):
        digest = hashlib.blake2b(ids[start : start + size].tobytes(), digest_size=8).digest()
        found[place] = int.from_bytes(digest, "big", signed=True)
    return found

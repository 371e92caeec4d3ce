"""Tags of words or characters, given by people, and the class of the whole text beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.data.rows import Labels
from encodery.data.store import TokenStore
from encodery.data.tag_field import NOT_TAGGED, TagField
from encodery.data.tags import SchemeName, parse, write
from encodery.data.tagsets import Tagset
from encodery.errors import ConfigError, DataError
from encodery.heads.tagging.crf import Chain, lay_out, log_partition, marginals, path_score
from encodery.heads.tagging.options import TagReadoutConfig
from encodery.objectives.divergence import divergence
from encodery.objectives.masked import Loss
from encodery.trained import Task

if TYPE_CHECKING:
    from encodery.data.source_config import DataConfig


class TaggingConfig(Config):
    """How words or characters are tagged. The columns are `data.tags` or `data.spans`."""

    kind: Literal["tag"] = "tag"
    scheme: SchemeName | Literal["auto"] = "auto"
    """How the tags of the data are written: none (they stand for themselves: parts of speech), iob1, bio, bioes, bmes.
    A row whose tags do not fit is bad. auto: told by the data; tags that do not fit are mended and counted."""
    learned: Literal["same", "bio", "bioes", "bmes"] = "same"
    """The scheme that spans are learned in: as the data has them (iob1 as bio), or another one."""
    units: Literal["words", "characters"] = "words"
    """What carries a tag. characters: every word of the data is a span of its characters, as in Chinese; without tags
    the words themselves are what is learned (segmentation)."""
    crf: bool = True
    """Whether what neighbouring tags say of each other is learned (a conditional random field). The scheme is kept
    to either way."""
    intent: bool = False
    """Whether the class of the whole text, `data.label`, is learned beside the tags."""
    intent_weight: float = Field(default=1.0, gt=0, le=100)
    """What the loss of that class weighs; that of the tags weighs 1."""
    pooling: PoolingName = "mean"
    """For the class of the whole text: first, mean, max, attention."""
    drop_rate: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the vectors that tags are read from."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over the tags (Szegedy et al. 2016); with crf over the scores of the units."""
    linear: bool = False
    """Whether a linear answer from the words, their affixes and their neighbours is fitted beside the encoder, and with
    `intent` another one from runs of tokens and letters; what the answers weigh is told by the validation rows. With
    some ten thousand texts it helps much."""
    linear_buckets: int = Field(default=1 << 17, ge=1 << 8, le=1 << 24)
    """With `linear`: numbers that its features are hashed to, each with a weight for every tag."""
    overlap: int = Field(default=32, ge=0, le=4096)
    """Tokens that neighbouring windows of a long text share; of two answers the one with more context counts."""

    @property
    def labels(self) -> Labels:
        """What the label column has to hold."""
        return "class" if self.intent else "none"

    @property
    def compose(self) -> str:
        """How samples are made of a row (data/composing.py)."""
        return f"windows:{self.overlap}"

    def fields(self, data: DataConfig) -> tuple[TagField]:
        """What rows carry beside their text. Raises ConfigError when the recipe names no column for it."""
        if data.tags is not None and data.spans is not None:
            raise ConfigError("data.tags and data.spans are both there", fix="keep the one that holds the truth")
        if data.tags is None and data.spans is None and self.units == "words":
            raise ConfigError(
                "objective.kind tag, but the recipe names no column with tags",
                expected="data.tags (a tag for each word) or data.spans ([[start, stop, label], ...])",
                fix="add data.tags=COLUMN; to learn to cut texts into words, set objective.units=characters",
            )
        sources = (*data.train, *(data.validation or ()), *(data.test or ()))
        if data.pair is not None or any(source.pair is not None for source in sources):
            raise ConfigError("objective.kind tag with data.pair", expected="one text a row: tags are of one text")
        texts = [data.text, *(source.text for source in sources)]
        if any(isinstance(text, list) for text in texts):
            raise ConfigError(
                "data.text is several columns", expected="one column whose words or characters are tagged"
            )
        names = tuple(dict.fromkeys(str(text) for text in texts if text is not None))
        return (TagField(names, data.tags, data.spans, self.scheme, self.learned, self.units),)


class Tagging:
    """The objective: hides nothing, needs a tag readout, scores its logits against the tags of the units.

    Without crf: cross-entropy of each unit. With it: minus the log-likelihood of the tags of each text, log Z minus
    their score (heads/tagging/crf.py). Both are counted per unit. A window that begins or ends inside of a span has its
    edge tags rewritten, so that they fit the scheme. With `intent` the cross-entropy of the text's class is added.
    """

    def __init__(self, config: TaggingConfig, tagset: Tagset, classes: list[str]) -> None:
        self.config = config
        self.tagset = tagset
        self.classes = classes if config.intent else []
        self._begins, self._ends = edge_tags(tagset)

    def readout(self) -> TagReadoutConfig:
        return TagReadoutConfig(
            tags=self.tagset.names,
            scheme=self.tagset.scheme,
            crf=self.config.crf,
            classes=len(self.classes),
            pooling=self.config.pooling,
            drop_rate=self.config.drop_rate,
            linear=self.config.linear,
            linear_buckets=self.config.linear_buckets,
            units=self.config.units,
        )

    @classmethod
    def of(cls, config: TaggingConfig, store: TokenStore) -> Tagging:
        """The objective for the tags of the training rows. Raises DataError when there are not two of them."""
        facts = store.facts["fields"]["tags"]
        if len(facts["tag_counts"]) < 2:
            found = f"only the tag {next(iter(facts['tag_counts']))!r}" if facts["tag_counts"] else "no tags"
            raise DataError(
                f"the training data has {found} in its {store.rows:,} rows",
                expected="at least two different tags",
                fix="check data.tags (or data.spans), objective.scheme and the files",
            )
        return cls(config, Tagset.from_dict(facts), store.label_names)

    def task(self) -> Task:
        """What is needed to read the answers again."""
        asked = self.config.model_dump(include={"scheme", "learned", "units", "crf"})
        kept = {"tags": self.tagset.to_dict()}
        return Task("tag", tuple(self.classes), detail={"fields": kept, "tagging": asked})

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """`truth` gets `tag` (U,), the number of the tag of each unit, -1 where it is not known, and `owner` (U,), the
        document of the unit."""
        del rng, progress
        stands = batch.values["tags"]
        at = stands.nonzero()[:, 0]
        tag, owner = stands[at] - NOT_TAGGED - 1, batch.layout.document[at]
        if self.tagset.scheme != "none" and len(tag):
            first = torch.ones(len(tag), dtype=torch.bool)
            first[1:] = owner[1:] != owner[:-1]
            last = torch.ones(len(tag), dtype=torch.bool)
            last[:-1] = first[1:]
            tag = torch.where(first & (tag >= 0), self._begins[tag.clamp_min(0)], tag)
            tag = torch.where(last & (tag >= 0), self._ends[tag.clamp_min(0)], tag)
        return replace(batch, truth={**batch.truth, "tag": tag, "owner": owner})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Summed over the units of the batch; right are the units whose highest score is that of their tag."""
        assert output.logits is not None and output.chain is not None
        logits_UC, tag_U, owner_U = output.logits.float(), batch.truth["tag"], batch.truth["owner"]
        smoothing = self.config.label_smoothing
        units = torch.tensor(float(len(tag_U)))
        if self.config.crf:
            total = chain_loss(output, tag_U, owner_U, batch.layout.documents, smoothing)
        else:
            total = F.cross_entropy(logits_UC, tag_U, label_smoothing=smoothing, reduction="sum", ignore_index=-1)
        correct = (logits_UC.detach().argmax(1) == tag_U).sum()
        if output.classes is None:
            return Loss(total, units, correct)
        classes = F.cross_entropy(output.classes.float(), batch.truth["label"])
        parts = {"tags": total.detach() / max(1, len(tag_U)), "class": classes.detach()}
        return Loss(total + self.config.intent_weight * classes * len(tag_U), units, correct, parts)

    def disagreement(self, one: Output, other: Output, batch: Batch) -> Tensor:
        """How far two answers to the same texts are apart, summed over their units, and with `intent` in the class of
        the text, which weighs what it does in the loss."""
        assert one.logits is not None and other.logits is not None
        if self.config.crf:
            apart = chain_divergence(one, other, batch.truth["owner"], batch.layout.documents)
        else:
            apart = divergence(one.logits, other.logits).sum()
        if one.classes is None or other.classes is None:
            return apart
        classes = divergence(one.classes, other.classes).mean()
        return apart + self.config.intent_weight * classes * len(one.logits)


def chain_loss(output: Output, tag_U: Tensor, owner_U: Tensor, documents: int, smoothing: float) -> Tensor:
    """Minus the log-likelihood of the tags of each document, summed. Of documents with a tag that is not known nothing
    counts. Smoothing gives a share of each unit's score to all tags alike."""
    assert output.logits is not None and output.chain is not None
    known_N = torch.ones(documents, dtype=torch.bool, device=owner_U.device)
    known_N[owner_U[tag_U < 0]] = False
    kept = known_N[owner_U]
    logits_UC, tag_U, owner_U = output.logits.float()[kept], tag_U[kept], owner_U[kept]
    chain, steps = Chain(*output.chain), lay_out(owner_U, documents)
    score_N = path_score(logits_UC, tag_U, chain, steps, owner_U)
    if smoothing:
        own_U = logits_UC.gather(1, tag_U[:, None])[:, 0]
        score_N = score_N.index_add(0, owner_U, (smoothing * (logits_UC.mean(1) - own_U)).double())
    return (log_partition(logits_UC, chain, steps) - score_N).sum().float()


def chain_divergence(one: Output, other: Output, owner_U: Tensor, documents: int) -> Tensor:
    """The mean of KL(p || q) and KL(q || p) of two distributions over the paths of each document, summed.

    They share the chain, so scores of paths differ by emissions alone, and what differs is counted as often as the tag
    is expected: (marginals of p - marginals of q) (emissions of p - emissions of q) / 2. Each learns from the other as
    if that stood still: to learn from itself as well would take second derivatives of log Z.
    """
    assert one.logits is not None and other.logits is not None and one.chain is not None
    chain = Chain(*(part.detach() for part in one.chain))
    one_UC, other_UC = one.logits.float(), other.logits.float()
    p_UC, q_UC = (marginals(scores.detach(), chain, owner_U, documents) for scores in (one_UC, other_UC))
    return ((p_UC - q_UC).float() * (one_UC - other_UC)).sum() / 2


def edge_tags(tagset: Tagset) -> tuple[Tensor, Tensor]:
    """What each tag becomes as the first and as the last of a window, (C,) each: I becomes B, or B becomes S."""
    names = tagset.names
    number = {name: place for place, name in enumerate(names)}
    begins, ends = list(range(len(names))), list(range(len(names)))
    if tagset.scheme == "none":
        return torch.tensor(begins), torch.tensor(ends)
    whole = tagset.scheme in ("bioes", "bmes")
    for place, name in enumerate(names):
        letter, label = parse(name)
        begins[place] = number[write({"I": "B", "E": "S"}.get(letter, letter), label, tagset.scheme)]
        if whole:
            ends[place] = number[write({"B": "S", "I": "E"}.get(letter, letter), label, tagset.scheme)]
    return torch.tensor(begins), torch.tensor(ends)

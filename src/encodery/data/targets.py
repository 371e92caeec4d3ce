"""Rows with a text that is to be written: read, tokenised beside their source, packed on both sides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encodery.batch import Batch, Sample
from encodery.data import ledger
from encodery.data.fields import BadField
from encodery.data.loader import Loader
from encodery.data.order import shuffled
from encodery.data.packing import BatchPlan, pack
from encodery.data.pair_packing import PairPlan, PairShape, plan_pairs, settled_shape
from encodery.data.rows import readable
from encodery.data.samples import SampleMaker
from encodery.data.store import TokenStore
from encodery.data.text_sample import clean_surrogates
from encodery.data.tokenizers import Tokenizer
from encodery.data.unknown_words import MOSTLY_UNKNOWN, unknown_shares
from encodery.errors import DataError

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.tokenizers import Encoded

TARGET = "target"
"""Name of the field, and of its texts in a store."""
NOTHING_FOLLOWS = -100
"""Stands where no token is to be guessed (objectives/cross_entropy.py)."""


@dataclass
class TargetField:
    """The column of the target (data/fields.py, Field): a text, or a list of texts that are all right. The first one is
    learned; against all of them what was written is scored. A source that is a list of sentences becomes one text."""

    column: str
    texts_in: tuple[str, ...] = ()
    own_tokenizer: Tokenizer | None = None
    own: bool = False
    """Whether targets have a tokenizer of their own, which may still have to be trained."""
    name: str = TARGET

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        return ((TARGET, self.column),)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """That of the targets, where they have one of their own."""
        return self.own_tokenizer

    def key(self) -> object:
        """Part of the name of token caches."""
        return (1, self.column, self.own, None if self.own_tokenizer is None else self.own_tokenizer.hash())

    def text(self, value: Mapping[str, Any]) -> str | None:
        """A list of sentences as one text."""
        given = next((value[name] for name in self.texts_in if name in value), None)
        if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given):
            return " ".join(one.strip() for one in given)
        return None

    def read(self, value: Mapping[str, Any], text: str) -> tuple[str, ...]:
        """The right texts. Raises BadField."""
        del text
        if self.column not in value:
            there = ", ".join(repr(name) for name in value)
            raise BadField(ledger.MISSING_TARGET, f"no '{self.column}'; the row has {there}")
        found = tuple(one for one in map(_clean, _texts(value[self.column])) if readable(one))
        if not found:
            raise BadField(ledger.EMPTY_TARGET)
        return found

    def gatherer(self, known: Mapping[str, Any] | None) -> TargetGatherer:
        """For one store."""
        del known
        return TargetGatherer()


def _texts(given: Any) -> list[str]:
    if given is None or given != given:
        return []
    if isinstance(given, str) and given.lstrip().startswith('["'):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return [str(given)]  # a text that begins with a bracket
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = str(given)
    texts = list(given) if isinstance(given, list | tuple) else [given]
    if wrong := next((one for one in texts if not isinstance(one, str)), None):
        raise BadField(ledger.BAD_TARGET, f"a {type(wrong).__name__}")
    return [str(one) for one in texts]


def _clean(text: str) -> str:
    return clean_surrogates(text.replace("\x00", "")).removeprefix("\ufeff").strip()


class TargetGatherer:
    """The targets of one store (data/fields.py, Gatherer)."""

    def __init__(self) -> None:
        self.rows = self.several = 0

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        """Nothing is said of single tokens."""
        del rows, encoded
        return {}

    def texts(self, rows: Sequence[Row]) -> list[list[str]]:
        """The first of the right texts of each row."""
        self.rows += len(rows)
        self.several += sum(len(row.beside[TARGET]) > 1 for row in rows)
        return [[row.beside[TARGET][0]] for row in rows]

    def facts(self) -> dict[str, Any]:
        return {"rows": self.rows, "rows with several targets": self.several}


def target_lengths(store: TokenStore) -> np.ndarray:
    """Tokens of the target of each row, (rows,)."""
    return np.diff(store.texts_beside[TARGET].starts)


def target_facts(store: TokenStore, tokenizer: Tokenizer, most_tokens: int) -> dict[str, int]:
    """What is worth saying of the targets: how long they are, how many are cut, what the tokenizer does not know.

    Raises DataError when most of what is to be written are tokens that the tokenizer has never seen.
    """
    lengths = target_lengths(store)
    cut = lengths > most_tokens - 1
    facts = {
        "tokens of targets": int(lengths.sum()),
        "median length of targets": int(np.median(lengths)) if lengths.size else 0,
        "longest target": int(lengths.max(initial=0)),
        "targets cut": int(cut.sum()),
        "tokens of targets cut": int((lengths[cut] - (most_tokens - 1)).sum()),
    }
    if tokenizer.unk_id is None or not lengths.size:
        return facts
    texts = store.texts_beside[TARGET]
    shares = unknown_shares(texts.tokens, texts.starts, tokenizer.unk_id)
    unknown = np.rint(shares * lengths).astype(np.int64)
    facts["unknown tokens in targets"] = int(unknown.sum())
    facts["targets mostly unknown"] = int((shares > MOSTLY_UNKNOWN).sum())
    if unknown.sum() > MOSTLY_UNKNOWN * lengths.sum():
        raise DataError(
            f"{int(unknown.sum()):,} of the {int(lengths.sum()):,} tokens of the targets are unknown to the tokenizer: "
            f"the targets of {facts['targets mostly unknown']:,} of {lengths.size:,} rows are in a script that it has "
            "never seen",
            expected="a tokenizer that was trained on text like the targets",
            fix="let the run train one (leave tokenizer.path and start_from out), or give the targets a tokenizer of "
            "their own: objective.decoder.vocabulary=own",
        )
    return facts


@dataclass(frozen=True, slots=True)
class PairSample(Sample):
    """A source with what is to be written: `target` (n,) ids, without the tokens around them; `whole` unless its end
    was cut."""

    target: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    whole: bool = True


@dataclass(frozen=True)
class TargetFrame:
    """How targets lie in a batch: they begin with one token and end with another; at most `most_tokens` positions."""

    begin_id: int
    end_id: int
    pad_id: int
    most_tokens: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, most_tokens: int) -> TargetFrame:
        return cls(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, most_tokens)


def shape_of(store: TokenStore, maker: SampleMaker, frame: TargetFrame, budget: int) -> PairShape:
    """The rows for the pairs of a store."""
    sources = np.minimum(np.diff(store.starts) + maker.around.single_size, maker.max_length)
    targets = np.minimum(target_lengths(store) + 1, frame.most_tokens)
    return settled_shape(np.stack([sources, targets], axis=1), budget, (maker.max_length, frame.most_tokens))


@dataclass
class TargetLoader(Loader):
    """Batches of sources with `target`: what the decoder reads at each position, and in `truth["target"]` (P,) the
    token that follows there. Document n of the target is that of document n of the source, in the same row.

    `budget` counts the positions of both sides. A source that is too long loses its end, and so does a target.
    """

    frame: TargetFrame = field(default_factory=lambda: TargetFrame(0, 0, 0, 0))
    shape: PairShape = field(default_factory=lambda: PairShape(1, 1, 1, 0))

    @property
    def text_budget(self) -> int:
        return self.shape.budgets[0]

    def samples(self, store: TokenStore, rows: np.ndarray) -> list[Sample]:
        maker = replace(self.maker, long="cut")
        found: list[Sample] = []
        for row in rows.tolist():
            (source,) = maker.single(*store.text(row), row, self.counts)
            target, room = store.texts_of(row, TARGET)[0][0], self.frame.most_tokens - 1
            sample = PairSample(source.ids, source.starts_word, source.segment, row)
            found.append(replace(sample, target=target[:room], whole=target.size <= room))
        return found

    def packed(self, samples: Sequence[Sample], plan: BatchPlan, key: tuple[int, ...]) -> Batch:
        del key
        assert isinstance(plan, PairPlan)
        sources, targets = self.shape.budgets
        source = pack(samples, plan, sources, self.pad_id)
        placed = [samples[number] for row in plan.rows for number in row]
        places = iter(range(len(placed)))
        rows = [[next(places) for _ in row] for row in plan.rows]
        read = [self._read(sample) for sample in placed]
        target = pack(read, BatchPlan(plan.target_length, rows), targets, self.frame.pad_id)
        ids = target.values["ids"].numpy()
        follows = np.full(ids.size, NOTHING_FOLLOWS, dtype=np.int64)
        follows[:-1] = np.where(target.layout.document.numpy()[:-1] >= 0, ids[1:], NOTHING_FOLLOWS)
        last = (target.layout.starts + target.layout.lengths - 1).numpy()
        follows[last] = self.frame.end_id
        whole = np.array([isinstance(sample, PairSample) and sample.whole for sample in placed], dtype=bool)
        follows[last[~whole]] = NOTHING_FOLLOWS  # where a text was cut it does not end
        return replace(source, target=replace(target, truth={"target": torch.from_numpy(follows)}))

    def _read(self, sample: Sample) -> Sample:
        assert isinstance(sample, PairSample)
        ids = np.concatenate([[self.frame.begin_id], sample.target]).astype(np.int64)
        return Sample(ids, np.ones(ids.size, dtype=bool), np.zeros(ids.size, dtype=np.int64), sample.uid)

    def _plans(self, samples: list[Sample], epoch: int, window: int) -> list[BatchPlan]:
        targets = [sample.target.size + 1 for sample in samples if isinstance(sample, PairSample)]
        lengths = np.stack([[sample.ids.size for sample in samples], targets], axis=1)
        plans: list[BatchPlan] = list(plan_pairs(lengths, self.shape))
        if self.shuffle:
            order = shuffled(np.arange(len(plans)), len(plans), (self.seed, epoch, window, -1))
            plans = [plans[number] for number in order.tolist()]
        return plans

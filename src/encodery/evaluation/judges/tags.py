"""Judging tags: accuracy of units, spans as CoNLL counts them, and the class of the text beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader
from encodery.data.tag_field import NOT_TAGGED
from encodery.data.tags import Span, spans_of
from encodery.data.tagsets import Tagged, Tagset
from encodery.data.tokenizers import Tokenizer
from encodery.data.units import Placed, place
from encodery.evaluation.intervals import Metric, from_resamples, resampled_sums
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.evaluation.tag_answers import UnitLogits, fit_class_mix, fit_tag_mix, unit_logits, with_mix
from encodery.evaluation.tagged_texts import count_spans, each_text, right_units, score_tags, span_table, tag_table
from encodery.evaluation.tagging_baselines import TaggedBaseline, linear_tagger, majority_tag, tag_of_the_word
from encodery.evaluation.wording import value_text
from encodery.heads.tagging.tags import TagReadout
from encodery.model import Model
from encodery.trained import Task

_SHOWN_UNITS = 40


@dataclass(frozen=True)
class TagAnswers:
    """What a model says of every row: its tags, one for each unit of the data, and what they were read from."""

    tags: list[list[str]]
    logits: UnitLogits

    @property
    def classes(self) -> np.ndarray | None:
        """The number of the class of each text, (rows,)."""
        return None if self.logits.classes is None else self.logits.classes.argmax(1)


@dataclass(frozen=True)
class TrueTags:
    """The units of every row, their true tags, and at which tokens they are read."""

    units: list[np.ndarray]
    tags: list[list[str]]
    placed: list[Placed]
    words: list[list[str]]


class TagJudge(Judge):
    """Of tag. Main metric: F1 of spans, or accuracy of units where tags stand for themselves."""

    known: ClassVar[tuple[str, ...]] = ("majority", "word", "linear")

    def __init__(self, task: Task, tokenizer: Tokenizer) -> None:
        super().__init__(task)
        self.tokenizer = tokenizer
        self.tagset = Tagset.from_dict(task.detail["fields"]["tags"])
        self.crf = bool(task.detail["tagging"]["crf"])
        self._truths: dict[int, tuple[HeldRows, TrueTags]] = {}

    @property
    def main_metric(self) -> str:
        return "tag_accuracy" if self.tagset.scheme == "none" else "span_f1"

    def truth(self, held: HeldRows) -> TrueTags:
        """Kept for the rows it was asked for: they are scored again and again while training."""
        if (kept := self._truths.get(id(held))) is None:
            self._truths[id(held)] = kept = held, self._truth(held)
        return kept[1]

    def _truth(self, held: HeldRows) -> TrueTags:
        encoded = self.tokenizer.encode_batch(held.texts)
        units, tags, placed, words = [], [], [], []
        for row, found in zip(held.rows, encoded):
            tagged: Tagged = row.beside["tags"]
            own, own_tags = self.tagset.settle(tagged, row.text)
            units.append(own)
            tags.append(own_tags)
            placed.append(place(own, found.offsets))
            words.append([row.text[start:stop] for start, stop in own.tolist()])
        return TrueTags(units, tags, placed, words)

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> TagAnswers:
        return self._read(unit_logits(model, held.store, loader, dtype), held)

    def _read(self, logits: UnitLogits, held: HeldRows) -> TagAnswers:
        """The tags of the best paths."""
        truth, names = self.truth(held), self.tagset.names
        paths = ([names[number] for number in path] for path in logits.best())
        tags = [self.tagset.unit_tags(path, placed) for path, placed in zip(paths, truth.placed)]
        return TagAnswers(tags, logits)

    def adapted(self, model: Model, found: TagAnswers, held: HeldRows) -> TagAnswers:
        """Where a linear answer stands beside the encoder's: after the two are weighed on these rows."""
        if not found.logits.parts:
            return found
        assert isinstance(model.readout, TagReadout)
        fit_tag_mix(model.readout, found.logits, _numbers(held), crf=self.crf)
        if found.logits.classes is not None:
            fit_class_mix(model.readout, found.logits, _labels(held))
        return self._read(with_mix(found.logits, model.readout), held)

    def quick(self, found: TagAnswers, held: HeldRows) -> dict[str, float]:
        total, units = found.logits.loss(_numbers(held), crf=self.crf)
        loss = total / max(1, units)
        metric = self._metric(found, held)
        classes = found.logits.classes
        if classes is not None:
            wanted = _labels(held)
            log_share = classes - np.logaddexp.reduce(classes, axis=1, keepdims=True)
            loss += float(-log_share[np.arange(len(wanted)), wanted].mean())
            # Weights are kept where both heads are good.
            metric = (metric + float((classes.argmax(1) == wanted).mean())) / 2
        return {"loss": loss, "metric": metric}

    def _metric(self, found: TagAnswers, held: HeldRows) -> float:
        truth = self.truth(held)
        if self.tagset.scheme == "none":
            right, all_units = right_units(found.tags, truth.tags)
            return float(right.sum() / max(1, all_units.sum()))
        counts = count_spans(found.tags, truth.tags)
        return 2 * float(counts.hit.sum()) / max(1.0, float(counts.predicted.sum() + counts.true.sum()))

    def scores(
        self, found: TagAnswers, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        truth = self.truth(held)
        scores = score_tags(found.tags, truth.tags, self.tagset.scheme, rng=rng, resamples=resamples)
        if found.classes is None:
            return scores
        right = found.classes == _labels(held)
        whole = right & np.array([said == true for said, true in zip(found.tags, truth.tags)])
        sums, _ = resampled_sums(np.column_stack([right, whole]), rng, resamples)
        scores["intent_accuracy"] = from_resamples(sums[:, 0] / len(right))
        scores["frame_accuracy"] = from_resamples(sums[:, 1] / len(right))
        return scores

    def each(self, found: TagAnswers, held: HeldRows) -> np.ndarray | None:
        return each_text(found.tags, self.truth(held).tags, self.tagset.scheme)

    def note(self, found: TagAnswers, held: HeldRows) -> str:
        said: list[str] = []
        if found.logits.parts:
            alone = [self._read(part, held) for part in found.logits.parts]
            encoder, linear = (value_text(self._metric(one, held), self.main_metric) for one in alone)
            said.append(f"its encoder alone gets {encoder}, its linear answer alone {linear}")
        if found.classes is not None:
            said.append(f"the class of the text is right in {self._classes_right(found.logits, held):.1%} of the rows")
            alone = [f"{self._classes_right(part, held):.1%}" for part in found.logits.parts]
            if alone:
                said[-1] += f" (encoder alone {alone[0]}, linear answer alone {alone[1]})"
        return "; ".join(said)

    def _classes_right(self, logits: UnitLogits, held: HeldRows) -> float:
        assert logits.classes is not None
        return float((logits.classes.argmax(1) == _labels(held)).mean())

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """One tag for all, the commonest tag of each word, a chain of words, affixes and neighbours."""
        learned, test, scheme = self._truth(asked.train), self.truth(asked.scored), self.tagset.scheme
        made: list[TaggedBaseline] = []
        if "majority" in asked.wanted:
            made.append(majority_tag(learned.tags, test.words))
        if "word" in asked.wanted:
            made.append(tag_of_the_word(learned.words, learned.tags, test.words, scheme))
        if "linear" in asked.wanted:
            held = None if asked.validation is None else self.truth(asked.validation)
            made.append(
                linear_tagger(
                    learned.words,
                    learned.tags,
                    test.words,
                    self.tagset,
                    crf=self.crf,
                    seed=asked.seed,
                    held=(held.words, held.tags) if held else None,
                )
            )
        rows: list[ComparisonRow] = []
        for one in made:
            rng = np.random.default_rng(asked.seed)
            scores = score_tags(one.predicted, test.tags, scheme, rng=rng, resamples=asked.evaluation.resamples)
            rows.append(ComparisonRow(one.name, scores[self.main_metric], one.parameters, one.seconds, one.note))
        return rows

    def detail(self, found: TagAnswers, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, a table of labels, and the rows with most mistakes, their tags shown."""
        truth, rng = self.truth(held), np.random.default_rng(seed)
        parts = super().detail(found, held, evaluation, seed)
        if self.tagset.scheme == "none":
            table = tag_table(found.tags, truth.tags, rng=rng, resamples=evaluation.resamples)
        else:
            counts = count_spans(found.tags, truth.tags)
            table = span_table(counts, rng=rng, resamples=evaluation.resamples)
        return {**parts, "labels": [line["label"] for line in table], "per_class": table} | {
            "errors": self._errors(found, held, evaluation.errors)
        }

    def _errors(self, found: TagAnswers, held: HeldRows, top: int) -> list[dict[str, Any]]:
        """The rows with the largest share of wrong units, the longest of these first."""
        truth = self.truth(held)
        right, units = right_units(found.tags, truth.tags)
        wrong = units - right
        order = np.lexsort((-wrong, -wrong / np.maximum(units, 1)))
        shown: list[dict[str, Any]] = []
        for row in [number for number in order.tolist() if wrong[number]][:top]:
            said, true = found.tags[row], truth.tags[row]
            shown.append(
                {
                    "text": held.rows[row].text,
                    "where": held.rows[row].where,
                    "row": row,
                    "true": self._shown(held.rows[row].text, truth.units[row], true, said),
                    "predicted": self._shown(held.rows[row].text, truth.units[row], said, true),
                    "error": None,
                    "wrong": int(wrong[row]),
                }
            )
        return [{name: value for name, value in one.items() if value is not None} for one in shown]

    def _shown(self, text: str, units: np.ndarray, tags: list[str], other: list[str]) -> str:
        """Tags that differ from the other ones, with their words."""
        if self.tagset.scheme != "none":
            apart = sorted(set(spans_of(tags)) - set(spans_of(other)))
            return shown_spans(text, units, apart)
        parts = [
            f"{text[start:stop]}/{tag}"
            for (start, stop), tag, another in zip(units.tolist(), tags, other)
            if tag != another
        ]
        return " ".join(parts[:_SHOWN_UNITS])

    def diagnoses(self, found: TagAnswers) -> list[str]:
        kinds = {tag for row in found.tags for tag in row}
        if len(kinds) != 1 or len(self.tagset.names) < 2:
            return []
        return [
            f"Every unit was tagged {kinds.pop()!r}: the model has not learned to tell tags apart yet. Give it more "
            "time (training.budget) or another training.optim.lr."
        ]

    def difference(self, found: TagAnswers, precise: TagAnswers, held: HeldRows) -> str:
        right, units = right_units(found.tags, precise.tags)
        return f"{right.sum() / max(1, units.sum()):.2%} of the units are tagged as in fp32"


def shown_spans(text: str, units: np.ndarray, spans: list[Span]) -> str:
    """Spans with their labels, as a person would list them; `none` without any."""
    parts = [f"[{text[units[one.start, 0] : units[one.stop - 1, 1]]}] {one.label}".strip() for one in spans]
    return ", ".join(parts[:_SHOWN_UNITS]) or "none"


def _numbers(held: HeldRows) -> torch.Tensor:
    """The number of the tag of every unit that has a token, (U,); -1 where it is not known."""
    numbers = np.asarray(held.store.beside["tags"])
    return torch.from_numpy(numbers[numbers > 0].astype(np.int64)) - NOT_TAGGED - 1


def _labels(held: HeldRows) -> np.ndarray:
    assert held.store.labels is not None, "rows with a class of the text"
    return np.asarray(held.store.labels)

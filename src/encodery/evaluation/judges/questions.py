"""Judging answers that stand in their text: spans of all windows, merged, placed in the characters of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from encodery.data.corpus import HeldRows
from encodery.data.loader import Loader, Place
from encodery.data.sources import Row
from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.judge import Comparison, Judge
from encodery.evaluation.questions import (
    Asked,
    Candidates,
    RuleAnswers,
    best_threshold,
    each_f1,
    fit_answer_mix,
    no_answer,
    score_answers,
    sliding_window,
)
from encodery.evaluation.record import ComparisonRow
from encodery.evaluation.settings import EvaluationConfig
from encodery.evaluation.wording import value_text
from encodery.heads.spans import (
    FoundSpans,
    SpanReadout,
    best_spans,
    merge_windows,
    probabilities,
    weighed,
)
from encodery.model import Model, answering
from encodery.objectives.questions import Questions, QuestionsConfig
from encodery.trained import Task

TOP = 20
"""Spans of each row that are kept, and that probabilities are shared between."""
FARTHEST = 1e6
"""Thresholds are kept within it: infinite ones are not JSON."""
SHOWN = 160
"""Characters on both sides of an answer that the report shows."""


@dataclass(frozen=True)
class QuestionAnswers:
    """The best spans of every row, where they stand in the characters of its text, (S, 2), and the mean loss. `own` has
    the encoder's scores alone, and `linear` (rows,) what the linear answer says, where there is one."""

    spans: FoundSpans
    places: np.ndarray
    loss: float
    own: FoundSpans
    linear: np.ndarray | None = None

    def best(self, texts: Sequence[str]) -> Candidates:
        """The best span of each row, and how much better it is than no answer."""
        found, scores = [""] * len(texts), np.full(len(texts), -FARTHEST)
        first = np.flatnonzero(np.diff(self.spans.owner, prepend=-1))
        for at in first.tolist():
            row = int(self.spans.owner[at])
            begin, end = self.places[at].tolist()
            found[row], scores[row] = texts[row][begin:end], self.spans.score[at]
        return Candidates(found, scores)


@dataclass(frozen=True)
class SpansOfRows:
    """The best spans of each row over all of its windows as the encoder scores them, what the linear answer says of the
    window where it is surest (rows,), if there is one, and the mean loss of a window."""

    own: FoundSpans
    linear: np.ndarray | None
    loss: float

    def mixed(self, model: Model) -> FoundSpans:
        """As the readout weighs the two."""
        return weighed(self.own, self.linear, None if self.linear is None else _mix(model).cpu().numpy())


def _mix(model: Model) -> torch.Tensor:
    assert isinstance(model.readout, SpanReadout)
    return model.readout.mix


def spans_of_rows(model: Model, loader: Loader, rows: int, dtype: torch.dtype, top: int = TOP) -> SpansOfRows:
    """What the model finds in each row."""
    assert isinstance(model.readout, SpanReadout), "only a span readout finds spans"
    config = model.readout.config
    objective = Questions(QuestionsConfig(ends=config.ends, longest=config.longest))
    linear = np.full(rows, -np.inf) if config.ngrams else None
    found, uids, total, count = [], [], 0.0, 0.0
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            batch = batch.to(model.device)
            output = model(batch)
            loss = objective.loss(output, batch)
            total, count = total + float(loss.total), count + float(loss.count)
            found.append(best_spans(output, batch, top))
            uids.append(batch.uids)
            if linear is not None:
                np.maximum.at(linear, batch.uids, output.parts[0].cpu().numpy())
    return SpansOfRows(merge_windows(found, uids, rows, top), linear, total / max(count, 1.0))


def places_of(spans: FoundSpans, texts: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """[start, stop) in the characters of its row's text, of each span of tokens: (S, 2) int64."""
    places = np.zeros((len(spans.owner), 2), dtype=np.int64)
    wanted: list[int] = np.unique(spans.owner).tolist()
    for row, encoded in zip(wanted, tokenizer.encode_batch([texts[row] for row in wanted])):
        part = spans.of(row)
        starts, stops = encoded.offsets[:, 0], np.maximum.accumulate(encoded.offsets[:, 1])
        places[part, 0] = starts[spans.start[part]]
        places[part, 1] = np.maximum(stops[spans.stop[part] - 1], places[part, 0])
    return places


def right_answers(rows: Sequence[Row]) -> list[list[str]]:
    """The texts of the right answers of each row."""
    return [[row.text[start:stop] for start, stop in row.beside["answers"].spans] for row in rows]


def _asked(held: HeldRows) -> Asked:
    questions = [row.pair or "" for row in held.rows]
    return Asked([row.text for row in held.rows], questions, right_answers(held.rows))


class QuestionJudge(Judge):
    """Of answer. `task.detail["threshold"]` is how much better than no answer an answer must be."""

    known: ClassVar[tuple[str, ...]] = ("majority", "tfidf")

    def __init__(self, task: Task, tokenizer: Tokenizer) -> None:
        super().__init__(task)
        self.tokenizer = tokenizer

    @property
    def main_metric(self) -> str:
        return "answer_f1"

    @property
    def threshold(self) -> float:
        return float(self.task.detail.get("threshold", 0.0))

    def found(self, model: Model, held: HeldRows, loader: Loader, dtype: torch.dtype) -> QuestionAnswers:
        found = spans_of_rows(model, loader, held.store.rows, dtype)
        places = places_of(found.own, [row.text for row in held.rows], self.tokenizer)
        return QuestionAnswers(found.mixed(model), places, found.loss, found.own, found.linear)

    def adapted(self, model: Model, found: QuestionAnswers, held: HeldRows) -> QuestionAnswers:
        """Where a linear answer stands beside the encoder's: after the two are weighed by how well they tell, on these
        rows, whether the best span is worth answering with."""
        if found.linear is None:
            return found
        right = right_answers(held.rows)
        alone = replace(found, spans=found.own).best([row.text for row in held.rows])
        mix = fit_answer_mix(alone, found.linear, right)
        _mix(model).copy_(torch.tensor(mix))
        return replace(found, spans=weighed(found.own, found.linear, np.array(mix)))

    def calibrated(self, found: QuestionAnswers, held: HeldRows) -> QuestionJudge:
        """With the threshold that gives the best F1 on the validation rows."""
        threshold, _ = best_threshold(self._candidates(found, held), right_answers(held.rows))
        threshold = float(np.clip(threshold, -FARTHEST, FARTHEST))
        return QuestionJudge(replace(self.task, detail={**self.task.detail, "threshold": threshold}), self.tokenizer)

    def quick(self, found: QuestionAnswers, held: HeldRows) -> dict[str, float]:
        """F1; while no threshold is known, with the one that is best for these rows."""
        candidates, right = self._candidates(found, held), right_answers(held.rows)
        if "threshold" not in self.task.detail:
            return {"loss": found.loss, "metric": best_threshold(candidates, right)[1]}
        return {"loss": found.loss, "metric": float(each_f1(candidates.above(self.threshold), right).mean())}

    def scores(
        self, found: QuestionAnswers, held: HeldRows, *, rng: np.random.Generator, resamples: int = 1000
    ) -> dict[str, Metric]:
        candidates = self._candidates(found, held)
        given, right = candidates.above(self.threshold), right_answers(held.rows)
        return score_answers(given, right, rng=rng, resamples=resamples, candidates=candidates)

    def each(self, found: QuestionAnswers, held: HeldRows) -> np.ndarray:
        return each_f1(self._candidates(found, held).above(self.threshold), right_answers(held.rows))

    def note(self, found: QuestionAnswers, held: HeldRows) -> str:
        answered = float(np.mean(self._candidates(found, held).scores > self.threshold))
        said = f"answers {answered:.0%} of the questions"
        if found.linear is None:
            return said
        alone = replace(found, spans=found.own).best([row.text for row in held.rows])
        best = best_threshold(alone, right_answers(held.rows))[1]
        return f"{said}; the encoder alone, at the threshold best for these rows: {value_text(best, self.main_metric)}"

    def baselines(self, asked: Comparison) -> list[ComparisonRow]:
        """majority: no answer to any question; tfidf: the sliding window, tuned on the validation rows."""
        questions = _asked(asked.scored)
        made: list[RuleAnswers] = [no_answer(questions)] if "majority" in asked.wanted else []
        if "tfidf" in asked.wanted:
            made.append(
                sliding_window(
                    _asked(asked.train), questions, None if asked.validation is None else _asked(asked.validation)
                )
            )
        found = []
        for rule in made:
            rng = np.random.default_rng(asked.seed)
            metrics = score_answers(rule.given, questions.right, rng=rng, resamples=asked.evaluation.resamples)
            found.append(ComparisonRow(rule.name, metrics[self.main_metric], 0, rule.seconds, rule.note))
        return found

    def detail(self, found: QuestionAnswers, held: HeldRows, evaluation: EvaluationConfig, seed: int) -> dict[str, Any]:
        """Metrics, and the questions whose answers are most wrong: the surest of the wrong ones first."""
        parts = super().detail(found, held, evaluation, seed)
        right, each = right_answers(held.rows), self.each(found, held)
        errors = []
        for row, said in enumerate(
            told_rows(found.spans, found.places, [one.text for one in held.rows], self.threshold)
        ):
            if each[row] >= 1.0:
                continue
            one = held.rows[row]
            errors.append(
                {
                    "text": _shown(one, said),
                    "where": one.where,
                    "row": row,
                    "true": " | ".join(right[row]) or "no answer",
                    "predicted": said["answer"] or "no answer",
                    "probability": said["probability"],
                    "f1": float(each[row]),
                }
            )
        errors.sort(key=lambda error: (error["f1"], -error["probability"]))
        return {**parts, "errors": errors[: evaluation.errors]}

    def diagnoses(self, found: QuestionAnswers) -> list[str]:
        best = found.spans.score[np.flatnonzero(np.diff(found.spans.owner, prepend=-1))]
        if best.size and (best <= self.threshold).all():
            return [
                "No question was answered: the model has not learned to tell answers from no answer. Give it more time "
                "(training.budget), or pretrain it first (pretrain)."
            ]
        return []

    def _candidates(self, found: QuestionAnswers, held: HeldRows) -> Candidates:
        return found.best([row.text for row in held.rows])


def told_rows(
    spans: FoundSpans, places: np.ndarray, texts: Sequence[str], threshold: float, top: int = 5
) -> list[dict[str, Any]]:
    """What is said of each row: `answer` ("" for none), its `start` and `stop` in the characters of the text (None for
    none), its `probability`, and the best `alternatives`, among them no answer.

    Probabilities are shared by the best spans and no answer, which scores the threshold: they agree with what is
    answered.
    """
    told = []
    for row, text in enumerate(texts):
        part = spans.of(row)
        chances, none = probabilities(spans.score[part].astype(np.float64) - threshold)
        options = [
            {"answer": text[begin:end], "start": begin, "stop": end, "probability": round(float(chance), 6)}
            for (begin, end), chance in zip(places[part].tolist(), chances.tolist())
        ]
        nothing = {"answer": "", "start": None, "stop": None, "probability": round(none, 6)}
        answered = bool(len(options)) and spans.score[part][0] > threshold
        best, rest = (options[0], [*options[1:], nothing]) if answered else (nothing, options)
        rest.sort(key=lambda option: -option["probability"])
        told.append({**best, "alternatives": rest[: max(0, top - 1)]})
    return told


def _shown(row: Row, said: dict[str, Any]) -> str:
    """The question, and the answers in their context: [right] and {said}."""
    marks = [(start, stop, "[", "]") for start, stop in row.beside["answers"].spans]
    if said["answer"]:
        marks.append((said["start"], said["stop"], "{", "}"))
    edges = [edge for start, stop, _, _ in marks for edge in (start, stop)] or [0]
    begin, end = max(0, min(edges) - SHOWN), min(len(row.text), max(edges) + SHOWN)
    signs = [(stop, 0, close) for _, stop, _, close in marks] + [(start, 1, mark) for start, _, mark, _ in marks]
    shown, at = ("" if begin == 0 else "…"), begin
    for place, _, sign in sorted(signs):
        shown += row.text[at:place] + sign
        at = place
    return f"{row.pair}  ⟷  {shown}{row.text[at:end]}{'' if end == len(row.text) else '…'}"

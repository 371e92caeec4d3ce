"""Answers that point back: to a place in the person's own text, to one of the options, to a rank, to a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from encodery.data.answers import AnswerField
from encodery.data.choices import ChoiceField, Choices, read_options
from encodery.data.fields import BadField, Field
from encodery.data.loader import Place
from encodery.data.rows import readable
from encodery.data.sources import DataConfig, Labels, Row
from encodery.data.store import TokenStore
from encodery.errors import DataError
from encodery.evaluation.calibration import probabilities_at
from encodery.evaluation.choices import shares
from encodery.evaluation.evaluate import probabilities
from encodery.evaluation.judges.choices import scores_of_rows
from encodery.evaluation.judges.questions import TOP, places_of, spans_of_rows, told_rows
from encodery.evaluation.judges.ranks import rank_logits
from encodery.evaluation.ranks import likeliest_rank
from encodery.use.answers import Answerer, Text

if TYPE_CHECKING:
    from encodery.use.predict import Predictor

OPTIONS_SHOWN = 5


class QuestionAnswerer(Answerer):
    """answer: {"answer": "" for none, "start", "stop", "probability", "alternatives": [the same, ...]}, `start` and
    `stop` in characters of the text. A text is (context, question) or {"text": ..., "question": ...}."""

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        return (AnswerField("answers" if data is None or data.answers is None else data.answers),)

    def row(self, text: Text, number: int) -> Row:
        where = f"text {number + 1}"
        context, question = _named(text, ("text", "question"), where)
        if context is None or question is None:
            expected = '{"text": ..., "question": ...}, or the two in this order'
            raise DataError(f"{where} is {text!r:.80}", expected=expected)
        return Row(context, question, None, where)

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        texts = [row.text for row in rows]
        found = spans_of_rows(using.model, using.loader(store), store.rows, using.autocast, max(TOP, top or 0))
        spans = found.mixed(using.model)
        places = places_of(spans, texts, self.trained.tokenizer)
        threshold = float(self.trained.task.detail.get("threshold", 0.0))
        yield from told_rows(spans, places, texts, threshold, top or OPTIONS_SHOWN)


class ChoiceAnswerer(Answerer):
    """choose: {"choice": the text of the option, "number": its place from 0, "probability", "probabilities": [one for
    each option]}. A text is {"text": ..., "choices": [...]}, with "question" where the model was trained with one."""

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        if data is None or data.choices is None:
            return (ChoiceField("choices", None),)
        return (ChoiceField(data.choices, data.label),)

    def row(self, text: Text, number: int) -> Row:
        where = f"text {number + 1}"
        paired = self.trained.task.paired
        said, question = _named(text, ("text", "question"), where) if isinstance(text, dict) else (None, None)
        if said is None or (paired and question is None) or not isinstance(text, dict):
            asked = ' "question": ...,' if paired else ""
            raise DataError(f"{where} is {text!r:.80}", expected=f'{{"text": ...,{asked} "choices": ["...", "..."]}}')
        try:
            options = read_options(text.get("choices"))
        except BadField as bad:
            raise DataError(f"{where}: {bad}", expected='"choices": ["...", "..."]') from None
        return Row(said, question if paired else None, None, where, beside={"choices": Choices(options)})

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        found = scores_of_rows(using.model, using.loader(store), using.autocast)
        for row, scores in zip(rows, found.rows(len(rows))):
            chances, options = shares(scores), row.beside["choices"].options
            best = int(chances.argmax())
            told = {"choice": options[best], "number": best, "probability": round(float(chances[best]), 6)}
            yield {**told, "probabilities": [round(float(chance), 6) for chance in chances]}


class RankAnswerer(Answerer):
    """ordinal: {"label": the median label, "probability", "probabilities": {label: p} in the order of the labels}."""

    labels: ClassVar[Labels] = "class"

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        del rows
        task = self.trained.task
        chances = probabilities_at(
            rank_logits(using.model, using.loader(store), store.rows, using.autocast), task.temperature
        )
        for best, row in zip(likeliest_rank(chances).tolist(), chances):
            shown = range(row.size) if top is None else sorted(np.argsort(-row, kind="stable")[:top].tolist())
            yield {
                "label": task.labels[best],
                "probability": round(float(row[best]), 6),
                "probabilities": {task.labels[place]: round(float(row[place]), 6) for place in shown},
            }


def _named(text: Text, names: tuple[str, str], where: str) -> tuple[str | None, str | None]:
    """Two texts by their names, or in their order; None for what is missing."""
    found = (
        [text.get(name) for name in names] if isinstance(text, Mapping) else [text] if isinstance(text, str) else text
    )
    found = [*found, None, None][: max(2, len(found))]
    if len(found) > 2:
        return None, None
    for part in found:
        if part is not None and (not isinstance(part, str) or not readable(part)):
            raise DataError(f"{where}: {part!r:.60} is no text that can be read", expected="texts (strings)")
    return found[0], found[1]


def answers_of_windows(using: Predictor, rows: Sequence[Row], store: TokenStore) -> list[list[dict[str, Any]]]:
    """What a model of whole documents says of each window of each text, in order: {"start", "stop", "probabilities"},
    or "number", with the characters of the text that the window holds.

    What is said of the text is their mean, weighted by their tokens. Raises DataError for a model of something else,
    and for one of pairs, which are never split.
    """
    trained = using.trained
    if trained.task.kind not in ("classify", "multilabel", "regress", "ordinal") or store.paired:
        what = "pairs, which are never split" if store.paired else "something else"
        raise DataError(f"windows are those of a label or number of a long text; this model is one of {what}")
    maker = trained.maker()
    found: dict[tuple[int, int], tuple[np.ndarray, int]] = {}
    device = using.device
    autocast = torch.autocast(device.type, using.autocast, enabled=using.autocast != torch.float32)
    with torch.inference_mode(), autocast:
        for batch, _ in using.loader(store).epoch(Place()):
            output = using.model(batch.to(device))
            assert output.logits is not None
            given = probabilities(trained.task, output.logits.float().cpu().numpy())
            # Triples that are written behind a text are none of its tokens.
            sizes = batch.layout.without_branches().lengths.cpu().numpy() - maker.around.single_size
            found |= zip(zip(batch.uids.tolist(), batch.parts.tolist()), zip(given, sizes.tolist()))
    told: list[list[dict[str, Any]]] = []
    for row, encoded in enumerate(trained.tokenizer.encode_batch([one.text for one in rows])):
        starts, stops = encoded.offsets[:, 0], np.maximum.accumulate(encoded.offsets[:, 1])
        windows, begin = [], 0
        while (row, len(windows)) in found:
            said, size = found[row, len(windows)]
            place = {"start": 0, "stop": 0}
            if size:
                place = {"start": int(starts[begin]), "stop": int(stops[begin + size - 1])}
            windows.append({**place, **_told(trained.task.kind, trained.task.labels, said)})
            begin += size
        told.append(windows)
    return told


def _told(kind: str, labels: Sequence[str], given: np.ndarray) -> dict[str, Any]:
    if kind == "regress":
        return {"number": float(given)}
    return {"probabilities": {label: round(float(share), 6) for label, share in zip(labels, given)}}

"""What a model says of the texts it is given, as plain parts for JSON: one Answerer for each kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from encodery.data.fields import Field
from encodery.data.rows import read_mentions
from encodery.data.sources import DataConfig, Labels, Row
from encodery.data.store import TokenStore
from encodery.errors import DataError, WeightsError
from encodery.evaluation.evaluate import probabilities, row_logits
from encodery.trained import Trained

if TYPE_CHECKING:
    from encodery.use.predict import Predictor

Text = str | tuple[str, str] | list[str] | dict[str, Any]
"""A text, a pair of texts, or a text with its mentions: {"text": ..., "entities": [[start, stop, entity], ...]}."""


class Answerer(ABC):
    """How texts become rows and what a model says of them becomes answers."""

    labels: ClassVar[Labels] = "none"
    """What labelled rows have to bring when the model is scored on them."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        """What rows carry beside their text: in files as `data` says, without it in what `row` makes."""
        del data
        return ()

    def known(self) -> Mapping[str, Any]:
        """What the training store said of the fields, by their names."""
        return self.trained.task.detail.get("fields", {})

    def row(self, text: Text, number: int) -> Row:
        """What a person has given as the text `number` (from 0). Raises DataError for what is no text."""
        return as_row(text, number, paired=self.trained.task.paired)

    def check(self) -> None:  # noqa: B027 - most models have answers
        """Raises WeightsError for a model that has no answers."""

    @abstractmethod
    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        """One answer a row, in order."""


class DocumentAnswerer(Answerer):
    """classify: {"label", "probability", "probabilities": {label: p}} (only the `top` most probable, when given).
    multilabel: {"labels", "probabilities"}. regress: {"number"}."""

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        del rows
        task = self.trained.task
        for row in probabilities(task, row_logits(using.model, using.loader(store), store.rows, using.autocast)):
            if task.kind == "regress":
                yield {"number": float(row)}
                continue
            order = np.argsort(-row, kind="stable")[: top or None]
            shares = {task.labels[place]: round(float(row[place]), 6) for place in order.tolist()}
            if task.kind == "multilabel":
                chosen = [label for label, share in zip(task.labels, row) if share >= 0.5]
                yield {"labels": chosen, "probabilities": shares}
            else:
                best = int(row.argmax())
                yield {
                    "label": task.labels[best],
                    "probability": round(float(row[best]), 6),
                    "probabilities": shares,
                }


class ClassAnswerer(DocumentAnswerer):
    labels: ClassVar[Labels] = "class"


class ClassesAnswerer(DocumentAnswerer):
    labels: ClassVar[Labels] = "classes"


class NumberAnswerer(DocumentAnswerer):
    labels: ClassVar[Labels] = "number"


class Silent(Answerer):
    """Of a model that gives vectors alone."""

    def check(self) -> None:
        raise WeightsError(
            "this model was not trained on labels: it has vectors, but no labels to predict",
            fix="fine-tune it (start_from: THIS FOLDER), or take its vectors: embed (predict --embed)",
        )

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        """Never asked for: `check` refuses."""
        raise AssertionError("a model of vectors was asked for answers")


def as_row(text: Text, number: int, *, paired: bool) -> Row:
    """A text or a pair of texts as a row. Raises DataError when it is something else."""
    where = f"text {number + 1}"
    if paired:
        if isinstance(text, str | dict) or len(text) != 2:
            raise DataError(f"{where} is {text!r:.80}", expected="a pair of texts: this model was trained on pairs")
        return Row(text[0], text[1], None, where)
    if isinstance(text, dict) and isinstance(text.get("text"), str):
        try:
            return Row(text["text"], None, None, where, read_mentions(text.get("entities", ()), text["text"]))
        except ValueError as error:
            raise DataError(f"{where}: {error}", expected='"entities": [[start, stop, "id"], ...]') from None
    if not isinstance(text, str):
        raise DataError(f"{where} is {text!r:.80}", expected="one text (a string)")
    return Row(text, None, None, where)

"""Tags and entities of texts, with their places in the characters of the person's own text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encodery.data.fields import Field
from encodery.data.sources import DataConfig, Labels, Row
from encodery.data.store import TokenStore
from encodery.data.tag_field import TagField, words_at
from encodery.data.tags import Span, spans_of
from encodery.data.tagsets import Tagged, Tagset
from encodery.data.units import join, place
from encodery.errors import DataError
from encodery.evaluation.calibration import probabilities_at
from encodery.evaluation.tag_answers import continuing, unit_logits
from encodery.trained import Trained
from encodery.use.answers import Answerer, Text

if TYPE_CHECKING:
    from encodery.use.predict import Predictor


class TagAnswerer(Answerer):
    """tag: {"entities": [{"start", "stop", "label", "text", "probability"}], "units": [{"start", "stop", "text", "tag",
    "probability"}]}; without "entities" where tags stand for themselves, and with "label" and "probability" of the
    whole text where the model tells it. [start, stop) counts characters of the text.

    A text may also be a list of words: these are its units then, and "text" is what they were joined to. Probabilities
    are exact ones under the model: of an entity, that it stands there from its first to its last unit.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.tagset = Tagset.from_dict(trained.task.detail["fields"]["tags"])

    @property
    def labels(self) -> Labels:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of rows to be scored on: the class of the text, where the model tells one."""
        return "class" if self.trained.task.labels else "none"

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        """The tags of labelled rows; without `data` only the units."""
        asked = self.trained.task.detail["tagging"]
        if data is None:
            return (TagField((), None, None, asked["scheme"], asked["learned"], asked["units"]),)
        texts = (data.text,) if isinstance(data.text, str) else tuple(data.text)
        if data.tags is None and data.spans is None and asked["units"] == "words":
            raise DataError(
                "nothing says which column holds the tags",
                expected="data.tags (a tag for each word) or data.spans ([[start, stop, label], ...])",
                fix="add --set tags=COLUMN",
            )
        return (TagField(texts, data.tags, data.spans, asked["scheme"], asked["learned"], asked["units"]),)

    def row(self, text: Text, number: int) -> Row:
        """A text, or a list of words (also as {"tokens": [...]} or {"words": [...]}). Raises DataError for anything
        else, and for a plain text where the model knows only words of a script without spaces."""
        where = f"text {number + 1}"
        given: Any = text
        if isinstance(given, dict):
            given = next((given[name] for name in ("tokens", "words", "text") if name in given), None)
        if isinstance(given, str):
            if self.tagset.rule.kind == "given" and self.tagset.units == "words":
                raise DataError(
                    f"{where} is one text, and this model was trained on words of a script without spaces",
                    expected="a list of words",
                    fix="cut the text into words first; or train with objective.units=characters, which cuts and tags",
                )
            return Row(given, None, None, where, beside={"tags": Tagged(told=False)})
        if not isinstance(given, list | tuple) or not all(isinstance(word, str) and word.strip() for word in given):
            raise DataError(f"{where} is {text!r:.80}", expected="a text, or a list of words none of which is empty")
        words = list(given)
        joined = join(words)[0]
        return Row(joined, None, None, where, beside={"tags": Tagged(words_at(words, joined), told=False)})

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        """One answer a row. `top`: of the classes of the whole text."""
        tagset, names = self.tagset, self.tagset.names
        found = unit_logits(using.model, store, using.loader(store), using.autocast)
        paths = found.best()
        shares, edges = found.shares(), np.searchsorted(found.row.numpy(), np.arange(found.rows + 1))
        flat = torch.tensor([number for path in paths for number in path], dtype=torch.int64)
        groups = [[names[number] for number in path] for path in paths]
        spans = [[] if tagset.scheme == "none" else spans_of(tags) for tags in groups]
        sure = found.span_shares(flat, spans, continuing(names, tagset.scheme))
        encoded = self.trained.tokenizer.encode_batch([row.text for row in rows])
        of_texts = self._classes(found.classes, top)
        for number, row in enumerate(rows):
            units = tagset.units_of(row.beside["tags"], row.text)
            placed = place(units, encoded[number].offsets)
            own = slice(int(edges[number]), int(edges[number + 1]))
            certain = shares[own].gather(1, flat[own, None])[:, 0].tolist()
            tags = tagset.unit_tags(groups[number], placed)
            answer: dict[str, Any] = {**(of_texts[number] if of_texts else {})}
            if row.beside["tags"].offsets is not None:
                answer["text"] = row.text
            if tagset.scheme != "none":
                answer["entities"] = entities(row.text, units, placed.group, spans[number], sure[number])
            answer["units"] = [
                {"start": start, "stop": stop, "text": row.text[start:stop], "tag": tag}
                | ({"probability": round(certain[group], 6)} if group >= 0 else {})
                for (start, stop), tag, group in zip(units.tolist(), tags, placed.group.tolist())
            ]
            yield answer

    def _classes(self, logits: np.ndarray | None, top: int | None) -> list[dict[str, Any]]:
        if logits is None:
            return []
        task = self.trained.task
        found: list[dict[str, Any]] = []
        for row in probabilities_at(logits, task.temperature):
            order = np.argsort(-row, kind="stable")[: top or None]
            best = int(row.argmax())
            shares = {task.labels[place]: round(float(row[place]), 6) for place in order.tolist()}
            found.append(
                {"label": task.labels[best], "probability": round(float(row[best]), 6), "probabilities": shares}
            )
        return found


def entities(
    text: str, units: np.ndarray, group: np.ndarray, spans: Sequence[Span], sure: Sequence[float]
) -> list[dict[str, Any]]:
    """Spans of groups of units as stretches of characters of the text."""
    found: list[dict[str, Any]] = []
    for span, share in zip(spans, sure):
        inside = np.flatnonzero((group >= span.start) & (group < span.stop))
        start, stop = int(units[inside[0], 0]), int(units[inside[-1], 1])
        found.append(
            {
                "start": start,
                "stop": stop,
                "label": span.label,
                "text": text[start:stop],
                "probability": round(share, 6),
            }
        )
    return found

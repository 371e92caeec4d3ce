"""Lines in, JSON-able answers out: exactly one a line, in order, also for lines that hold nothing to answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from encodery.data.rows import readable
from encodery.use.predict import TEXTS_AT_ONCE, Predictor, Text


def answer_lines(
    predictor: Predictor, lines: Iterable[str], *, top: int | None = None, embed: bool = False
) -> Iterator[dict[str, Any]]:
    """Answer each line, or with `embed` give its vector.

    A line without anything to read (empty, blanks, NUL characters), and for a model of pairs one without a tab
    between its two texts, is answered with {"error": "line 3: ..."}, so that answers and lines stay side by side.
    Raises WeightsError, at the first line, for a model that is pretrained only, unless `embed`.
    """
    paired = predictor.trained.task.paired
    stream, before = iter(lines), 0
    while block := list(islice(stream, TEXTS_AT_ONCE)):
        texts = [_text(line, paired) for line in block]
        good: list[Text] = [text for text in texts if text is not None]
        found = _vectors(predictor, good) if embed else predictor.stream(good, top=top)
        for number, text in enumerate(texts, start=before + 1):
            yield {"error": f"line {number}: {_wrong(paired)}"} if text is None else next(iter(found))
        before += len(block)


def _text(line: str, paired: bool) -> Text | None:
    """What to answer, or None."""
    line = line.replace("\x00", "")
    if not paired:
        return line if readable(line) else None
    first, tab, second = line.partition("\t")
    return (first, second) if tab and readable(first) and readable(second) else None


def _wrong(paired: bool) -> str:
    return "two texts with a tab between them are needed" if paired else "there is no text in it"


def _vectors(predictor: Predictor, texts: list[Text]) -> Iterator[dict[str, Any]]:
    for vector in predictor.embed(texts):
        yield {"vector": [round(float(number), 6) for number in vector]}

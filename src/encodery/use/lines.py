"""Lines in, JSON-able answers out: exactly one a line, in order, also for lines that hold nothing to answer."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from encodery.data.rows import readable
from encodery.durable import file_beside
from encodery.errors import DataError
from encodery.use.answers import Answerer
from encodery.use.predict import Predictor, Text

ASKED = {
    "answer": 'a text and a question with a tab between them, or {"text": "...", "question": "..."},',
    "choose": 'a line such as {"text": "...", "choices": ["...", "..."]}',
}
"""Tasks that more is asked in than a text, and how."""


def answer_lines(
    predictor: Predictor,
    lines: Iterable[str],
    *,
    top: int | None = None,
    embed: bool = False,
    prompt: str | None = None,
    windows: bool = False,
) -> Iterator[dict[str, Any]]:
    """Answer each line, or with `embed` give its vector; `prompt` as in `Predictor.stream`.

    A line without anything to read (empty, blanks, NUL characters), and for a model of pairs one without a tab
    between its two texts, is answered with {"error": "line 3: ..."}, so that answers and lines stay side by side.
    Raises WeightsError, at the first line, for a model that is pretrained only, unless `embed`.
    """
    paired = reads_pairs(predictor, embed=embed)
    wrong = "two texts with a tab between them are needed" if paired else "there is no text in it"
    asks = predictor.answerer if predictor.trained.task.kind in ASKED else None
    if asks is not None:
        wrong = f"{ASKED[predictor.trained.task.kind]} is needed"
    sorted_out = _Lines(lines, paired, worded=predictor.trained.task.kind == "tag", asks=asks)
    if embed:
        vectors = (vector for block in predictor.embed_stream(sorted_out.texts(), prompt=prompt) for vector in block)
        found: Iterator[Any] = ({"vector": [round(float(x), 6) for x in vector]} for vector in vectors)
    else:
        found = predictor.stream(sorted_out.texts(), top=top, prompt=prompt, windows=windows)
    for number, answer in enumerate(sorted_out.beside(found), start=1):
        yield {"error": f"line {number}: {wrong}"} if answer is None else answer


def write_answers(
    predictor: Predictor,
    lines: Iterable[str],
    to: Path | TextIO,
    *,
    top: int | None = None,
    embed: bool = False,
    prompt: str | None = None,
    windows: bool = False,
) -> Iterator[tuple[int, int]]:
    """Write each answer as a line of JSON, to a file that is there when it is whole, or as they come to an open one.

    Yields how many lines are written and how many of them are answers, as it goes on.
    """
    if isinstance(to, Path):
        with file_beside(to) as out:
            text = io.TextIOWrapper(out, "utf-8")
            yield from write_answers(predictor, lines, text, top=top, embed=embed, prompt=prompt, windows=windows)
            text.detach()
        return
    given = answered = 0
    for answer in answer_lines(predictor, lines, top=top, embed=embed, prompt=prompt, windows=windows):
        to.write(json.dumps(answer, ensure_ascii=False) + "\n")
        given, answered = given + 1, answered + ("error" not in answer)
        if given % 1024 == 0:
            yield given, answered
    yield given, answered


def write_vectors(
    predictor: Predictor, lines: Iterable[str], path: Path, *, prompt: str | None = None
) -> Iterator[tuple[int, int]]:
    """Write the vectors of all lines to a NumPy file, (lines, D) float32, a row of NaN for a line without text.

    Yields how many lines are written and how many of them have a vector, as it goes on; memory stays flat, and the
    file is there when it is whole.
    """
    sorted_out = _Lines(lines, reads_pairs(predictor, embed=True))
    vectors = (vector for block in predictor.embed_stream(sorted_out.texts(), prompt=prompt) for vector in block)
    nothing = np.full(predictor.width, np.nan, np.float32)
    given = answered = 0

    def header() -> dict[str, Any]:
        return {"descr": "<f4", "fortran_order": False, "shape": (given, predictor.width)}

    with file_beside(path) as out:
        np.lib.format.write_array_header_1_0(out, header())  # as long as the one it is replaced by
        for vector in sorted_out.beside(vectors):
            out.write((nothing if vector is None else vector).astype("<f4").tobytes())
            given, answered = given + 1, answered + (vector is not None)
            if given % 1024 == 0:
                yield given, answered
        out.seek(0)
        np.lib.format.write_array_header_1_0(out, header())
    yield given, answered


def reads_pairs(predictor: Predictor, *, embed: bool) -> bool:
    """Whether two texts stand in a line. A model that compares two texts has a vector for each of them."""
    task = predictor.trained.task
    return task.paired and not (embed and task.kind == "embed")


class _Lines:
    """Lines with and without something to answer: those with go to the model, and the answers come back between the
    others. Read ahead by the thread that tokenises."""

    def __init__(
        self, lines: Iterable[str], paired: bool, *, worded: bool = False, asks: Answerer | None = None
    ) -> None:
        self.lines = lines
        self.paired = paired
        self.worded = worded
        self.asks = asks
        self._good: deque[bool] = deque()

    def texts(self) -> Iterator[Text]:
        for line in self.lines:
            text = self._text(line)
            self._good.append(text is not None)
            if text is not None:
                yield text

    def beside(self, answers: Iterable[Any]) -> Iterator[Any]:
        """The answers in the order of the lines, None for each line without."""
        for answer in answers:
            while not self._good.popleft():
                yield None
            yield answer
        while self._good:
            self._good.popleft()
            yield None

    def _text(self, line: str) -> Text | None:
        line = line.replace("\x00", "")
        if self.worded and (words := _words(line)) is not None:
            return words
        if self.asks is not None:
            return _asked(line, self.asks)
        if not self.paired:
            return line if readable(line) else None
        first, tab, second = line.partition("\t")
        return (first, second) if tab and readable(first) and readable(second) else None


def _asked(line: str, asks: Answerer) -> Text | None:
    """A line that is a JSON object, or two texts with a tab between them; None where it does not ask anything."""
    first, tab, second = line.partition("\t")
    text: Any = (first, second) if tab else None
    if line.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            text = json.loads(line)
    try:
        if text is not None:
            asks.row(text, 0)
    except DataError:
        return None
    return text


def _words(line: str) -> list[str] | None:
    """A line that is a list of words in JSON, as a model that tags words takes it."""
    if not line.lstrip().startswith("["):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    worded = isinstance(found, list) and found and all(isinstance(word, str) and readable(word) for word in found)
    return found if worded else None

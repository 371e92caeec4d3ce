"""Answers that stand in their text: read, mended, aligned to tokens; long texts in windows that repeat the question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from encodery.data import ledger
from encodery.data.fields import BadField

if TYPE_CHECKING:
    from encodery.data.rows import Row
    from encodery.data.tokenizers import Encoded, Tokenizer

SHORTEST_CONTEXT: Final = 16
"""Tokens of the context that a window holds at least: a longer question is cut."""


class Answer(NamedTuple):
    """A stretch of the characters of a context, [start, stop)."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one question, none when the context has none; `mended` counts offsets that were put right."""

    spans: tuple[Answer, ...] = ()
    mended: int = 0


def read_answers(value: Any, context: str) -> Answers:
    """What a column of answers says of a context.

    A list of {"text", "start"} (or "answer_start"); {"text": [...], "answer_start": [...]} as SQuAD has it in columns;
    a text or a list of texts without offsets; any of these written as JSON. Nothing, "" and [] say that the context
    does not answer the question. An offset that is missing or wrong is mended where the text stands in the context
    exactly once. Raises BadField.
    """
    spans: dict[Answer, None] = {}
    mended = 0
    for text, start in _pairs(value):
        if not text.strip():
            raise BadField(ledger.BAD_ANSWERS, "an answer is blank; write [] where the text has none")
        if start is not None and start >= 0 and context.startswith(text, start):
            spans[Answer(start, start + len(text))] = None
            continue
        places = _places(text, context)
        if len(places) != 1:
            raise BadField(ledger.ANSWER_ELSEWHERE, _why(text, start, places))
        mended += 1
        spans[Answer(places[0], places[0] + len(text))] = None
    return Answers(tuple(spans), mended)


def _pairs(value: Any) -> list[tuple[str, int | None]]:
    """(text, start) of each answer; start None where it is not given."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError, RecursionError):  # it may be an answer that begins with a bracket
            value = json.loads(value)
    if value is None or value == "" or value != value:
        return []
    if isinstance(value, str):
        return [(value, None)]
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
        if not isinstance(texts, list | tuple):
            return [_pair(value)]
        starts = [None] * len(texts) if starts is None else starts
        if not isinstance(starts, list | tuple) or len(starts) != len(texts):
            raise BadField(ledger.BAD_ANSWERS, f"{len(texts)} texts, and offsets {str(starts)[:40]}")
        return [_pair({"text": text, "start": start}) for text, start in zip(texts, starts)]
    if isinstance(value, list | tuple):
        return [_pair({"text": one} if isinstance(one, str) else one) for one in value]
    raise BadField(ledger.BAD_ANSWERS, f"{str(value)[:40]!r} is no list of answers")


def _pair(given: Any) -> tuple[str, int | None]:
    text = given.get("text") if isinstance(given, Mapping) else None
    if not isinstance(text, str):
        raise BadField(ledger.BAD_ANSWERS, f'{str(given)[:40]} is not {{"text": "...", "start": 0}}')
    start = given.get("start", given.get("answer_start"))
    if isinstance(start, float) and start.is_integer():
        start = int(start)
    if start is not None and (not isinstance(start, int) or isinstance(start, bool)):
        raise BadField(ledger.BAD_ANSWERS, f"the offset {str(start)[:20]!r} of {text[:40]!r} is no whole number")
    return text, start


def _places(text: str, context: str) -> list[int]:
    """Where a text begins in a context, also where it overlaps itself."""
    found, at = [], context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    return found


def _why(text: str, start: int | None, places: list[int]) -> str:
    given = "has no offset" if start is None else f"does not stand at {start}"
    if not places:
        return f"{text[:40]!r} {given}, nor anywhere in the text: correct it, or write [] for no answer"
    where = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
    return f"{text[:40]!r} {given} and stands {len(places)} times in the text (at {where}): give the right offset"


def squad_rows(document: Any) -> Iterator[dict[str, Any]] | None:
    """The rows of SQuAD's nested JSON, {"data": [{"paragraphs": [{"context", "qas": [...]}]}]}: one for each question,
    with its context, question, answers, id and title. None for anything else.

    A question that is_impossible has no answers, whatever stands beside it. Parts that are no objects are left to the
    reader of rows, which counts a row that lacks a column.
    """
    articles = document.get("data") if isinstance(document, Mapping) else None
    if not isinstance(articles, list) or not any(
        isinstance(one, Mapping) and isinstance(one.get("paragraphs"), list) for one in articles
    ):
        return None
    return _squad_rows(articles)


def _squad_rows(articles: list[Any]) -> Iterator[dict[str, Any]]:
    for article in articles:
        article = article if isinstance(article, Mapping) else {}
        paragraphs = article.get("paragraphs")
        for paragraph in paragraphs if isinstance(paragraphs, list) else [article]:
            paragraph = paragraph if isinstance(paragraph, Mapping) else {}
            questions = paragraph.get("qas")
            for asked in questions if isinstance(questions, list) else [{}]:
                asked = asked if isinstance(asked, Mapping) else {}
                row = {
                    "context": paragraph.get("context"),
                    "question": asked.get("question"),
                    "answers": [] if asked.get("is_impossible") is True else asked.get("answers"),
                    "id": asked.get("id"),
                    "title": article.get("title"),
                }
                yield {name: part for name, part in row.items() if part is not None or name == "answers"}


@dataclass
class AnswerCounts:
    """What became of the answers of one store, for the report."""

    answerable: int = 0
    unanswerable: int = 0
    mended: int = 0
    inside_tokens: int = 0
    without_token: int = 0
    same_token: int = 0
    longest: int = 0

    def to_dict(self) -> dict[str, int]:
        """The counts that are not 0, by what people are told; those of the questions always."""
        rest = {
            "offsets mended": self.mended,
            "answers that begin or end inside a token": self.inside_tokens,
            "answers without a token": self.without_token,
            "answers left out: another begins at the same token": self.same_token,
            "tokens of the longest answer": self.longest,
        }
        told = {"questions with an answer": self.answerable, "questions without an answer": self.unanswerable}
        return {**told, **{name: count for name, count in rest.items() if count}}


def answer_tokens(answers: Answers, encoded: Encoded, counts: AnswerCounts) -> np.ndarray:
    """(T,) int32 over the tokens of a context: at the first token of an answer how many tokens it has, 0 elsewhere.

    A token that an answer touches belongs to it, also where the answer begins or ends inside of the token. Of answers
    that begin at the same token the first one given stays.
    """
    found = np.zeros(encoded.ids.size, dtype=np.int32)
    counts.answerable += bool(answers.spans)
    counts.unanswerable += not answers.spans
    counts.mended += answers.mended
    if not answers.spans:
        return found
    starts, stops = (np.maximum.accumulate(ends) for ends in encoded.offsets.T)
    for start, stop in answers.spans:
        begin, end = np.searchsorted(stops, start, "right"), np.searchsorted(starts, stop, "left")
        if end <= begin:
            counts.without_token += 1
        elif found[begin]:
            counts.same_token += 1
        else:
            found[begin] = end - begin
            counts.inside_tokens += bool(starts[begin] < start or stop < stops[end - 1])
            counts.longest = max(counts.longest, int(end - begin))
    return found


class AnswerGatherer:
    """The answers of one store as arrays: `context` counts the tokens of each context from 1, `answer` says at the
    first token of an answer how many tokens it has. Both are 0 at the tokens of questions."""

    def __init__(self) -> None:
        self.counts = AnswerCounts()

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        context, answer = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for row, (text, *others) in zip(rows, encoded):
            rest = [np.zeros(one.ids.size, np.int32) for one in others]
            context += [np.arange(1, text.ids.size + 1, dtype=np.int32), *rest]
            answer += [answer_tokens(row.beside.get("answers", Answers()), text, self.counts), *rest]
        return {"context": np.concatenate(context), "answer": np.concatenate(answer)}

    def texts(self, rows: Sequence[Row]) -> list[list[str]] | None:
        del rows

    def facts(self) -> dict[str, Any]:
        return self.counts.to_dict()


@dataclass
class AnswerField:
    """The answers of a row to the question that is its pair, in the context that is its text."""

    column: str
    name: str = field(default="answers", init=False)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        return (("answers", self.column),)

    @property
    def tokenizer(self) -> Tokenizer | None:
        return None

    def read(self, value: Mapping[str, Any], text: str) -> Answers:
        if self.column not in value:
            there = ", ".join(map(repr, value))
            raise BadField(ledger.MISSING_ANSWERS, f"no {self.column!r}; the row has {there}")
        return read_answers(value[self.column], text)

    def gatherer(self, known: Mapping[str, Any] | None) -> AnswerGatherer:
        del known
        return AnswerGatherer()

    def key(self) -> object:
        return (self.name, self.column)


def overlapping_pieces(total: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """[start, stop) of the windows of a long text: each begins `overlap` tokens before the end of the one before it,
    so whatever is no longer than the overlap and one token stands whole in one of them. Nothing is left out."""
    step = max(1, room - overlap)
    starts = range(0, max(0, total - room) + step, step)
    return [(start, min(start + room, total)) for start in starts]


class QuestionWindow(NamedTuple):
    """One window: how many tokens of the question stand in it, and [start, stop) of the context."""

    question: int
    start: int
    stop: int


def question_windows(question: int, context: int, room: int, overlap: int) -> list[QuestionWindow]:
    """The windows of a context of so many tokens, with the question repeated in each of them.

    `room` is for tokens of both. A question that would leave less than SHORTEST_CONTEXT tokens (or half of the room)
    for the context is cut to that. The overlap is at most half of what is left for the context.
    """
    kept = min(question, room - min(SHORTEST_CONTEXT, room // 2, context))
    left = room - kept
    return [QuestionWindow(kept, *piece) for piece in overlapping_pieces(context, left, min(overlap, left // 2))]

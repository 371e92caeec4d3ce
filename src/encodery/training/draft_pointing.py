"""A drafted recipe for questions with answers in a text, and for options to choose from: which columns, which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from encodery.data.answers import read_answers
from encodery.data.choices import read_options, right_choice
from encodery.data.fields import BadField
from encodery.errors import DataError

ENOUGH = 0.9
"""Share of the rows that has to fit what is guessed of a column."""
_ANSWERS = {"answers", "answer", "answer_text", "gold_answers", "spans"}
_QUESTIONS = {"question", "query", "q"}
_CHOICES = {"choices", "options", "endings", "candidates", "answers"}
_RIGHT = ("label", "answer", "answerkey", "answer_key", "correct", "gold", "target", "right")
LOOKED_AT = 5000


@dataclass(frozen=True)
class PointingSeen:
    """Columns of questions (`answer`) or of choices (`choose`)."""

    kind: Literal["answer", "choose"]
    text: str
    pair: str | None
    column: str
    """Of the answers, or of the options."""
    label: str | None = None
    answered: float = 1.0
    """Share of the questions that have an answer."""


def look_for_pointing(table: Mapping[str, Sequence[Any]], kind: str | None = None) -> PointingSeen | None:
    """The columns of questions or choices, where a file has such; `kind` asks for one of the two."""
    table = {name: list(values[:LOOKED_AT]) for name, values in table.items()}
    found = None
    if kind in (None, "choose"):
        found = _choices(table)
    if found is None and kind in (None, "answer"):
        found = _answers(table)
    return found


def _answers(table: Mapping[str, list[Any]]) -> PointingSeen | None:
    columns = [name for name in table if name.lower() in _ANSWERS]
    questions = [name for name in table if name.lower() in _QUESTIONS]
    for column in columns:
        for question in questions:
            rest = [name for name in table if name not in (column, question)]
            for context in sorted(rest, key=lambda name: -_characters(table[name])):
                good = answered = 0
                for value, text in zip(table[column], table[context]):
                    try:
                        spans = read_answers(value, text if isinstance(text, str) else "").spans
                    except BadField:
                        continue
                    good, answered = good + 1, answered + bool(spans)
                if answered and good >= ENOUGH * len(table[column]):
                    share = answered / len(table[column])
                    return PointingSeen("answer", context, question, column, answered=share)
                break  # the longest text is the context, or there is none
    return None


def _choices(table: Mapping[str, list[Any]]) -> PointingSeen | None:
    for column in (name for name in table if name.lower() in _CHOICES):
        for label in (name for right in _RIGHT for name in table if name.lower() == right and name != column):
            good = sum(_is_choice(*row) for row in zip(table[column], table[label]))
            rest = [name for name in table if name not in (column, label) and _characters(table[name])]
            if rest and good >= ENOUGH * len(table[column]):
                question = next((name for name in rest if name.lower() in _QUESTIONS and len(rest) > 1), None)
                text = max((name for name in rest if name != question), key=lambda name: _characters(table[name]))
                return PointingSeen("choose", text, question, column, label)
    return None


def _is_choice(options: Any, label: Any) -> bool:
    names = options.get("label") if isinstance(options, Mapping) else None
    try:
        right_choice(label, read_options(options), names if isinstance(names, list) else ())
    except BadField:
        return False
    return True


def _characters(values: list[Any]) -> int:
    return sum(len(value) for value in values if isinstance(value, str))


def no_pointing(task: str, path: str, columns: Sequence[str]) -> DataError:
    """The error for a task whose columns were not found."""
    wanted = {
        "answer": 'a text, a column "question", and a column "answers": [{"text": "...", "start": 0}], [] for none',
        "choose": 'a text, a column "choices": ["...", "..."], and a column "label": the number of the right one',
    }
    return DataError(
        f"{path} has no columns for the task {task}; they are {', '.join(columns)}",
        expected=wanted[task],
        fix="name them so, or write the recipe by hand (see recipes/)",
    )


def column_line(seen: PointingSeen, quoted: Callable[[str], str]) -> tuple[str, str]:
    """The line of the column, and its comment."""
    if seen.kind == "answer":
        return (
            f"  answers: {quoted(seen.column)}",
            f"their places in the text; {seen.answered:.0%} of the questions have one",
        )
    return f"  choices: {quoted(seen.column)}", "the options that the label chooses between"


def pointing_lines(seen: PointingSeen, epochs: int) -> list[tuple[str, str]]:
    """The objective, the training and the evaluation of such a recipe: lines with their comments."""
    if seen.kind == "answer":
        objective = [
            ("  kind: answer", "marks the answer in the text, or says that there is none"),
            ("  ends: independent", "biaffine: also how well begin and end go together"),
            ("  longest: 30", "tokens of the longest answer that is looked for"),
            ("  overlap: 64", "tokens that the windows of a long text share"),
        ]
    else:
        objective = [
            ("  kind: choose", "each option is joined with the text and scored; the best one is taken"),
            ("  pooling: first", "how a text and an option become one vector: mean, first, max, attention"),
        ]
    return [
        ("objective:", ""),
        *objective,
        ("", ""),
        ("training:", ""),
        (f"  budget: {epochs} epochs", "or 5m, 2000 steps, 5M tokens; the schedule is stretched over it"),
        ("  batch_tokens: 4096", "positions of a batch; the options of a row stand in one batch"),
        ("  optim: {lr: 5e-4}", "lower it when the loss jumps"),
        ("", ""),
        ("evaluation:", ""),
        ("  compare: [majority, tfidf, scratch]", "what the result must beat; scratch: without pretraining"),
    ]
